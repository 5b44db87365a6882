//! What was sent, and what was answered: the truth that everything else is compared with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::Accepted,
};
use tokio::{sync::watch, time::timeout};

/// How long so many messages may take to be accepted.
const ACCEPTED_DEADLINE: Duration = Duration::from_mins(1);

/// What makes a message one message: nobody can take another's id, and one id may be used in two conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::struct_field_names, reason = "they are called so everywhere")]
pub struct Key {
    pub conversation_id: ConversationId,
    pub sender_id: UserId,
    pub message_id: MessageId,
}

/// Under which number and when a message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub seq: Seq,
    pub sent_at: Timestamp,
}

/// What its sender knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may be kept or not: no answer has come, or one that doesn't tell.
    Unknown,
    /// It was never given to a gateway.
    NotSent,
    /// A gateway has accepted it.
    Accepted(Place),
}

/// A message that somebody tried to send, once or more often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub key: Key,
    pub text: String,
    pub fate: Fate,
    /// All acceptances; a repeat must get the first one.
    pub answers: Vec<Place>,
}

/// A message that a gateway has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Key,
    pub seq: Seq,
    pub sent_at: Timestamp,
    pub text: String,
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    attempts: Mutex<BTreeMap<Key, Attempt>>,
    accepted: watch::Sender<usize>,
}

impl Ledger {
    /// Notes a message before it is given away. A repeat of one that is known changes nothing.
    pub fn begin(&self, key: Key, text: &str) {
        let attempt = || Attempt { key, text: text.to_owned(), fate: Fate::Unknown, answers: Vec::new() };
        self.lock().entry(key).or_insert_with(attempt);
    }

    /// Notes that a message, begun before, was accepted.
    pub fn accept(&self, sender_id: UserId, accepted: &Accepted) {
        let Accepted { conversation_id, message_id, seq, sent_at, .. } = *accepted;
        let place = Place { seq, sent_at };
        let mut attempts = self.lock();
        let Some(attempt) = attempts.get_mut(&Key { conversation_id, sender_id, message_id }) else { return };
        let is_first = attempt.answers.is_empty();
        attempt.answers.push(place);
        if is_first {
            attempt.fate = Fate::Accepted(place);
            self.accepted.send_modify(|count| *count += 1);
        }
    }

    /// Notes that a message, begun before, was never given to a gateway.
    pub fn give_up(&self, key: Key) {
        if let Some(attempt) = self.lock().get_mut(&key)
            && attempt.fate == Fate::Unknown
        {
            attempt.fate = Fate::NotSent;
        }
    }

    /// Forgets messages that were accepted and that all servers have lost.
    pub fn forget(&self, lost: &BTreeSet<Key>) {
        self.lock().retain(|key, _| !lost.contains(key));
    }

    /// How many messages were accepted.
    pub fn count(&self) -> usize {
        *self.accepted.borrow()
    }

    /// All that was sent.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().values().cloned().collect()
    }

    /// The accepted messages of a conversation, by number.
    pub fn of(&self, conversation_id: ConversationId) -> Vec<Kept> {
        let attempts = self.lock();
        let mut kept: Vec<_> = attempts
            .values()
            .filter(|it| it.key.conversation_id == conversation_id)
            .filter_map(Attempt::kept)
            .collect();
        kept.sort_by_key(|kept| kept.seq);
        kept
    }

    /// Waits until so many were accepted.
    pub async fn until_count(&self, count: usize) -> Result<()> {
        let mut accepted = self.accepted.subscribe();
        timeout(ACCEPTED_DEADLINE, accepted.wait_for(|accepted| *accepted >= count))
            .await
            .with_context(|| format!("{count} messages were not accepted within {ACCEPTED_DEADLINE:?}"))??;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// As an accepted message, if it is one.
    pub fn kept(&self) -> Option<Kept> {
        let Fate::Accepted(Place { seq, sent_at }) = self.fate else { return None };
        Some(Kept { key: self.key, seq, sent_at, text: self.text.clone() })
    }
}
