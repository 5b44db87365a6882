//! Somebody who writes: every message is in the ledger before it is given to the client, and again with its outcome.

use std::sync::Arc;

use chat_client::{
    Client, Outgoing, RestError, SendError,
    ids::{ConversationId, MessageId, UserId},
    wire::{Accepted, SendMessageBody},
};
use tokio::time::Instant;

use super::samples::Samples;
use crate::audit::{Actions, Key, Ledger};

/// Whether a gateway has refused something, and not only for now.
pub fn is_for_good(error: &RestError) -> bool {
    error.retry_after().is_none() && error.code().is_some()
}

/// A person's client, and where what it sends is written down.
#[derive(Debug, Clone)]
pub struct Voice {
    pub user_id: UserId,
    client: Client,
    ledger: Arc<Ledger>,
    samples: Arc<Samples>,
}

impl Voice {
    pub fn new(user_id: UserId, client: Client, ledger: &Arc<Ledger>, samples: &Arc<Samples>) -> Self {
        Self { user_id, client, ledger: Arc::clone(ledger), samples: Arc::clone(samples) }
    }

    /// Tries once to send what has to be refused. An attempt without an answer shows nothing.
    pub async fn try_forbidden(&self, conversation_id: ConversationId, actions: &Actions) {
        let (message_id, text) = (MessageId::random(), "this has to be refused".to_owned());
        let key = Key { conversation_id, sender_id: self.user_id, message_id };
        self.ledger.begin(key, &text);
        let body = SendMessageBody { message_id, text, is_repeat: false, seen_seq: None };
        match self.client.rest().send_message(conversation_id, &body).await {
            Ok(accepted) => {
                actions.forbid(key);
                self.ledger.accept(self.user_id, &accepted);
            }
            Err(error) => {
                if is_for_good(&error) {
                    actions.forbid(key);
                }
                // If it is stored all the same, it is a phantom.
                self.ledger.give_up(key);
            }
        }
    }

    /// Sends a message, which the client repeats until it has an outcome. Gives it if it was accepted.
    pub async fn send(self, conversation_id: ConversationId, text: String) -> Option<Accepted> {
        match self.attempt(conversation_id, text).await {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.samples.refused(refusal);
                None
            }
        }
    }

    /// As `send`, by a user who may have been removed meanwhile: a refusal is no fault.
    pub async fn try_send(&self, conversation_id: ConversationId, text: String) -> Option<Accepted> {
        self.attempt(conversation_id, text).await.ok().flatten()
    }

    /// The message if it was accepted; an error if it was refused.
    async fn attempt(&self, conversation_id: ConversationId, text: String) -> Result<Option<Accepted>, String> {
        let outgoing = Outgoing::new(conversation_id, text.clone());
        let key = Key { conversation_id, sender_id: self.user_id, message_id: outgoing.message_id };
        self.ledger.begin(key, &text);
        let began = Instant::now();
        match self.client.send_message(outgoing).await {
            Ok(accepted) => {
                self.ledger.accept(self.user_id, &accepted);
                self.samples.add(began);
                return Ok(Some(accepted));
            }
            Err(SendError::NotSent { .. }) => self.ledger.give_up(key),
            Err(SendError::Rejected { code, message }) => return Err(format!("{code:?}: {message}")),
            Err(SendError::OutcomeUnknown { .. } | SendError::InvalidText { .. }) => {}
        }
        Ok(None)
    }
}
