//! The numbers of messages that came lately, so that of two marks the further one is known. No I/O.

use std::collections::{HashMap, VecDeque};

use chat_shared::{
    ids::{ConversationId, MessageId},
    position::Seq,
};

use crate::limits::NUMBERS_MAX;

type Key = (ConversationId, MessageId);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    seqs: HashMap<Key, Seq>,
    /// In the order they came.
    keys: VecDeque<Key>,
}

impl Numbers {
    /// A message has come. An id that two senders chose means the earlier message, as it does for the gateway.
    pub(crate) fn note(&mut self, conversation_id: ConversationId, message_id: MessageId, seq: Seq) {
        let key = (conversation_id, message_id);
        if let Some(known) = self.seqs.get_mut(&key) {
            *known = seq.min(*known);
            return;
        }
        self.seqs.insert(key, seq);
        self.keys.push_back(key);
        if self.keys.len() > NUMBERS_MAX
            && let Some(oldest) = self.keys.pop_front()
        {
            self.seqs.remove(&oldest);
        }
    }

    /// A message's number, if it came lately.
    pub(crate) fn of(&self, conversation_id: ConversationId, message_id: MessageId) -> Option<Seq> {
        self.seqs.get(&(conversation_id, message_id)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known() {
        let (mut numbers, conversation_id) = (Numbers::default(), ConversationId::random());
        let first = MessageId::random();
        numbers.note(conversation_id, first, Seq(1));
        for seq in 2..=NUMBERS_MAX as u64 {
            numbers.note(conversation_id, MessageId::random(), Seq(seq));
        }
        numbers.note(conversation_id, first, Seq(7));
        assert_eq!(numbers.of(conversation_id, first), Some(Seq(1)), "the earlier message of this id");
        assert_eq!(numbers.of(ConversationId::random(), first), None);
        numbers.note(conversation_id, first, Seq(1));
        numbers.note(conversation_id, MessageId::random(), Seq(0));
        assert_eq!(numbers.of(conversation_id, first), None);
        assert_eq!((numbers.seqs.len(), numbers.keys.len()), (NUMBERS_MAX, NUMBERS_MAX));
    }
}
