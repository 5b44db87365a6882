//! The sends that have no answer yet: which to write next, which to repeat, which are too late. No I/O.
//!
//! **Invariant:** a message that was ever written to a connection is repeated with `is_repeat` after that
//! connection is lost, and ends as *unknown* rather than *not sent* when its deadline passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chat_shared::wire::{ErrorCode, SendMessage};
use tokio::time::Instant;

use crate::limits::HINT_MAX;

/// Where a send stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits to be written.
    Unsent,
    /// It was written, and the answer hasn't come.
    Sent,
    /// The gateway asked for it to be repeated, not before this moment.
    Waiting(Instant),
}

#[derive(Debug)]
struct Entry<W> {
    command: SendMessage,
    deadline: Instant,
    waiter: W,
    stage: Stage,
    /// Whether the log may have it, as far as is known here.
    may_be_kept: bool,
}

/// A send whose deadline has passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired<W> {
    pub(crate) command: SendMessage,
    pub(crate) waiter: W,
    pub(crate) may_be_kept: bool,
}

/// The sends without an answer, each with whoever waits for it.
#[derive(Debug)]
pub(crate) struct Book<W> {
    entries: BTreeMap<u64, Entry<W>>,
    unsent: BTreeSet<u64>,
    last_reference: u64,
}

impl<W> Default for Book<W> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), unsent: BTreeSet::new(), last_reference: 0 }
    }
}

impl<W> Book<W> {
    /// A reference that no other command of this client has.
    pub(crate) fn next_reference(&mut self) -> u64 {
        self.last_reference += 1;
        self.last_reference
    }

    /// Notes a new send.
    pub(crate) fn add(&mut self, command: SendMessage, deadline: Instant, waiter: W) {
        let reference = self.next_reference();
        let may_be_kept = command.is_repeat;
        self.unsent.insert(reference);
        self.entries.insert(reference, Entry { command, deadline, waiter, stage: Stage::Unsent, may_be_kept });
    }

    /// Whether something waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next to write, oldest first.
    pub(crate) fn first_unsent(&self) -> Option<(u64, &SendMessage)> {
        let reference = *self.unsent.first()?;
        Some((reference, &self.entries.get(&reference)?.command))
    }

    /// It was given to the connection's writer.
    pub(crate) fn written(&mut self, reference: u64) {
        self.unsent.remove(&reference);
        if let Some(entry) = self.entries.get_mut(&reference) {
            entry.stage = Stage::Sent;
            entry.may_be_kept = true;
        }
    }

    /// It was accepted: gives whoever waits for it.
    pub(crate) fn accepted(&mut self, reference: u64) -> Option<W> {
        self.remove(reference).map(|entry| entry.waiter)
    }

    /// It was rejected. Gives whoever waits for it if that is final, else notes when to repeat it.
    pub(crate) fn rejected(&mut self, reference: u64, code: ErrorCode, repeat_at: Instant) -> Option<W> {
        let entry = self.entries.get_mut(&reference)?;
        match code {
            // Refused before anything was done with it, so this attempt leaves nothing unknown.
            ErrorCode::RateLimited => entry.may_be_kept = entry.command.is_repeat,
            ErrorCode::Unavailable | ErrorCode::Internal => entry.command.is_repeat = true,
            _ => return self.accepted(reference),
        }
        entry.stage = Stage::Waiting(repeat_at);
        None
    }

    /// The connection is gone: everything that was written on it is to be repeated.
    pub(crate) fn connection_lost(&mut self) {
        for (reference, entry) in &mut self.entries {
            if entry.stage == Stage::Sent {
                entry.stage = Stage::Unsent;
                entry.command.is_repeat = true;
                self.unsent.insert(*reference);
            }
        }
    }

    /// Moves on with time: readies repeats that are due, and gives the sends that are too late or whose
    /// waiter is gone.
    pub(crate) fn tick(&mut self, now: Instant, is_gone: impl Fn(&W) -> bool) -> Vec<Expired<W>> {
        let mut expired = Vec::new();
        for (reference, entry) in &mut self.entries {
            if entry.deadline <= now || (entry.stage != Stage::Sent && is_gone(&entry.waiter)) {
                expired.push(*reference);
            } else if matches!(entry.stage, Stage::Waiting(until) if until <= now) {
                entry.stage = Stage::Unsent;
                self.unsent.insert(*reference);
            }
        }
        expired.into_iter().filter_map(|reference| self.expire(reference)).collect()
    }

    /// Gives up on all.
    pub(crate) fn drain(&mut self) -> Vec<Expired<W>> {
        let all: Vec<_> = self.entries.keys().copied().collect();
        all.into_iter().filter_map(|reference| self.expire(reference)).collect()
    }

