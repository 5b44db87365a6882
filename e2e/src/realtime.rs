//! What comes besides messages, to raw sockets and to clients.

use anyhow::{Context, Result, ensure};
use chat_client::Event;
use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    wire::{Presence, Receipt, Typing},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Incoming, Online, Socket, socket::opcode};

/// What a client closes an ordinary connection with.
const NORMAL_CLOSURE: u16 = 1000;

impl Socket {
    /// Watches these users; how they are.
    pub async fn watch(&mut self, user_ids: &[UserId]) -> Result<Vec<Presence>> {
        let reply = self.ask(watch_presence(user_ids)).await?;
        ensure!(reply["type"] == "done", "the list was answered with {reply}");
        self.presence().await
    }

    /// Passes over frames until one tells of users who are watched.
    pub async fn presence(&mut self) -> Result<Vec<Presence>> {
        self.field_of("presence", "users").await
    }

    /// Passes over frames until one tells of a receipt.
    pub async fn receipt(&mut self) -> Result<Receipt> {
        self.field_of("receipt", "receipt").await
    }

    /// Passes over frames until one tells of somebody who writes.
    pub async fn typing(&mut self) -> Result<Typing> {
        self.field_of("typing", "typing").await
    }

    /// Marks a message as read, which has to be carried out.
    pub async fn mark_read(&mut self, conversation_id: ConversationId, message_id: MessageId) -> Result<()> {
        let reply = self.ask(mark_read(conversation_id, message_id)).await?;
        ensure!(reply["type"] == "done", "the mark was answered with {reply}");
        Ok(())
    }

    /// Says that the person writes, or has stopped; the reply.
    pub async fn set_typing(&mut self, conversation_id: ConversationId, is_typing: bool) -> Result<Value> {
        self.ask(json!({ "type": "set_typing", "conversation_id": conversation_id, "is_typing": is_typing })).await
    }

    /// Closes the connection as clients do that leave, and waits for the end.
    pub async fn goodbye(mut self) -> Result<()> {
        self.raw_frame(opcode::FIN | opcode::CLOSE, &NORMAL_CLOSURE.to_be_bytes()).await?;
        loop {
            if matches!(self.incoming().await?, Incoming::Close(..) | Incoming::Gone) {
                return Ok(());
            }
        }
    }

    async fn field_of<T: DeserializeOwned>(&mut self, name: &str, field: &str) -> Result<T> {
        let mut frame = self.frame_where(|frame| frame["type"] == name).await.with_context(|| format!("a {name}"))?;
        Ok(serde_json::from_value(frame[field].take())?)
    }
}

impl Online {
    /// Passes over events until one tells of users who are watched.
    pub async fn presence(&mut self) -> Result<Vec<Presence>> {
        loop {
            if let Event::Presence(users) = self.event().await? {
                return Ok(users);
            }
        }
    }

    /// Passes over events until one tells of a receipt.
    pub async fn receipt(&mut self) -> Result<Receipt> {
        loop {
            if let Event::Receipt(receipt) = self.event().await? {
                return Ok(receipt);
            }
        }
    }

    /// Passes over events until one tells of somebody who writes.
    pub async fn typing(&mut self) -> Result<Typing> {
        loop {
            if let Event::Typing(typing) = self.event().await? {
                return Ok(typing);
            }
        }
    }

    /// Passes over events until what is unread, in all conversations, is this much.
    pub async fn unread_total(&mut self, wanted: u64) -> Result<()> {
        while self.client.unread_total() != wanted {
            self.event().await.with_context(|| format!("{wanted} unread, and not {}", self.client.unread_total()))?;
        }
        Ok(())
    }
}

/// The command that says whom to watch.
pub fn watch_presence(user_ids: &[UserId]) -> Value {
    json!({ "type": "watch_presence", "user_ids": user_ids })
}

/// The command that says how far was read.
pub fn mark_read(conversation_id: ConversationId, message_id: MessageId) -> Value {
    json!({ "type": "mark_read", "conversation_id": conversation_id, "message_id": message_id })
}
