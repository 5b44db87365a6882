//! The number of unread messages, by the definition: the last number less the one read, or aged out, up to, and less the
//! user's own messages between. Nothing is counted up or down, so nothing drifts. No I/O.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chat_shared::{ids::ConversationId, position::Seq, wire::Conversation};

use crate::position::ReadMark;

/// What is unread in a conversation, and in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) conversation_id: ConversationId,
    pub(crate) unread: u64,
    pub(crate) total: u64,
}

#[derive(Debug, Default)]
struct Entry {
    mark: ReadMark,
    /// Whether all three numbers are known, and not only what was pushed.
    is_known: bool,
    /// Whether something was pushed since the list's last load began.
    is_recent: bool,
    told: u64,
    is_queued: bool,
}

impl Entry {
    fn unread(&self) -> u64 {
        if self.is_known { self.mark.unread() } else { 0 }
    }
}

/// See the module. Bounded by the user's conversations.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    entries: HashMap<ConversationId, Entry>,
    /// It may go round: a gateway that lies about numbers spoils them, and nothing else.
    total: u64,
    /// Conversations whose number may be another than was told. Each at most once.
    changed: VecDeque<ConversationId>,
    is_loading: bool,
}

impl Unread {
    /// As an earlier run left it.
    pub(crate) fn new(marks: BTreeMap<ConversationId, ReadMark>) -> Self {
        let entry = |mark: ReadMark| Entry { told: mark.unread(), mark, is_known: true, ..Entry::default() };
        let entries: HashMap<_, _> = marks.into_iter().map(|(id, mark)| (id, entry(mark))).collect();
        Self { total: entries.values().map(Entry::unread).fold(0, u64::wrapping_add), entries, ..Self::default() }
    }

    /// What the next run begins with.
    pub(crate) fn marks(&self) -> BTreeMap<ConversationId, ReadMark> {
        let known = self.entries.iter().filter(|(_, entry)| entry.is_known);
        known.map(|(id, entry)| (*id, entry.mark.clone())).collect()
    }

    /// Of a conversation; `None` while it isn't known.
    pub(crate) fn of(&self, conversation_id: ConversationId) -> Option<u64> {
        self.entries.get(&conversation_id).filter(|entry| entry.is_known).map(Entry::unread)
    }

    /// Of all conversations that are known.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The conversation list is about to be loaded.
    pub(crate) fn load_began(&mut self) {
        self.is_loading = true;
        self.entries.values_mut().for_each(|entry| entry.is_recent = false);
    }

    /// The list is there, and has been told to the application. It may be a moment behind what was pushed.
    pub(crate) fn loaded(&mut self, conversations: &[Conversation]) {
        self.is_loading = false;
        let listed: HashMap<ConversationId, &Conversation> =
            conversations.iter().map(|conversation| (conversation.conversation_id, conversation)).collect();
        let gone = self.entries.iter().filter(|(id, entry)| !entry.is_recent && !listed.contains_key(id));
        let gone: Vec<ConversationId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
        for conversation in conversations {
            if let Some(entry) = self.entries.get_mut(&conversation.conversation_id) {
                entry.told = conversation.unread;
            }
            self.shown(conversation);
        }
    }

    /// A conversation as REST shows it.
    pub(crate) fn shown(&mut self, conversation: &Conversation) {
        let Conversation { conversation_id, last_seq, floor_seq, read_seq, own_runs, unread, .. } = conversation;
        let is_new = !self.entries.contains_key(conversation_id);
        self.change(*conversation_id, |entry| {
            if is_new {
                entry.told = *unread;
            }
            entry.is_known = true;
            let (last_seq, floor_seq, read_seq) = (*last_seq, *floor_seq, *read_seq);
            entry.mark.raise(&ReadMark { last_seq, floor_seq, read_seq, own_runs: own_runs.clone() });
        });
    }

    /// A message was pushed or fetched. `seen` is given for one of the user's own: the last message that its device had
    /// shown, zero if that is not known.
    pub(crate) fn message(&mut self, conversation_id: ConversationId, seq: Seq, seen: Option<Seq>) {
        self.change(conversation_id, |entry| {
            entry.is_recent = true;
            // Whoever hears of the first message knows of all.
            entry.is_known |= seq == Seq(1);
            entry.mark.last_seq = entry.mark.last_seq.max(seq);
            if let Some(seen) = seen {
                entry.mark.read(seen.min(seq));
                entry.mark.wrote(seq);
            }
        });
    }

    /// The user has read so far, on some device.
    pub(crate) fn read(&mut self, conversation_id: ConversationId, seq: Seq) {
        self.change(conversation_id, |entry| {
            entry.is_recent = true;
            entry.mark.last_seq = entry.mark.last_seq.max(seq);
            entry.mark.read(seq);
        });
    }

