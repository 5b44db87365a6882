//! A connected client, and what it has been handed.

use anyhow::{Context, Result, bail, ensure};
use chat_client::{Client, ConnectionState, Event, Events};
use chat_shared::{
    ids::ConversationId,
    wire::{Accepted, ChangedConversation, Message},
};

use crate::in_time;

/// A client that is connected.
#[derive(Debug)]
pub struct Online {
    /// Sends and asks.
    pub client: Client,
    /// What comes.
    pub events: Events,
}

impl Online {
    /// Both halves of a client.
    pub const fn new(client: Client, events: Events) -> Self {
        Self { client, events }
    }

    /// Sends a new message that has to be accepted.
    pub async fn say(&self, conversation_id: ConversationId, text: &str) -> Result<Accepted> {
        Ok(self.client.send(conversation_id, text).await?)
    }

    /// The next event.
    pub async fn event(&mut self) -> Result<Event> {
        match in_time("an event", self.events.next()).await? {
            Some(event) => Ok(event),
            None => bail!("the client has stopped: {:?}", self.client.state()),
        }
    }

    /// The next message; other events but skipped messages are passed over.
    pub async fn message(&mut self) -> Result<Message> {
        loop {
            match self.event().await? {
                Event::Message(message) => return Ok(message),
                Event::Skipped { from, to, .. } => bail!("messages {from:?} to {to:?} were skipped"),
                _ => {}
            }
        }
    }

    /// Passes over events until the conversation list has been loaded.
    pub async fn reloaded(&mut self) -> Result<()> {
        loop {
            match self.event().await? {
                Event::Reloaded(_) => return Ok(()),
                Event::Message(_) | Event::Skipped { .. } => bail!("messages came before the conversation list"),
                _ => {}
            }
        }
    }

    /// The next messages, which must have these numbers.
    pub async fn expect(&mut self, numbers: impl IntoIterator<Item = u64>) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        for number in numbers {
            let message = self.message().await.with_context(|| format!("waiting for message {number}"))?;
            ensure!(message.seq.0 == number, "message {} came instead of {number}", message.seq.0);
            messages.push(message);
        }
        Ok(messages)
    }

    /// The next change of a conversation.
    pub async fn change(&mut self) -> Result<ChangedConversation> {
        loop {
            if let Event::Conversation(change) = self.event().await? {
                return Ok(change);
            }
        }
    }

    /// Passes over events until the client says that it is connected; whether that resumed its position.
    pub async fn connected(&mut self) -> Result<bool> {
        loop {
            if let Event::State(ConnectionState::Connected { resumed, .. }) = self.event().await? {
                return Ok(resumed);
            }
        }
    }

    /// Messages that are there already and were not expected.
    pub fn left_over(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(event) = self.events.try_next() {
            if let Event::Message(message) = event {
                messages.push(message);
            }
        }
        messages
    }
}
