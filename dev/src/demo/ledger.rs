//! What was accepted: the truth that everything else is compared with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::{Accepted, Message},
};
use tokio::{sync::watch, time::timeout};

/// How long so many messages may take to be accepted.
const ACCEPTED_DEADLINE: Duration = Duration::from_mins(1);

/// A message that a gateway has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub conversation_id: ConversationId,
    pub message_id: MessageId,
    pub sender_id: UserId,
    pub seq: Seq,
    pub sent_at: Timestamp,
    pub text: String,
}

impl Kept {
    /// What was sent, with what was answered.
    pub fn new(accepted: &Accepted, sender_id: UserId, text: String) -> Self {
        Self {
            conversation_id: accepted.conversation_id,
            message_id: accepted.message_id,
            sender_id,
            seq: accepted.seq,
            sent_at: accepted.sent_at,
            text,
        }
    }

    /// Whether somebody was shown exactly this.
    fn is_shown_as(&self, message: &Message) -> bool {
        let Message { conversation_id, message_id, sender_id, seq, sent_at, text } = message;
        (*conversation_id, *message_id, *sender_id, *seq, *sent_at)
            == (self.conversation_id, self.message_id, self.sender_id, self.seq, self.sent_at)
            && *text == self.text
    }
}

/// Everything that was accepted, in the order of the answers.
#[derive(Debug, Default)]
pub struct Ledger {
    kept: watch::Sender<Vec<Kept>>,
}

impl Ledger {
    /// Adds one.
    pub fn add(&self, kept: Kept) {
        self.kept.send_modify(|all| all.push(kept));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Those of a conversation, by number.
    pub fn of(&self, conversation_id: ConversationId) -> Vec<Kept> {
        let mut kept: Vec<_> =
            self.kept.borrow().iter().filter(|kept| kept.conversation_id == conversation_id).cloned().collect();
        kept.sort_by_key(|kept| kept.seq);
        kept
    }

    /// Waits until so many are there.
    pub async fn until_count(&self, count: usize) -> Result<()> {
        let mut kept = self.kept.subscribe();
        timeout(ACCEPTED_DEADLINE, kept.wait_for(|all| all.len() >= count))
            .await
            .with_context(|| format!("{count} messages were not accepted within {ACCEPTED_DEADLINE:?}"))??;
        Ok(())
    }
}

/// Whether numbers are 1, 2, 3 … and time never runs backwards along them. `kept` is sorted by number.
pub fn is_one_order(kept: &[Kept]) -> Result<()> {
    for (index, message) in kept.iter().enumerate() {
        let expected = index as u64 + 1;
        ensure!(message.seq.0 == expected, "number {} stands where {expected} should", message.seq.0);
        let earlier = index.checked_sub(1).and_then(|before| kept.get(before));
        ensure!(
            earlier.is_none_or(|earlier| earlier.sent_at <= message.sent_at),
            "time runs backwards at number {expected}"
        );
    }
    Ok(())
}

/// Whether somebody was shown exactly these, each once and in order.
pub fn is_shown(kept: &[Kept], shown: &[Message]) -> Result<()> {
    for (index, pair) in kept.iter().zip(shown).enumerate() {
        let (kept, shown) = pair;
        ensure!(
            kept.is_shown_as(shown),
            "at place {} number {} was shown instead of {}",
            index + 1,
            shown.seq.0,
            kept.seq.0
        );
    }
    ensure!(kept.len() == shown.len(), "{} messages were accepted and {} shown", kept.len(), shown.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(numbers: &[u64]) -> Vec<Kept> {
        let (conversation_id, sender_id) = (ConversationId::random(), UserId::random());
        let kept = |seq: &u64| Kept {
            conversation_id,
            message_id: MessageId::random(),
            sender_id,
            seq: Seq(*seq),
            sent_at: Timestamp(1000),
            text: "hello".to_owned(),
        };
        numbers.iter().map(kept).collect()
    }

    fn as_shown(kept: &Kept) -> Message {
        Message {
            conversation_id: kept.conversation_id,
            message_id: kept.message_id,
            sender_id: kept.sender_id,
            seq: kept.seq,
            sent_at: kept.sent_at,
            text: kept.text.clone(),
        }
    }

    #[test]
    fn holes_repeats_and_time_running_backwards_are_found() {
        assert!(is_one_order(&conversation(&[1, 2, 3])).is_ok());
        assert!(is_one_order(&conversation(&[1, 3])).is_err());
        assert!(is_one_order(&conversation(&[1, 2, 2])).is_err());
        let mut late = conversation(&[1, 2]);
        late[0].sent_at = Timestamp(1001);
        assert!(is_one_order(&late).is_err());
    }

    #[test]
    fn what_is_missing_shown_twice_or_changed_is_found() {
        let kept = conversation(&[1, 2, 3]);
        let shown: Vec<_> = kept.iter().map(as_shown).collect();
        assert!(is_shown(&kept, &shown).is_ok());
        assert!(is_shown(&kept, &shown[..2]).is_err());
        assert!(is_shown(&kept[..2], &shown).is_err());
        let twice: Vec<_> = [0, 1, 1, 2].map(|index| shown[index].clone()).into();
        assert!(is_shown(&kept, &twice).is_err());
        let mut changed = shown;
        changed[1].text = "other".to_owned();
        assert!(is_shown(&kept, &changed).is_err());
    }
}
