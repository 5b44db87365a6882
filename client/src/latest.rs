//! Commands of which only the latest counts: how far a conversation was read, and which users and businesses are watched. Each is
//! repeated over lost connections until it is answered or nobody waits for it any more. No I/O.
//!
//! **Invariant:** of each subject at most one command is on its way; of those that wait behind it, only the latest is kept,
//! or the furthest where that is known, with everybody who waited for the others.

use std::collections::BTreeMap;

use chat_shared::{
    ids::ConversationId,
    position::Seq,
    wire::{Command, ErrorCode},
};
use tokio::time::Instant;

/// What a command is about. A later command about the same takes the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// How far this conversation was read.
    Reading(ConversationId),
    /// Whose presence is watched.
    Presence,
    /// Which businesses are watched.
    Businesses,
}

/// A command, and who waits for its answer: each until a moment of their own.
#[derive(Debug)]
struct Pending<W> {
    command: Command,
    /// How far it goes, if that is known.
    reach: Option<Seq>,
    waiters: Vec<(Instant, W)>,
    /// Whether it is repeated even if nobody waits for it.
    is_kept: bool,
}

#[derive(Debug)]
struct Slot<W> {
    sent: Option<(u64, Pending<W>)>,
    next: Option<Pending<W>>,
    /// The gateway asked for the next one not to come before this moment.
    not_before: Option<Instant>,
}

/// A command that has its final answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered<W> {
    pub(crate) command: Command,
    pub(crate) waiters: Vec<W>,
    /// Whether it was repeated even if nobody waited for it.
    pub(crate) is_kept: bool,
    /// Whether a later command about the same is under way.
    pub(crate) is_followed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Latest<W> {
    slots: BTreeMap<Subject, Slot<W>>,
}

impl<W> Default for Latest<W> {
    fn default() -> Self {
        Self { slots: BTreeMap::new() }
    }
}

impl<W> Pending<W> {
    /// Takes the place of an earlier one, unless that is known to go further.
    fn replacing(mut self, earlier: Option<Self>) -> Self {
        let Some(mut earlier) = earlier else { return self };
        if self.reach.is_some() && self.reach < earlier.reach {
            earlier.waiters.append(&mut self.waiters);
            return earlier;
        }
        self.waiters.splice(0..0, earlier.waiters);
        self
    }

    fn is_wanted(&self) -> bool {
        self.is_kept || !self.waiters.is_empty()
    }
}

impl<W> Slot<W> {
    const fn is_unsent(&self) -> bool {
        self.sent.is_none() && self.next.is_some() && self.not_before.is_none()
    }

    /// What was on its way has to be written again, unless a later one is there.
    fn take_back(&mut self) {
        let Some((_, sent)) = self.sent.take() else { return };
        self.next = Some(match self.next.take() {
            Some(next) => next.replacing(Some(sent)),
            None => sent,
        });
    }
}

impl<W> Latest<W> {
    /// Takes in a command that somebody waits for, and how far it goes, if that is known.
    pub(crate) fn add(
        &mut self,
        subject: Subject,
        command: Command,
        reach: Option<Seq>,
        (deadline, waiter): (Instant, W),
    ) {
        self.put(subject, Pending { command, reach, waiters: vec![(deadline, waiter)], is_kept: false });
    }

    /// Takes in a command that nobody waits for and that has to be carried out all the same.
    pub(crate) fn keep(&mut self, subject: Subject, command: Command) {
        self.put(subject, Pending { command, reach: None, waiters: Vec::new(), is_kept: true });
    }

    fn put(&mut self, subject: Subject, pending: Pending<W>) {
        let slot = self.slots.entry(subject).or_insert_with(|| Slot { sent: None, next: None, not_before: None });
        slot.next = Some(pending.replacing(slot.next.take()));
    }

    /// Whether there is any command about this.
    pub(crate) fn has(&self, subject: Subject) -> bool {
        self.slots.contains_key(&subject)
    }

