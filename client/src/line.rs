//! One conversation's messages on their way to the application: what was handed over, what is held, what is
//! missing. Knows nothing of other conversations.

use std::collections::BTreeMap;

use chat_shared::{
    position::Seq,
    wire::{HistoryPage, Message},
};

use crate::limits::PAGE_ROWS;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Everything up to here was handed over or lies before the beginning; `None` while that isn't known.
    pub(crate) handed: Option<Seq>,
    /// The largest number known to exist.
    pub(crate) head: Seq,
    /// The version of the participants.
    pub(crate) version: u64,
    /// The last message before the change that made the conversation known, if such a change did.
    pub(crate) joined_at: Option<Seq>,
    /// Whether history must be asked for the head, because the list's may be behind.
    pub(crate) is_unchecked: bool,
    /// Fetches in a row that did not help.
    pub(crate) stalls: u32,
    pub(crate) is_ready: bool,
    pub(crate) is_wanting: bool,
    held: BTreeMap<Seq, Message>,
    /// Numbers that history has passed over: from the key to the value. A page of history brings few.
    gone: BTreeMap<Seq, Seq>,
    first_seen: Option<Seq>,
}

impl Line {
    /// One whose messages up to `handed` are done with.
    pub(crate) fn placed_at(handed: Seq) -> Self {
        Self { handed: Some(handed), head: handed, ..Self::default() }
    }

    /// Remembers the smallest number that was pushed before the line was placed.
    pub(crate) fn note_seen(&mut self, seq: Seq) {
        if self.handed.is_none() {
            self.first_seen = Some(self.first_seen.map_or(seq, |first| first.min(seq)));
        }
    }

    /// The number before the first that was pushed, or the head if none was.
    pub(crate) fn before_first_seen(&self) -> Seq {
        self.first_seen.map_or(self.head, |first| Seq(first.0.saturating_sub(1)))
    }

    /// What is known of where a line begins that isn't in the list.
    pub(crate) fn unlisted_place(&self) -> (Option<Seq>, Seq) {
        (self.joined_at, self.before_first_seen())
    }

    /// Keeps a message for its turn. Gives how many more are held: none if it is a repeat.
    pub(crate) fn hold(&mut self, message: Message) -> usize {
        if self.handed.is_some_and(|handed| message.seq <= handed) {
            return 0;
        }
        usize::from(self.held.insert(message.seq, message).is_none())
    }

    /// Drops the latest held until `held_max` are left. Gives how many went.
    pub(crate) fn shrink_to(&mut self, held_max: usize) -> usize {
        let surplus = self.held.len().saturating_sub(held_max);
        for _ in 0..surplus {
            self.held.pop_last();
        }
        surplus
    }

    /// Drops what is held and needs no handing over any more. Gives how many went.
    pub(crate) fn drop_handed(&mut self) -> usize {
        let Some(handed) = self.handed else { return 0 };
        let before = self.held.len();
        self.held = self.held.split_off(&handed.next());
        self.gone.retain(|_, last| *last > handed);
        before - self.held.len()
    }

    /// Takes in a page of history after a number. A number that the page passes over will never come; nor will
    /// any up to the floor, or up to the head if the page is the last, nor any of those that a page without messages was
    /// asked for. Gives how many more messages are held.
    pub(crate) fn hold_page(&mut self, after: Seq, page: HistoryPage) -> usize {
        let mut held = 0;
        let mut last = after.max(page.floor_seq);
        let is_empty = page.messages.is_empty();
        self.head = self.head.max(page.last_seq);
        self.pass_over(after.next(), page.floor_seq);
        for message in page.messages {
            let seq = message.seq;
            self.head = self.head.max(seq);
            self.pass_over(last.next(), Seq(seq.0.saturating_sub(1)));
            last = last.max(seq);
            held += self.hold(message);
        }
        if !page.has_more {
            self.pass_over(last.next(), page.last_seq);
        } else if is_empty {
            self.pass_over(last.next(), page.last_seq.min(Seq(last.0.saturating_add(PAGE_ROWS as u64))));
        }
        held
    }

    fn pass_over(&mut self, from: Seq, to: Seq) {
        if from <= to && self.handed.is_some_and(|handed| handed < to) {
            self.gone.insert(from, to);
        }
    }

    /// If the next number is one that history has passed over: the last of those.
    pub(crate) fn gone_up_to(&self) -> Option<Seq> {
        let next = self.handed?.next();
        let (_, last) = self.gone.range(..=next).next_back()?;
        // What was pushed is handed over, whatever history says.
        Some((*last).min(self.before_first_held())).filter(|last| *last >= next)
    }

    /// Whether the next message is held.
    pub(crate) fn has_next(&self) -> bool {
        self.handed.is_some_and(|handed| self.held.contains_key(&handed.next()))
    }

    /// The next message, which counts as handed over from now on.
    pub(crate) fn take_next(&mut self) -> Option<Message> {
        let next = self.handed?.next();
        let message = self.held.remove(&next)?;
        self.handed = Some(next);
        self.gone.retain(|_, last| *last > next);
        Some(message)
    }

    /// If the next message isn't held, and exists or may exist: the number behind which it must be fetched.
    pub(crate) fn missing_after(&self) -> Option<Seq> {
        self.handed.filter(|handed| (*handed < self.head || self.is_unchecked) && !self.has_next())
    }

    /// The number before the first that is held, or the head if none is.
    pub(crate) fn before_first_held(&self) -> Seq {
        self.held.keys().next().map_or(self.head, |first| Seq(first.0.saturating_sub(1)))
    }
}
