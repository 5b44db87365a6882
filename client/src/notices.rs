//! Events other than messages, on their way to the application. No I/O.

use std::collections::VecDeque;

use chat_shared::ids::ConversationId;

use crate::{
    events::{Envelope, Event},
    limits::NOTICES_MAX,
};

/// Whether the queue could take what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is in.
    Taken,
    /// A change was lost: the conversation list must be loaded again.
    Full,
}

/// A bounded queue of notices.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    queue: VecDeque<Envelope>,
    last_number: u64,
}

impl Notices {
    /// The number of the last notice that was taken in.
    pub(crate) const fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The number that the next notice will have.
    pub(crate) const fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Whether `pop` would give something.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another one can be taken without giving one up.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < NOTICES_MAX
    }

    /// The next one to hand over.
    pub(crate) fn pop(&mut self) -> Option<Envelope> {
        self.queue.pop_front()
    }

    /// Takes in an event. A receipt replaces those of the same kind that wait. When full, what is replaced by the event
    /// goes first, then the oldest state; a change of a conversation or a receipt that finds no room is lost, and the caller
    /// told.
    pub(crate) fn push(&mut self, event: Event) -> Room {
        if matches!(event, Event::Receipt(_)) {
            self.queue.retain(|envelope| !is_replaced_by(&envelope.event, &event));
        }
        if self.queue.len() >= NOTICES_MAX && !self.make_room(&event) {
            return Room::Full;
        }
        self.last_number += 1;
        self.queue.push_back(Envelope { event, notice: Some(self.last_number) });
        Room::Taken
    }

    fn make_room(&mut self, newcomer: &Event) -> bool {
        let replaced = self.position(|event| is_replaced_by(event, newcomer));
        let goes = replaced.or_else(|| self.position(|event| matches!(event, Event::State(_))));
        if let Some(index) = goes {
            self.queue.remove(index);
        }
        // Skips and lists can't be made good by anything else, and are bounded by the conversations.
        goes.is_some() || !matches!(newcomer, Event::Conversation(_) | Event::Receipt(_))
    }

    fn position(&self, is_wanted: impl Fn(&Event) -> bool) -> Option<usize> {
        self.queue.iter().position(|envelope| is_wanted(&envelope.event))
    }
}

fn is_replaced_by(event: &Event, newcomer: &Event) -> bool {
    match (event, newcomer) {
        (Event::State(_), Event::State(_)) | (Event::Reloaded(_), Event::Reloaded(_)) => true,
        (Event::Conversation(old), Event::Conversation(new)) => id(old) == id(new),
        (Event::Receipt(old), Event::Receipt(new)) => {
            (old.conversation_id, old.user_id, old.kind) == (new.conversation_id, new.user_id, new.kind)
        }
        _ => false,
    }
}

const fn id(change: &chat_shared::wire::ChangedConversation) -> ConversationId {
    change.conversation_id
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        position::Seq,
        wire::{ChangedConversation, ConversationKind, ConversationName, Receipt, ReceiptKind},
    };

    use super::*;
    use crate::state::{ConnectionState, StopReason};

    fn change(conversation_id: ConversationId) -> Event {
        Event::Conversation(ChangedConversation {
            conversation_id,
            kind: ConversationKind::Group,
            version: 1,
            name: ConversationName::default(),
            profiles: Vec::new(),
            business: None,
            case: None,
            is_blocked: false,
            participants: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            returned: Vec::new(),
            last_seq: Seq(0),
            changed_at: Timestamp(0),
        })
    }

    fn stopped() -> Event {
        Event::State(ConnectionState::Stopped { reason: StopReason::Closed })
    }

    #[test]
    fn a_full_queue_keeps_changes_and_gives_up_old_states() {
        let mut notices = Notices::default();
        notices.push(stopped());
        for _ in 1..NOTICES_MAX {
            assert_eq!(notices.push(change(ConversationId::random())), Room::Taken);
        }
        assert_eq!(notices.push(change(ConversationId::random())), Room::Taken, "the state made room");
        assert_eq!(notices.push(change(ConversationId::random())), Room::Full);
        assert_eq!(notices.queue.len(), NOTICES_MAX);
        assert_eq!(notices.pop().and_then(|envelope| envelope.notice), Some(2));
    }

    #[test]
    fn a_later_change_replaces_an_earlier_one_when_there_is_no_room() {
        let (mut notices, conversation) = (Notices::default(), ConversationId::random());
        for _ in 0..NOTICES_MAX {
            notices.push(change(conversation));
        }
        assert_eq!(notices.push(change(conversation)), Room::Taken);
        assert_eq!(notices.queue.len(), NOTICES_MAX);
    }

    #[test]
    fn r8_5_receipts_that_wait_are_merged() {
        let (mut notices, conversation_id, user_id) =
            (Notices::default(), ConversationId::random(), chat_shared::ids::UserId::random());
        let receipt = |kind, seq| {
            let (message_id, unread, at) = (None, None, Timestamp(0));
            Event::Receipt(Receipt { conversation_id, user_id, kind, seq: Seq(seq), message_id, unread, at })
        };
        for seq in 1..=9 {
            notices.push(receipt(ReceiptKind::Delivered, seq));
            notices.push(receipt(ReceiptKind::Read, seq));
        }
        let left: Vec<_> =
            std::iter::from_fn(|| notices.pop()).map(|envelope| (envelope.event, envelope.notice)).collect();
        assert_eq!(left, [(receipt(ReceiptKind::Delivered, 9), Some(17)), (receipt(ReceiptKind::Read, 9), Some(18))]);
        for _ in 0..NOTICES_MAX {
            notices.push(change(ConversationId::random()));
        }
        assert_eq!(notices.push(receipt(ReceiptKind::Read, 10)), Room::Full);
    }
}
