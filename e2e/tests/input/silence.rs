//! Connections that say nothing. These waits are the protocol's own and can't be shortened, so they run beside others.

use anyhow::Result;
use chat_e2e::on_shared_fleet;
use chat_shared::wire::Encoding;
use serde_json::json;

#[test]
fn who_says_nothing_is_closed() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let mut mute = fleet.socket(&person, 0, Encoding::Json).await?;
        let mut fell_silent = fleet.ready_socket(&person, 0, Encoding::MessagePack).await?;
        let mut alive = fleet.ready_socket(&person, 0, Encoding::Json).await?;
        let (hello, silence, beat) = tokio::join!(mute.close_code(), fell_silent.close_code(), async {
            // The gateway's own heartbeat says when the next one is due.
            alive.frame_where(|frame| frame["type"] == "heartbeat").await?;
            alive.command(&json!({ "type": "heartbeat" })).await?;
            alive.frame_where(|frame| frame["type"] == "heartbeat").await
        });
        assert_eq!(hello?, (4503, "hello_missed".to_owned()));
        assert_eq!(silence?, (4002, "heartbeat_missed".to_owned()));
        assert!(beat?["cursor"].is_u64());
        assert_eq!(alive.ask(json!({ "type": "heartbeat" })).await?["type"], "done");
        Ok(())
    })
}
