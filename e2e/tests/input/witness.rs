//! Somebody who is connected to the same gateway and must not notice anything.

use anyhow::{Result, ensure};
use chat_e2e::{Socket, TestFleet};
use chat_shared::wire::Encoding;
use serde_json::json;

/// A connection beside those that misbehave.
pub struct Witness {
    socket: Socket,
    pid: Option<u32>,
}

impl Witness {
    /// Connects to the first gateway, where tests send what is wrong.
    pub async fn of(fleet: &TestFleet) -> Result<Self> {
        let socket = fleet.ready_socket(&fleet.person()?, 0, Encoding::Json).await?;
        Ok(Self { socket, pid: fleet.gateway(0).pid() })
    }

    /// Checks that the connection is answered as ever, by the same process.
    pub async fn is_undisturbed(&mut self, fleet: &TestFleet) -> Result<()> {
        let reply = self.socket.ask(json!({ "type": "heartbeat" })).await?;
        ensure!(reply["type"] == "done", "{reply}");
        ensure!(fleet.gateway(0).pid() == self.pid, "the gateway was started again");
        Ok(())
    }
}
