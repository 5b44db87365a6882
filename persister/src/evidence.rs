//! Decides which refused entries may be set aside. Pure, without any I/O.
//!
//! **Invariant:** an entry is set aside only if another entry of its kind was stored after its first refusal. Otherwise
//! the fault may be the schema's, and every message would become a dead letter.

use std::collections::HashMap;

use chat_shared::position::StreamSeq;

use crate::{
    batch::{Item, Row},
    store::Stored,
};

/// First refusals that are remembered: as many as entries can be unsettled. If it is full all are forgotten, which only
/// makes entries wait longer.
const FIRST_REFUSALS_MAX: usize = 20_000;

/// What this process has stored, and when entries were first refused.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Rows inserted or raised so far.
    stored: Stored,
    /// `stored` at the first refusal of each entry that is neither stored nor set aside yet.
    first_refusals: HashMap<StreamSeq, Stored>,
    /// Batches in a row of which nothing was stored and something has to wait.
    fruitless: u32,
}

impl Evidence {
    /// Notes that a transaction with `items` was committed.
    pub fn note_stored(&mut self, items: &[Item], stored: Stored) {
        self.stored.messages += stored.messages;
        self.stored.reads += stored.reads;
        self.fruitless = 0;
        if !self.first_refusals.is_empty() {
            self.forget(items.iter().map(|item| item.stream_seq));
        }
    }

    /// Notes that a transaction with `items` was refused.
    pub fn note_refused(&mut self, items: &[Item]) {
        if self.first_refusals.len() + items.len() > FIRST_REFUSALS_MAX {
            self.first_refusals.clear();
        }
        for item in items {
            self.first_refusals.entry(item.stream_seq).or_insert(self.stored);
        }
    }

    /// Whether something of the kind of `item` was stored after its first refusal.
    pub fn is_against(&self, item: &Item) -> bool {
        let Some(then) = self.first_refusals.get(&item.stream_seq) else { return false };
        match item.row {
            Some(Row::Message(_)) => self.stored.messages > then.messages,
            Some(Row::Read(_) | Row::Joined(_)) => self.stored.reads > then.reads,
            // It stores nothing that could be at fault.
            None => false,
        }
    }

    /// Forgets entries that were set aside.
    pub fn forget(&mut self, entries: impl IntoIterator<Item = StreamSeq>) {
        for stream_seq in entries {
            self.first_refusals.remove(&stream_seq);
        }
    }

    /// Notes that something has to wait; how often in a row since anything was stored.
    pub fn note_fruitless(&mut self) -> u32 {
        self.fruitless = self.fruitless.saturating_add(1);
        self.fruitless
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::clock::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::batch::ReadRow;

    const MESSAGES: Stored = Stored { messages: 1, reads: 0 };
    const READS: Stored = Stored { messages: 0, reads: 1 };

    fn mark(at: u64) -> Item {
        let row = Row::Read(ReadRow::for_test(Uuid::nil(), Uuid::nil(), 1, Uuid::nil()));
        Item { stream_seq: StreamSeq(at), sent_at: Timestamp(0), row: Some(row) }
    }

    #[test]
    fn only_what_is_stored_later_counts() {
        let mut evidence = Evidence::default();
        evidence.note_stored(&[mark(1)], READS);
        evidence.note_refused(&[mark(2)]);
        assert!(!evidence.is_against(&mark(2)));
        evidence.note_stored(&[mark(3)], READS);
        assert!(evidence.is_against(&mark(2)));
        evidence.note_refused(&[mark(2)]);
        assert!(evidence.is_against(&mark(2)), "the first refusal counts");
    }

    #[test]
    fn only_entries_of_the_same_kind_count() {
        let mut evidence = Evidence::default();
        let change = Item { row: None, ..mark(3) };
        evidence.note_refused(&[mark(2), change.clone()]);
        evidence.note_stored(&[], MESSAGES);
        assert!(!evidence.is_against(&mark(2)));
        evidence.note_stored(&[], READS);
        assert!(evidence.is_against(&mark(2)) && !evidence.is_against(&change));
    }

    #[test]
    fn repeats_and_other_entries_prove_nothing() {
        let mut evidence = Evidence::default();
        evidence.note_refused(&[mark(2)]);
        evidence.note_stored(&[mark(1)], Stored::default());
        assert!(!evidence.is_against(&mark(2)) && !evidence.is_against(&mark(7)));
    }

    #[test]
    fn first_refusals_are_bounded_and_forgotten() {
        let mut evidence = Evidence::default();
        let items: Vec<_> = (0..100).map(mark).collect();
        for _ in 0..3 {
            evidence.note_refused(&items);
        }
        evidence.note_stored(&items, READS);
        assert!(evidence.first_refusals.is_empty());
        for first in 0..300 {
            evidence.note_refused(&(first * 100..(first + 1) * 100).map(mark).collect::<Vec<_>>());
        }
        assert!(evidence.first_refusals.len() <= FIRST_REFUSALS_MAX);
    }

    #[test]
    fn fruitless_batches_are_counted_until_one_is_stored() {
        let mut evidence = Evidence::default();
        assert_eq!((evidence.note_fruitless(), evidence.note_fruitless()), (1, 2));
        evidence.note_stored(&[], Stored::default());
        assert_eq!(evidence.note_fruitless(), 1);
    }
}
