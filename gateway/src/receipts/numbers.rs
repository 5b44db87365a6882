//! Which number a message has: remembered of what users of this gateway were shown lately, else looked for.

use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    position::Seq,
};
use moka::{policy::EvictionPolicy, sync::Cache};

use super::Receipts;
use crate::{history, refusal::Refusal};

/// Messages whose numbers are remembered; the least used goes first and is looked for when it is asked for.
const NUMBERS_MAX: u64 = 100_000;

/// The numbers of messages that were shown lately.
pub(super) struct Numbers(Cache<(ConversationId, MessageId), Seq>);

impl Default for Numbers {
    fn default() -> Self {
        // What was shown last is marked next, however seldom it is asked for.
        Self(Cache::builder().max_capacity(NUMBERS_MAX).eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Numbers {
    /// Two senders may choose the same id; then it means the earlier message, so that nobody is taken to have read what
    /// another sent to that end.
    pub(super) fn remember(&self, conversation_id: ConversationId, message_id: MessageId, seq: Seq) {
        let key = (conversation_id, message_id);
        if self.0.get(&key).is_none_or(|known| seq < known) {
            self.0.insert(key, seq);
        }
    }

    fn get(&self, conversation_id: ConversationId, message_id: MessageId) -> Option<Seq> {
        self.0.get(&(conversation_id, message_id))
    }
}

impl Receipts {
    /// The number that a client names beside a message's id, if the conversation has a message with it. Nothing is looked
    /// for: the id is compared with what this gateway knows, since others are shown it. The number isn't remembered: it is
    /// the client's word only.
    pub(super) async fn checked_number(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        message_id: MessageId,
        seq: Seq,
    ) -> Result<Seq, Refusal> {
        self.sender.check_number(user_id, conversation_id, seq).await?;
        match self.numbers.get(conversation_id, message_id) {
            Some(known) if known != seq => Err(Refusal::no_such_message()),
            _ => Ok(seq),
        }
    }

    /// The number of a message of a conversation in which the user takes part.
    pub(super) async fn number(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        message_id: MessageId,
    ) -> Result<Seq, Refusal> {
        if let Some(seq) = self.numbers.get(conversation_id, message_id) {
            return Ok(seq);
        }
        let _turn = self.searches.turn(user_id).await?;
        let newest = self.tail.log().newest(conversation_id).await?.map(|(_, event)| event);
        let found =
            history::number_of(&self.database, &self.tail, user_id, newest, conversation_id, message_id).await?;
        let seq = found.ok_or_else(Refusal::no_such_message)?;
        self.numbers.remember(conversation_id, message_id, seq);
        Ok(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_two_senders_chose_means_the_earlier_message() {
        let (numbers, conversation_id, message_id) =
            (Numbers::default(), ConversationId::random(), MessageId::random());
        for seq in [7, 9, 8] {
            numbers.remember(conversation_id, message_id, Seq(seq));
        }
        assert_eq!(numbers.get(conversation_id, message_id), Some(Seq(7)));
        assert_eq!(numbers.get(ConversationId::random(), message_id), None);
    }
}
