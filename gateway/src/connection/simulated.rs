//! A client without a socket: what a reader would carry out, and what a writer would write.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chat_shared::{
    ids::{DeviceId, UserId},
    position::Cursor,
    wire::{CloseCode, Command, CommandFrame, Confirm, Connected, Encoding, Hello, Push, Reply, ServerFrame},
};

use super::{
    Connection, commands, hello,
    outbox::{Ending, Outgoing},
};
use crate::{auth::Identity, presence::Parting, state::AppState};

const DEADLINE: Duration = Duration::from_secs(30);

/// A connection that has said hello.
pub struct Client {
    state: AppState,
    connection: Arc<Connection>,
    pushes: VecDeque<Push>,
}

impl Client {
    /// Says hello with a new device.
    pub async fn connect(state: &AppState, user_id: UserId) -> Self {
        Self::connect_device(state, user_id, DeviceId::random()).await
    }

    /// Says hello.
    pub async fn connect_device(state: &AppState, user_id: UserId, device_id: DeviceId) -> Self {
        Self::hello(state, user_id, Hello { device_id, resume: None }).await.0
    }

    /// Says hello, and gives what `ready` says.
    pub async fn hello(state: &AppState, user_id: UserId, hello: Hello) -> (Self, Connected) {
        Self::hello_as(state, Identity::for_ever(user_id), hello).await
    }

    /// As `hello`, with a certain token.
    pub async fn hello_as(state: &AppState, identity: Identity, hello: Hello) -> (Self, Connected) {
        let connection = Arc::new(Connection::new(identity, Encoding::Json, state.connections.removals()));
        hello::arrive(state, &connection, hello).await;
        let mut client = Self { state: state.clone(), connection, pushes: VecDeque::new() };
        let Push::Ready(ready) = client.push().await else { panic!("ready comes first") };
        (client, ready)
    }

    /// How the gateway ends the connection of somebody who says hello. It pushes nothing before.
    pub async fn turned_away(state: &AppState, identity: Identity) -> CloseCode {
        let connection = Arc::new(Connection::new(identity, Encoding::Json, state.connections.removals()));
        hello::arrive(state, &connection, Hello { device_id: DeviceId::random(), resume: None }).await;
        assert_eq!(connection.outbox.len(), 0);
        Self { state: state.clone(), connection, pushes: VecDeque::new() }.closed().await
    }

    /// How the gateway ends the connection.
    pub async fn closed(&self) -> CloseCode {
        let ending = tokio::time::timeout(DEADLINE, self.connection.outbox.closed());
        match ending.await.expect("the connection ends in time") {
            Ending::Closed(code) => code,
            Ending::Left => panic!("the gateway ends it"),
        }
    }

    /// Whether the connection goes on.
    pub fn is_open(&self) -> bool {
        !self.connection.is_closing()
    }

    /// Gives a command, and waits for its reply. What is pushed before it is kept for later.
    pub async fn ask(&mut self, command: Command) -> Reply {
        commands::carry_out(&self.state, &self.connection, CommandFrame { reference: Some(7), command }).await;
        loop {
            match self.frame().await {
                ServerFrame::Reply(reply) => return reply,
                ServerFrame::Push(push) => self.pushes.push_back(push),
            }
        }
    }

    /// Confirms pushes, which has no answer.
    pub async fn confirm(&self, cursor: Cursor) {
        let command = Command::Confirm(Confirm { cursor });
        commands::carry_out(&self.state, &self.connection, CommandFrame { reference: None, command }).await;
    }

    /// The next push.
    pub async fn push(&mut self) -> Push {
        if let Some(push) = self.pushes.pop_front() {
            return push;
        }
        match self.frame().await {
            ServerFrame::Push(push) => push,
            ServerFrame::Reply(reply) => panic!("nobody asked for {reply:?}"),
        }
    }

    async fn frame(&self) -> ServerFrame {
        let next = tokio::time::timeout(DEADLINE, self.connection.outbox.next());
        match next.await.expect("a frame comes in time") {
            Some(Outgoing::Data(bytes)) => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("the connection goes on, but {other:?}"),
        }
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.pushes.len() + self.connection.outbox.len()
    }

    /// Ends the connection.
    pub async fn leave(self, parting: Parting) {
        hello::depart(&self.state, &self.connection, parting).await;
    }
}
