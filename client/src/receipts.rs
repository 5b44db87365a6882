//! How far each participant has got, so that receipts only go forward. No I/O.

use std::collections::HashMap;

use chat_shared::{
    ids::{ConversationId, UserId},
    position::Seq,
    wire::{Conversation, Participant, Receipt, ReceiptKind},
};

#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    read: Seq,
    delivered: Seq,
}

/// See the module. Bounded by the user's conversations and their participants.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    conversations: HashMap<ConversationId, HashMap<UserId, Reached>>,
}

impl Receipts {
    /// The conversation list shows how far they are.
    pub(crate) fn loaded(&mut self, conversations: &[Conversation]) {
        for conversation in conversations {
            for progress in &conversation.progress {
                let reached = self.reached(conversation.conversation_id, progress.user_id);
                reached.read = reached.read.max(progress.read_seq);
                reached.delivered = reached.delivered.max(progress.delivered_seq.unwrap_or_default());
            }
        }
    }

    /// Takes in a receipt. False if it is behind what is known: what was read was delivered too.
    pub(crate) fn advance(&mut self, receipt: &Receipt) -> bool {
        let reached = self.reached(receipt.conversation_id, receipt.user_id);
        let (known, at_least) = match receipt.kind {
            ReceiptKind::Read => (&mut reached.read, Seq::ZERO),
            ReceiptKind::Delivered => (&mut reached.delivered, reached.read),
            ReceiptKind::Unknown => return false,
        };
        let is_news = receipt.seq > at_least.max(*known);
        *known = receipt.seq.max(*known);
        is_news
    }

    /// The user has read up to here by sending: a message gives it, and no receipt follows.
    pub(crate) fn seen(&mut self, conversation_id: ConversationId, user_id: UserId, seq: Seq) {
        let reached = self.reached(conversation_id, user_id);
        reached.read = reached.read.max(seq);
    }

    /// Only these take part now.
    pub(crate) fn keep(&mut self, conversation_id: ConversationId, participants: &[Participant]) {
        if let Some(reached) = self.conversations.get_mut(&conversation_id) {
            reached.retain(|user_id, _| participants.iter().any(|participant| participant.user_id == *user_id));
        }
    }

    /// The user takes part no more.
    pub(crate) fn forget(&mut self, conversation_id: ConversationId) {
        self.conversations.remove(&conversation_id);
    }

    fn reached(&mut self, conversation_id: ConversationId, user_id: UserId) -> &mut Reached {
        self.conversations.entry(conversation_id).or_default().entry(user_id).or_default()
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::clock::Timestamp;

    use super::*;

    #[test]
    fn r8_5_receipts_only_go_forward_and_reading_includes_delivery() {
        let (mut receipts, conversation_id, user_id) =
            (Receipts::default(), ConversationId::random(), UserId::random());
        let receipt = |kind, seq| {
            let (message_id, unread, at) = (None, None, Timestamp(0));
            Receipt { conversation_id, user_id, kind, seq: Seq(seq), message_id, unread, at }
        };
        let mut advance = |kind, seq| receipts.advance(&receipt(kind, seq));
        assert!(advance(ReceiptKind::Delivered, 3));
        assert!(advance(ReceiptKind::Read, 2), "each kind has its own place");
        assert!(!advance(ReceiptKind::Delivered, 3));
        assert!(!advance(ReceiptKind::Read, 1));
        assert!(advance(ReceiptKind::Read, 7));
        assert!(!advance(ReceiptKind::Delivered, 6), "what was read was delivered");
        assert!(advance(ReceiptKind::Delivered, 8));
        receipts.seen(conversation_id, user_id, Seq(9));
        assert!(!receipts.advance(&receipt(ReceiptKind::Read, 9)));
    }
}
