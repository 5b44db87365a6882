//! What was received, what the application has taken of it, and so what may be confirmed. No I/O.
//!
//! **Invariant:** a cursor is settled only when everything up to it has been taken from `Events`, however it
//! reached the application: as the push itself, or through history after the push was dropped.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chat_shared::{
    ids::{ConversationId, Epoch},
    position::{Cursor, Seq},
    wire::{Connected, Resume},
};

use crate::{
    events::{Envelope, Event},
    limits::LEDGER_MAX,
    position::Position,
};

/// What a push brings; it is settled when the application has taken that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// This message, or a later one of the conversation.
    Message(ConversationId, Seq),
    /// The event with this number, among those that aren't messages.
    Notice(u64),
    /// Nothing that the application takes.
    Nothing,
}

/// What a cursor says about the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Succession {
    /// It follows, or is a repeat, or there is no order to keep.
    Unbroken,
    /// Pushes between the two are missing.
    Jump,
}

#[derive(Debug, Default)]
enum Load {
    /// All that the last load showed has been taken.
    #[default]
    Done,
    /// The list isn't there yet.
    Running,
    /// Each of these has messages up to this number that haven't been taken; nor, perhaps, has the notice. Until
    /// the heads are known, more can be found.
    Filling { open: HashMap<ConversationId, Seq>, notice: u64, are_heads_known: bool },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    inbox: Option<Resume>,
    ledger: VecDeque<(Cursor, Content)>,
    /// Pushes after the ledger's last entry were not noted.
    is_overflowed: bool,
    settled: Cursor,
    load: Load,
    taken: HashMap<ConversationId, Seq>,
    notices_taken: u64,
}

impl Progress {
    /// As an earlier run of the application left it.
    pub(crate) fn new(position: Option<Position>) -> Self {
        let Position { inbox, seqs, .. } = position.unwrap_or_default();
        Self {
            inbox,
            settled: inbox.map_or(Cursor::ZERO, |inbox| inbox.cursor),
            taken: seqs.into_iter().collect(),
            ..Self::default()
        }
    }

    /// From where the next connection should go on.
    pub(crate) const fn resume(&self) -> Option<Resume> {
        self.inbox
    }

    /// A connection stands.
    pub(crate) fn connected(&mut self, ready: &Connected) {
        if ready.resumed {
            return;
        }
        self.load = Load::Running;
        // Without an epoch the inbox is out of reach, and the place in it stays: what follows it comes with a later resume.
        if let Some(epoch) = ready.epoch {
            self.inbox = Some(Resume { epoch, cursor: ready.cursor });
            self.settled = ready.cursor;
            self.ledger.clear();
            self.is_overflowed = false;
        }
    }

    /// The place in the inbox can't be resumed from: the next connection reloads.
    pub(crate) fn forget_inbox(&mut self) {
        self.inbox = None;
        self.ledger.clear();
        self.is_overflowed = false;
    }