    /// A page of history shows the last number, and what was aged out.
    pub(crate) fn page(&mut self, conversation_id: ConversationId, last_seq: Seq, floor_seq: Seq) {
        self.change(conversation_id, |entry| {
            entry.mark.last_seq = entry.mark.last_seq.max(last_seq);
            entry.mark.floor_seq = entry.mark.floor_seq.max(floor_seq);
        });
    }

    /// The participants changed after this message. A user who is `new` among them has read all messages up to it.
    pub(crate) fn participants_changed(&mut self, conversation_id: ConversationId, last_seq: Seq, is_new: bool) {
        self.change(conversation_id, |entry| {
            entry.is_recent = true;
            entry.is_known |= is_new || last_seq == Seq::ZERO;
            entry.mark.last_seq = entry.mark.last_seq.max(last_seq);
            if is_new {
                entry.mark.read(last_seq);
            }
        });
    }

    /// The user takes part no more.
    pub(crate) fn forget(&mut self, conversation_id: ConversationId) {
        self.change(conversation_id, |entry| *entry = Entry { told: entry.told, ..Entry::default() });
        if self.entries.get(&conversation_id).is_some_and(|entry| entry.told == 0) {
            self.entries.remove(&conversation_id);
        }
    }

    /// A conversation that can't be told of without asking for it.
    pub(crate) fn first_unknown(&self) -> Option<ConversationId> {
        let unknown = self.entries.iter().find(|(_, entry)| !entry.is_known && entry.mark.last_seq > Seq::ZERO);
        unknown.filter(|_| !self.is_loading).map(|(id, _)| *id)
    }

    /// Whether `pop` may give something.
    pub(crate) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the application hasn't been told.
    pub(crate) fn pop(&mut self) -> Option<News> {
        while let Some(conversation_id) = self.changed.pop_front() {
            let Some(entry) = self.entries.get_mut(&conversation_id) else { continue };
            entry.is_queued = false;
            let unread = entry.unread();
            let is_news = entry.told != unread;
            entry.told = unread;
            if !entry.is_known && entry.mark.last_seq == Seq::ZERO {
                self.entries.remove(&conversation_id);
            }
            if is_news {
                return Some(News { conversation_id, unread, total: self.total });
            }
        }
        None
    }

    fn change(&mut self, conversation_id: ConversationId, change: impl FnOnce(&mut Entry)) {
        let entry = self.entries.entry(conversation_id).or_default();
        let before = entry.unread();
        change(entry);
        let after = entry.unread();
        self.total = self.total.wrapping_sub(before).wrapping_add(after);
        if entry.told != after && !std::mem::replace(&mut entry.is_queued, true) {
            self.changed.push_back(conversation_id);
        }
    }
}

/// What is unread, between the session that hears and the application that asks. Held for moments only.
#[derive(Debug, Default)]
pub(crate) struct SharedUnread(Mutex<Unread>);

