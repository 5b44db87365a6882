//! What participants did besides sending, and what it has to come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chat_client::{
    ids::{ConversationId, UserId},
    positions::Seq,
};
use tokio::time::Instant;

use super::{
    evidence::{Marked, Observed},
    ledger::Key,
};

/// Everything that was done.
#[derive(Debug, Default)]
pub struct Actions(Mutex<Done>);

#[derive(Debug, Default)]
struct Done {
    marked: BTreeMap<(ConversationId, UserId), Marked>,
    observed: Vec<Observed>,
    forbidden: BTreeSet<Key>,
}

impl Actions {
    /// Notes a read mark before it is sent.
    pub fn try_mark(&self, conversation_id: ConversationId, user_id: UserId, seq: Seq) {
        let new = Marked { conversation_id, user_id, answered: Seq::ZERO, tried: seq, answered_at: None };
        let mut done = self.lock();
        let marked = done.marked.entry((conversation_id, user_id)).or_insert(new);
        marked.tried = marked.tried.max(seq);
    }

    /// Notes that a read mark, sent before, was answered.
    pub fn mark(&self, conversation_id: ConversationId, user_id: UserId, seq: Seq) {
        if let Some(marked) = self.lock().marked.get_mut(&(conversation_id, user_id))
            && marked.answered < seq
        {
            (marked.answered, marked.answered_at) = (seq, Some(Instant::now()));
        }
    }

    /// Forgets that marks were answered: the servers have lost what they answered with.
    pub fn lose_marks(&self) {
        for marked in self.lock().marked.values_mut() {
            (marked.answered, marked.answered_at) = (Seq::ZERO, None);
        }
    }

    /// Notes whether an added or removed user was shown a message.
    pub fn observe(&self, observed: Observed) {
        self.lock().observed.push(observed);
    }

    /// Notes an answered message that must have been refused.
    pub fn forbid(&self, key: Key) {
        self.lock().forbidden.insert(key);
    }

    /// All marks, observations and forbidden messages.
    pub fn record(&self) -> (Vec<Marked>, Vec<Observed>, BTreeSet<Key>) {
        let done = self.lock();
        (done.marked.values().copied().collect(), done.observed.clone(), done.forbidden.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