    /// The epoch that cursors belong to.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.inbox.map(|inbox| inbox.epoch)
    }

    /// The last cursor received without a gap.
    pub(crate) fn received_up_to(&self) -> Option<Cursor> {
        self.inbox.map(|inbox| inbox.cursor)
    }

    /// Whether a push with this cursor is the next one.
    pub(crate) fn succession(&self, cursor: Cursor) -> Succession {
        match self.inbox {
            Some(inbox) if cursor > inbox.cursor.next() => Succession::Jump,
            _ => Succession::Unbroken,
        }
    }

    /// A push has arrived.
    pub(crate) fn received(&mut self, cursor: Cursor, content: Content) {
        let Some(inbox) = &mut self.inbox else { return };
        if cursor <= inbox.cursor {
            return;
        }
        inbox.cursor = cursor;
        if self.is_overflowed || self.ledger.len() >= LEDGER_MAX {
            self.is_overflowed = true;
        } else {
            self.ledger.push_back((cursor, content));
        }
    }

    /// A conversation begins for this client behind `seq`.
    pub(crate) fn placed(&mut self, conversation_id: ConversationId, seq: Seq) {
        self.taken.entry(conversation_id).or_insert(seq);
    }

    /// The conversation list is being loaded again, on this connection.
    pub(crate) fn load_began(&mut self) {
        self.load = Load::Running;
    }

    /// The list is there, and shows messages up to these numbers. The application is told with this notice.
    pub(crate) fn loaded(&mut self, heads: impl IntoIterator<Item = (ConversationId, Seq)>, notice: u64) {
        let open = heads.into_iter().filter(|(conversation, head)| !self.has_taken(*conversation, *head)).collect();
        self.load = Load::Filling { open, notice, are_heads_known: false };
    }

    /// History shows messages up to this number.
    pub(crate) fn head_found(&mut self, conversation_id: ConversationId, head: Seq) {
        if !self.has_taken(conversation_id, head)
            && let Load::Filling { open, .. } = &mut self.load
        {
            let known = open.entry(conversation_id).or_insert(head);
            *known = head.max(*known);
        }
    }

    /// History has been asked about every conversation that the list showed.
    pub(crate) fn heads_known(&mut self) {
        if let Load::Filling { are_heads_known, .. } = &mut self.load {
            *are_heads_known = true;
        }
    }

    /// The application has taken an event.
    pub(crate) fn taken(&mut self, envelope: &Envelope) {
        if let Some(number) = envelope.notice {
            self.notices_taken = self.notices_taken.max(number);
        }
        let (conversation_id, seq) = match &envelope.event {
            Event::Message(message) => (message.conversation_id, message.seq),
            Event::Skipped { conversation_id, to, .. } => (*conversation_id, *to),
            _ => return,
        };
        let taken = self.taken.entry(conversation_id).or_default();
        *taken = seq.max(*taken);
    }

    /// Nothing that was received waits for the application any more.
    pub(crate) fn caught_up(&mut self) {
        if self.is_overflowed
            && let Some(inbox) = self.inbox
        {
            self.ledger.clear();
            self.settled = inbox.cursor;
            self.is_overflowed = false;
        }
    }

    /// Whether confirming waits for `caught_up`.
    pub(crate) const fn is_overflowed(&self) -> bool {
        self.is_overflowed
    }

    /// The cursor up to which everything has been taken, if there is one.
    pub(crate) fn settled(&mut self) -> Option<Cursor> {
        self.settle_load();
        let inbox = self.inbox.filter(|_| matches!(self.load, Load::Done))?;
        while let Some((cursor, content)) = self.ledger.front().copied() {
            if !self.is_taken(content) {
                return Some(self.settled);
            }
            self.settled = cursor;
            self.ledger.pop_front();
        }
        if !self.is_overflowed {
            self.settled = inbox.cursor;
        }
        Some(self.settled)
    }

    /// How far the application has come, but for what is unread.
    pub(crate) fn position(&mut self) -> Position {
        let settled = self.settled();
        let inbox = self.inbox.and_then(|inbox| Some(Resume { cursor: settled?, ..inbox }));
        let seqs = self.taken.iter().map(|(id, seq)| (*id, *seq)).collect();
        Position { inbox, seqs, reads: BTreeMap::new() }
    }

    fn settle_load(&mut self) {
        if let Load::Filling { open, notice, are_heads_known: true } = &mut self.load {
            open.retain(|conversation, head| self.taken.get(conversation).is_none_or(|taken| taken < head));
            if open.is_empty() && *notice <= self.notices_taken {
                self.load = Load::Done;
            }
        }
    }

    fn is_taken(&self, content: Content) -> bool {
        match content {
            Content::Message(conversation, seq) => self.has_taken(conversation, seq),
            Content::Notice(number) => number <= self.notices_taken,
            Content::Nothing => true,
        }
    }

    fn has_taken(&self, conversation: ConversationId, seq: Seq) -> bool {
        self.taken.get(&conversation).is_some_and(|taken| *taken >= seq)
    }
}

/// The progress, between the session that receives and the application that takes. Held for moments only.
#[derive(Debug, Default)]
pub(crate) struct SharedProgress(Mutex<Progress>);

