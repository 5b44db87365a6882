//! Senders and conversations whose appends spoil shared writes, set apart for a while.
//!
//! The server refuses a batch as a whole when one of its appends is a repeat or has lost its race. A client that repeats
//! goes on repeating, and two gateways that write to a conversation go on racing: their appends go one by one, so that all
//! others keep their shared writes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{append::Append, rounds::Waiting};
use crate::ids::UserId;

/// How long a suspect is set apart after it was last to blame.
const APART_FOR: Duration = Duration::from_secs(10);
/// Suspects at a time. Those beyond are not set apart: each spoils a write, which is then written in parts.
const SUSPECTS_MAX: usize = 10_000;

/// Appends left out of shared writes.
pub(super) const SET_APART_TOTAL: &str = "chat_gateway_append_set_apart_total";

/// One that was to blame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Suspect {
    /// Repeats, in whichever conversation.
    Sender(UserId),
    /// Its subject: others append to it too.
    Conversation(String),
}

/// Those that were to blame lately, and until when they are set apart.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<HashMap<Suspect, Instant>>);

impl Suspects {
    /// Notes an append that was a repeat.
    pub(super) fn note_repeat(&self, append: &Append) {
        let suspect = append.sender_id.map_or_else(|| Suspect::Conversation(append.subject.clone()), Suspect::Sender);
        self.note(suspect, Instant::now());
    }

    /// Notes an append that has lost its race.
    pub(super) fn note_race(&self, append: &Append) {
        self.note(Suspect::Conversation(append.subject.clone()), Instant::now());
    }

    fn note(&self, suspect: Suspect, now: Instant) {
        let mut suspects = self.0.lock();
        if suspects.len() >= SUSPECTS_MAX {
            suspects.retain(|_, until| *until > now);
        }
        if suspects.len() < SUSPECTS_MAX || suspects.contains_key(&suspect) {
            suspects.insert(suspect, now + APART_FOR);
        }
    }

    /// The appends of suspects, and the others.
    pub(super) fn set_apart(&self, round: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
        let (suspects, now) = (self.0.lock(), Instant::now());
        if suspects.is_empty() {
            return (Vec::new(), round);
        }
        let is_apart = |suspect: &Suspect| suspects.get(suspect).is_some_and(|until| *until > now);
        let (apart, others): (Vec<_>, _) = round.into_iter().partition(|Waiting { append, .. }| {
            append.sender_id.is_some_and(|sender_id| is_apart(&Suspect::Sender(sender_id)))
                || is_apart(&Suspect::Conversation(append.subject.clone()))
        });
        metrics::counter!(SET_APART_TOTAL).increment(apart.len() as u64);
        (apart, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_are_bounded_and_pass() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        for _ in 0..SUSPECTS_MAX + 10 {
            suspects.note(Suspect::Sender(UserId::random()), now);
        }
        assert_eq!(suspects.0.lock().len(), SUSPECTS_MAX);
        suspects.note(Suspect::Sender(UserId::random()), now + APART_FOR);
        assert_eq!(suspects.0.lock().len(), 1, "those whose time is over make room");
    }
}