    /// Whether something waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        self.slots.values().any(Slot::is_unsent)
    }

    /// One that waits to be written.
    pub(crate) fn first_unsent(&self) -> Option<(Subject, &Command)> {
        let (subject, slot) = self.slots.iter().find(|(_, slot)| slot.is_unsent())?;
        Some((*subject, &slot.next.as_ref()?.command))
    }

    /// It was given to the connection's writer.
    pub(crate) fn written(&mut self, subject: Subject, reference: u64) {
        if let Some(slot) = self.slots.get_mut(&subject) {
            slot.sent = slot.next.take().map(|pending| (reference, pending));
        }
    }

    /// It was carried out, or refused for good. `None` if the reference is nobody's.
    pub(crate) fn answered(&mut self, reference: u64) -> Option<Answered<W>> {
        let subject = self.subject(reference)?;
        let slot = self.slots.get_mut(&subject)?;
        let (_, Pending { command, waiters, is_kept, .. }) = slot.sent.take()?;
        let is_followed = slot.next.is_some();
        if !is_followed {
            self.slots.remove(&subject);
        }
        let waiters = waiters.into_iter().map(|(_, waiter)| waiter).collect();
        Some(Answered { command, waiters, is_kept, is_followed })
    }

    /// It was rejected. Gives it if that is final, else notes when to repeat it.
    pub(crate) fn rejected(&mut self, reference: u64, code: ErrorCode, repeat_at: Instant) -> Option<Answered<W>> {
        match code {
            ErrorCode::RateLimited | ErrorCode::Unavailable | ErrorCode::Internal => {
                let slot = self.subject(reference).and_then(|subject| self.slots.get_mut(&subject))?;
                slot.take_back();
                slot.not_before = Some(repeat_at);
                None
            }
            _ => self.answered(reference),
        }
    }

    /// The connection is gone: what was written on it is to be repeated.
    pub(crate) fn connection_lost(&mut self) {
        self.slots.values_mut().for_each(Slot::take_back);
    }

    /// Moves on with time: readies repeats that are due, drops what nobody wants any more, and gives those whose
    /// deadline has passed.
    pub(crate) fn tick(&mut self, now: Instant, is_gone: impl Fn(&W) -> bool) -> Vec<W> {
        let mut late = Vec::new();
        for slot in self.slots.values_mut() {
            slot.not_before = slot.not_before.filter(|until| *until > now);
            let sent = slot.sent.as_mut().map(|(_, pending)| pending);
            for pending in sent.into_iter().chain(slot.next.as_mut()) {
                let left = pending.waiters.extract_if(.., |(deadline, waiter)| *deadline <= now || is_gone(waiter));
                late.extend(left.map(|(_, waiter)| waiter));
            }
            slot.next = slot.next.take().filter(Pending::is_wanted);
        }
        self.slots.retain(|_, slot| slot.sent.is_some() || slot.next.is_some());
        late
    }

    /// When `tick` has something to do next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let moments = self.slots.values().flat_map(|slot| {
            let sent = slot.sent.iter().map(|(_, pending)| pending);
            let deadlines = sent.chain(&slot.next).flat_map(|pending| pending.waiters.iter().map(|(until, _)| *until));
            deadlines.chain(slot.not_before)
        });
        moments.min()
    }

    /// Gives up on all.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        let slots = std::mem::take(&mut self.slots).into_values();
        let pending = slots.flat_map(|slot| slot.sent.into_iter().map(|(_, pending)| pending).chain(slot.next));
        pending.flat_map(|pending| pending.waiters).map(|(_, waiter)| waiter).collect()
    }

    fn subject(&self, reference: u64) -> Option<Subject> {
        let is_it = |slot: &Slot<W>| slot.sent.as_ref().is_some_and(|(sent, _)| *sent == reference);
        self.slots.iter().find(|(_, slot)| is_it(slot)).map(|(subject, _)| *subject)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chat_shared::{ids::MessageId, wire::MarkRead};

    use super::*;

    struct Book {
        latest: Latest<&'static str>,
        conversation_id: ConversationId,
        now: Instant,
    }

    impl Book {
        fn new() -> Self {
            Self { latest: Latest::default(), conversation_id: ConversationId::random(), now: Instant::now() }
        }

        fn mark(&mut self, waiter: &'static str) -> MessageId {
            self.mark_up_to(None, waiter)
        }

        fn mark_up_to(&mut self, seq: Option<u64>, waiter: &'static str) -> MessageId {
            let message_id = MessageId::random();
            let conversation_id = self.conversation_id;
            let command = Command::MarkRead(MarkRead { conversation_id, message_id, seq: seq.map(Seq) });
            let deadline = self.now + Duration::from_secs(10);
            self.latest.add(Subject::Reading(conversation_id), command, seq.map(Seq), (deadline, waiter));
            message_id
        }

        /// Writes the next, if there is one; the message it marks.
        fn write(&mut self, reference: u64) -> Option<MessageId> {
            let (subject, command) = self.latest.first_unsent()?;
            let Command::MarkRead(mark) = command else { panic!("only marks were added") };
            let message_id = mark.message_id;
            self.latest.written(subject, reference);
            Some(message_id)
        }

        fn waiters(&mut self, reference: u64) -> Option<Vec<&'static str>> {
            self.latest.answered(reference).map(|answered| answered.waiters)
        }
    }

    #[test]
    fn a_later_mark_replaces_one_that_waits_and_all_who_waited_are_answered() {
        let mut book = Book::new();
        book.mark("first");
        assert!(book.write(1).is_some());
        book.mark("second");
        let third = book.mark("third");
        assert_eq!(book.write(2), None, "one of a conversation is on its way at a time");
        assert_eq!(book.waiters(1), Some(vec!["first"]));
        assert_eq!(book.write(2), Some(third));
        assert_eq!(book.waiters(2), Some(vec!["second", "third"]));
        assert_eq!(book.waiters(2), None, "an answer that comes twice is nobody's");
        assert!(!book.latest.has(Subject::Reading(book.conversation_id)));
    }

    #[test]
    fn a_later_mark_that_is_known_to_be_behind_replaces_nothing() {
        let mut book = Book::new();
        let furthest = book.mark_up_to(Some(9), "first");
        book.mark_up_to(Some(8), "second");
        assert_eq!(book.write(1), Some(furthest));
        book.mark_up_to(Some(7), "third");
        book.latest.connection_lost();
        assert_eq!(book.write(2), Some(furthest));
        assert_eq!(book.waiters(2), Some(vec!["first", "second", "third"]));
    }

    #[test]
    fn a_lost_connection_makes_a_repeat_of_the_latest() {
        let mut book = Book::new();
        let first = book.mark("first");
        book.write(1);
        book.latest.connection_lost();
        assert_eq!(book.write(2), Some(first));
        let second = book.mark("second");
        book.latest.connection_lost();
        assert_eq!(book.write(3), Some(second));
        assert_eq!(book.waiters(2), None);
        assert_eq!(book.waiters(3), Some(vec!["first", "second"]));
    }

    #[test]
    fn what_may_pass_is_repeated_and_what_cannot_is_final() {
        for code in [ErrorCode::Unavailable, ErrorCode::RateLimited, ErrorCode::Internal] {
            let mut book = Book::new();
            book.mark("waiter");
            book.write(1);
            let later = book.now + Duration::from_secs(1);
            assert_eq!(book.latest.rejected(1, code, later), None);
            assert!(!book.latest.has_unsent(), "{code:?} waits");
            assert_eq!(book.latest.next_tick(), Some(later));
            assert!(book.latest.tick(later, |_| false).is_empty());
            assert!(book.latest.has_unsent(), "{code:?} is due");
        }
        for code in [ErrorCode::NotFound, ErrorCode::Invalid, ErrorCode::Conflict] {
            let mut book = Book::new();
            book.mark("waiter");
            book.write(1);
            let answered = book.latest.rejected(1, code, book.now).map(|answered| answered.waiters);
            assert_eq!(answered, Some(vec!["waiter"]), "{code:?}");
        }
    }

    #[test]
    fn what_nobody_waits_for_is_dropped_unless_it_is_kept() {
        let mut book = Book::new();
        book.mark("late");
        let end = book.now + Duration::from_secs(10);
        assert_eq!(book.latest.next_tick(), Some(end));
        assert_eq!(book.latest.tick(end, |_| false), ["late"]);
        assert_eq!(book.write(1), None);
        let mark = MarkRead { conversation_id: book.conversation_id, message_id: MessageId::random(), seq: None };
        book.latest.keep(Subject::Presence, Command::MarkRead(mark));
        assert!(book.latest.tick(end, |_| true).is_empty());
        assert_eq!(book.write(2), Some(mark.message_id));
        book.latest.connection_lost();
        assert_eq!(book.write(3), Some(mark.message_id));
        assert!(book.latest.drain().is_empty());
    }
}