impl SharedProgress {
    pub(crate) const fn new(progress: Progress) -> Self {
        Self(Mutex::new(progress))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        // No code under the lock can leave it half changed, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{clock::Timestamp, ids, wire::Message};

    use super::*;

    fn ready(epoch: Option<Epoch>, cursor: u64, resumed: bool) -> Connected {
        Connected {
            session_id: ids::SessionId::random(),
            epoch,
            cursor: Cursor(cursor),
            resumed,
            heartbeat_interval_ms: 15_000,
            limits: chat_shared::wire::WireLimits::default(),
        }
    }

    fn message(conversation_id: ConversationId, seq: u64) -> Envelope {
        let event = Event::Message(Message {
            conversation_id,
            message_id: ids::MessageId::random(),
            sender_id: ids::UserId::random(),
            seq: Seq(seq),
            sent_at: Timestamp(0),
            text: String::new(),
        });
        Envelope { event, notice: None }
    }

    /// A progress that is loaded and stands at cursor 10.
    fn loaded() -> (Progress, ConversationId) {
        let (mut progress, conversation) = (Progress::default(), ConversationId::random());
        progress.connected(&ready(Some(Epoch::random()), 10, false));
        progress.placed(conversation, Seq(4));
        progress.loaded([(conversation, Seq(4))], 0);
        progress.heads_known();
        (progress, conversation)
    }

    #[test]
    fn only_what_was_taken_is_settled() {
        let (mut progress, conversation) = loaded();
        assert_eq!(progress.settled(), Some(Cursor(10)));
        progress.received(Cursor(11), Content::Message(conversation, Seq(5)));
        progress.received(Cursor(12), Content::Notice(1));
        progress.received(Cursor(13), Content::Nothing);
        assert_eq!(progress.settled(), Some(Cursor(10)));
        progress.taken(&message(conversation, 5));
        assert_eq!(progress.settled(), Some(Cursor(11)));
        let notice = Event::Reloaded(Vec::new());
        progress.taken(&Envelope { event: notice, notice: Some(1) });
        assert_eq!(progress.settled(), Some(Cursor(13)));
        assert_eq!(progress.resume().map(|resume| resume.cursor), Some(Cursor(13)));
    }

    #[test]
    fn there_is_no_position_in_the_inbox_until_what_a_reload_showed_is_taken() {
        let (mut progress, conversation) = loaded();
        progress.connected(&ready(Some(Epoch::random()), 3, false));
        assert_eq!(progress.position().inbox, None, "the list isn't there");
        progress.loaded([(conversation, Seq(5))], 1);
        progress.head_found(conversation, Seq(6));
        progress.heads_known();
        progress.taken(&message(conversation, 5));
        assert_eq!(progress.position().inbox, None, "message 6 would be missed");
        progress.taken(&Envelope { event: Event::Reloaded(Vec::new()), notice: Some(1) });
        assert_eq!(progress.position().inbox, None, "it still would be");
        progress.taken(&message(conversation, 6));
        assert_eq!(progress.position().inbox.map(|inbox| inbox.cursor), Some(Cursor(3)));
    }

    #[test]
    fn a_full_ledger_stops_confirming_until_the_application_has_caught_up() {
        let (mut progress, conversation) = loaded();
        for number in 1..=LEDGER_MAX as u64 + 5 {
            progress.received(Cursor(10 + number), Content::Message(conversation, Seq(4 + number)));
        }
        progress.taken(&message(conversation, 4 + LEDGER_MAX as u64 + 4));
        assert_eq!(progress.settled(), Some(Cursor(10 + LEDGER_MAX as u64)));
        assert!(progress.is_overflowed());
        progress.taken(&message(conversation, 4 + LEDGER_MAX as u64 + 5));
        progress.caught_up();
        assert_eq!(progress.settled(), Some(Cursor(10 + LEDGER_MAX as u64 + 5)));
    }

    #[test]
    fn a_position_survives_a_restart() {
        let (mut progress, conversation) = loaded();
        progress.received(Cursor(11), Content::Message(conversation, Seq(5)));
        progress.taken(&message(conversation, 5));
        let position = progress.position();
        let json = serde_json::to_string(&position).unwrap();
        let again = Progress::new(Some(serde_json::from_str(&json).unwrap())).position();
        assert_eq!(again, position);
    }

    #[test]
    fn a_jump_of_cursors_is_seen_and_a_repeat_is_harmless() {
        let (mut progress, conversation) = loaded();
        assert_eq!(progress.succession(Cursor(11)), Succession::Unbroken);
        assert_eq!(progress.succession(Cursor(12)), Succession::Jump);
        progress.received(Cursor(11), Content::Message(conversation, Seq(5)));
        progress.received(Cursor(11), Content::Message(conversation, Seq(5)));
        assert_eq!(progress.succession(Cursor(9)), Succession::Unbroken);
        progress.taken(&message(conversation, 5));
        assert_eq!(progress.settled(), Some(Cursor(11)));
    }

    #[test]
    fn without_an_inbox_there_is_nothing_to_confirm_or_resume() {
        let (mut progress, conversation) = (Progress::default(), ConversationId::random());
        progress.connected(&ready(None, 0, false));
        progress.placed(conversation, Seq(4));
        progress.loaded([(conversation, Seq(4))], 0);
        progress.heads_known();
        progress.received(Cursor(1), Content::Nothing);
        assert_eq!((progress.settled(), progress.resume()), (None, None));
        assert_eq!(progress.position().seqs.get(&conversation), Some(&Seq(4)));
    }

    #[test]
    fn the_place_in_the_inbox_outlives_a_connection_without_one() {
        let (mut progress, conversation) = loaded();
        progress.received(Cursor(11), Content::Message(conversation, Seq(5)));
        let place = progress.resume();
        progress.connected(&ready(None, 0, false));
        assert_eq!((progress.resume(), progress.position().inbox), (place, None), "it reloads");
        progress.loaded([(conversation, Seq(6))], 0);
        progress.heads_known();
        for seq in [5, 6] {
            progress.taken(&message(conversation, seq));
        }
        assert_eq!(progress.position().inbox, place);
    }
}