    /// When `tick` has something to do next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let moments = self.entries.values().map(|entry| match entry.stage {
            Stage::Waiting(until) => until.min(entry.deadline),
            Stage::Unsent | Stage::Sent => entry.deadline,
        });
        moments.min()
    }

    fn expire(&mut self, reference: u64) -> Option<Expired<W>> {
        let Entry { command, waiter, may_be_kept, .. } = self.remove(reference)?;
        Some(Expired { command, waiter, may_be_kept })
    }

    fn remove(&mut self, reference: u64) -> Option<Entry<W>> {
        self.unsent.remove(&reference);
        self.entries.remove(&reference)
    }
}

/// When to repeat a rejected send: after the gateway's delay, within reason, spread over as long again.
pub(crate) fn repeat_delay(retry_after: Option<Duration>, chance: f64) -> Duration {
    let delay = retry_after.unwrap_or(REPEAT_DELAY_DEFAULT).min(HINT_MAX);
    delay + delay.mul_f64(chance.clamp(0.0, 1.0))
}

/// The delay before a repeat if the gateway names none.
const REPEAT_DELAY_DEFAULT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use chat_shared::ids::{ConversationId, MessageId};

    use super::*;

    fn command() -> SendMessage {
        SendMessage {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            text: "hello".into(),
            is_repeat: false,
            seen_seq: None,
        }
    }

    /// A book with one send, which was written under reference 1.
    fn written(now: Instant) -> Book<&'static str> {
        let mut book = Book::default();
        book.add(command(), now + Duration::from_secs(10), "waiter");
        assert_eq!(write_next(&mut book), Some((1, false)));
        assert!(!book.has_unsent());
        book
    }

    /// Writes the next send; gives its reference and whether it was marked as a repeat.
    fn write_next(book: &mut Book<&'static str>) -> Option<(u64, bool)> {
        let written = book.first_unsent().map(|(reference, command)| (reference, command.is_repeat))?;
        book.written(written.0);
        Some(written)
    }

    #[test]
    fn a_lost_connection_makes_a_repeat_with_the_same_id() {
        let mut book = written(Instant::now());
        book.connection_lost();
        assert_eq!(write_next(&mut book), Some((1, true)));
        assert_eq!(book.accepted(1), Some("waiter"));
        assert_eq!(book.accepted(1), None, "an answer that comes twice is nobody's");
    }

    #[test]
    fn sends_are_repeated_in_the_order_they_were_made() {
        let now = Instant::now();
        let mut book = Book::default();
        for waiter in ["first", "second", "third"] {
            book.add(command(), now + Duration::from_secs(1), waiter);
        }
        write_next(&mut book);
        write_next(&mut book);
        book.connection_lost();
        let order: Vec<_> = std::iter::from_fn(|| write_next(&mut book).map(|(reference, _)| reference)).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn what_may_pass_is_repeated_and_what_cannot_is_final() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for code in [ErrorCode::Unavailable, ErrorCode::RateLimited, ErrorCode::Internal] {
            let mut book = written(now);
            assert_eq!(book.rejected(1, code, later), None, "{code:?}");
            assert_eq!(book.next_tick(), Some(later));
            assert!(book.tick(now, |_| false).is_empty());
            assert!(!book.has_unsent(), "{code:?} waits");
            assert!(book.tick(later, |_| false).is_empty());
            assert!(book.has_unsent(), "{code:?} is due");
        }
        for code in [ErrorCode::Conflict, ErrorCode::NotFound, ErrorCode::Forbidden, ErrorCode::TooLarge] {
            assert_eq!(written(now).rejected(1, code, later), Some("waiter"), "{code:?}");
        }
    }

    #[test]
    fn a_deadline_says_whether_the_outcome_is_known() {
        let now = Instant::now();
        let end = now + Duration::from_secs(10);
        let is_unknown = |mut book: Book<&'static str>| book.tick(end, |_| false).first().map(|late| late.may_be_kept);

        assert_eq!(is_unknown(written(now)), Some(true), "it was written and not answered");
        let mut unwritten = Book::default();
        unwritten.add(command(), end, "waiter");
        assert_eq!(is_unknown(unwritten), Some(false), "nobody ever saw it");
        let mut limited = written(now);
        limited.rejected(1, ErrorCode::RateLimited, end);
        assert_eq!(is_unknown(limited), Some(false), "it was refused before anything was done");
        let mut unavailable = written(now);
        unavailable.rejected(1, ErrorCode::Unavailable, end);
        assert_eq!(is_unknown(unavailable), Some(true), "an append that timed out may still land");
    }

    #[test]
    fn a_send_that_nobody_waits_for_is_dropped_unless_its_answer_is_due() {
        let now = Instant::now();
        let mut book = written(now);
        assert!(book.tick(now, |_| true).is_empty());
        book.connection_lost();
        assert_eq!(book.tick(now, |_| true).len(), 1);
        assert!(!book.has_unsent());
    }
}