impl SharedUnread {
    pub(crate) const fn new(unread: Unread) -> Self {
        Self(Mutex::new(unread))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Unread> {
        // No code under the lock can leave it half changed, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        runs::Runs,
        wire::{ConversationKind, ConversationName},
    };
    use proptest::prelude::*;

    use super::*;

    fn listed(conversation_id: ConversationId, last: u64, read: u64, floor: u64) -> Conversation {
        Conversation {
            conversation_id,
            kind: ConversationKind::Direct,
            version: 1,
            name: ConversationName::default(),
            profiles: Vec::new(),
            business: None,
            case: None,
            is_blocked: false,
            participants: Vec::new(),
            own_runs: Runs::default(),
            last_seq: Seq(last),
            floor_seq: Seq(floor),
            read_seq: Seq(read),
            last_read_message_id: None,
            unread: last.saturating_sub(read.max(floor)),
            progress: Vec::new(),
            mute: None,
            last_message: None,
            created_at: Timestamp(0),
            last_activity_at: Timestamp(0),
        }
    }

    fn load(unread: &mut Unread, conversations: &[Conversation]) {
        unread.load_began();
        unread.loaded(conversations);
    }

    #[test]
    fn r5_1_messages_of_others_count_until_they_are_read_and_ones_own_do_not_count() {
        let (mut unread, id, other) = (Unread::default(), ConversationId::random(), ConversationId::random());
        load(&mut unread, &[listed(id, 10, 7, 0), listed(other, 4, 0, 2)]);
        assert_eq!((unread.of(id), unread.of(other), unread.total()), (Some(3), Some(2), 5));
        assert_eq!(unread.pop(), None, "the list has said so");
        unread.message(id, Seq(11), None);
        unread.message(id, Seq(12), None);
        let news = |conversation_id, unread, total| Some(News { conversation_id, unread, total });
        assert_eq!(unread.pop(), news(id, 5, 7), "told once for both");
        unread.read(id, Seq(11));
        assert_eq!(unread.pop(), news(id, 1, 3));
        unread.read(id, Seq(9));
        assert_eq!(unread.pop(), None, "only forward");
        unread.message(id, Seq(13), Some(Seq::ZERO));
        assert_eq!((unread.pop(), unread.of(id)), (None, Some(1)), "sending is not reading");
        unread.message(id, Seq(14), Some(Seq(13)));
        assert_eq!(unread.pop(), news(id, 0, 2), "the device had shown all");
        unread.message(id, Seq(15), None);
        unread.message(id, Seq(16), Some(Seq::ZERO));
        assert_eq!(unread.pop(), news(id, 1, 3));
        unread.read(id, Seq(15));
        assert_eq!(unread.pop(), news(id, 0, 2), "the own message after it is not unread");
        unread.page(other, Seq(4), Seq(4));
        assert_eq!(unread.pop(), news(other, 0, 0), "what was aged out can't be read any more");
    }

    #[test]
    fn a_list_that_is_behind_takes_nothing_back() {
        let (mut unread, id) = (Unread::default(), ConversationId::random());
        load(&mut unread, &[listed(id, 1, 1, 0)]);
        unread.load_began();
        unread.message(id, Seq(2), None);
        unread.message(id, Seq(3), None);
        unread.read(id, Seq(2));
        assert_eq!(unread.pop().map(|news| news.unread), Some(1));
        unread.loaded(&[listed(id, 1, 1, 0)]);
        assert_eq!(unread.pop().map(|news| news.unread), Some(1), "the list said 0");
    }

    #[test]
    fn a_conversation_that_was_left_counts_no_more() {
        let (mut unread, id, other) = (Unread::default(), ConversationId::random(), ConversationId::random());
        load(&mut unread, &[listed(id, 5, 0, 0), listed(other, 2, 0, 0)]);
        unread.forget(id);
        assert_eq!(unread.pop(), Some(News { conversation_id: id, unread: 0, total: 2 }));
        assert_eq!(unread.of(id), None);
        load(&mut unread, &[]);
        assert_eq!(unread.pop(), Some(News { conversation_id: other, unread: 0, total: 0 }));
        assert!(unread.entries.is_empty());
    }

    #[test]
    fn a_new_participant_has_nothing_unread_and_a_returning_one_asks_for_the_mark() {
        let (mut unread, new, old) = (Unread::default(), ConversationId::random(), ConversationId::random());
        unread.participants_changed(new, Seq(7), true);
        unread.participants_changed(old, Seq(7), false);
        assert_eq!((unread.of(new), unread.of(old), unread.first_unknown()), (Some(0), None, Some(old)));
        // The conversation as it is stored is behind.
        unread.shown(&listed(new, 5, 5, 0));
        unread.message(new, Seq(8), None);
        assert_eq!(unread.of(new), Some(1));
        unread.shown(&listed(old, 5, 3, 0));
        assert_eq!(unread.of(old), Some(4));
    }

    #[test]
    fn a_conversation_that_is_met_halfway_is_asked_for_first() {
        let (mut unread, id, new) = (Unread::default(), ConversationId::random(), ConversationId::random());
        unread.participants_changed(new, Seq::ZERO, false);
        unread.message(new, Seq(1), None);
        assert_eq!((unread.pop().map(|news| news.unread), unread.first_unknown()), (Some(1), None));
        unread.message(id, Seq(9), None);
        assert_eq!((unread.pop(), unread.of(id), unread.first_unknown()), (None, None, Some(id)));
        unread.shown(&listed(id, 8, 2, 5));
        assert_eq!((unread.of(id), unread.first_unknown()), (Some(4), None));
        assert_eq!(unread.pop().map(|news| (news.unread, news.total)), Some((4, 5)));
        let marks = unread.marks();
        let again = Unread::new(marks.clone());
        assert_eq!((again.marks(), again.total()), (marks, 5));
    }

    proptest! {
        #[test]
        fn r5_2_the_total_is_the_sum_whatever_happens(steps in proptest::collection::vec((0..3_usize, 0..7_u8, 0..20_u64), 0..60)) {
            let ids = [ConversationId::random(), ConversationId::random(), ConversationId::random()];
            let mut unread = Unread::default();
            let mut told = HashMap::new();
            for (which, step, seq) in steps {
                let id = ids[which];
                match step {
                    0 => unread.message(id, Seq(seq), None),
                    1 => unread.message(id, Seq(seq), Some(Seq(seq / 2))),
                    2 => unread.read(id, Seq(seq)),
                    3 => unread.page(id, Seq(seq), Seq(seq / 2)),
                    4 => unread.forget(id),
                    5 => unread.shown(&listed(id, seq, seq / 2, seq / 3)),
                    _ => while let Some(news) = unread.pop() {
                        prop_assert_eq!(news.total, unread.total());
                        told.insert(news.conversation_id, news.unread);
                    },
                }
                prop_assert_eq!(unread.total(), ids.iter().filter_map(|id| unread.of(*id)).sum::<u64>());
            }
        }
    }
}
