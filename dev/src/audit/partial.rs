//! The same checks on a part of the evidence, for those who ask about one thing only.

use std::collections::BTreeMap;

use anyhow::Result;
use chat_client::{ids::UserId, wire::Message};

use super::{
    checks,
    evidence::{DeviceRecord, Evidence, Room, Row},
    finding::{Check, Finding, ensure_held},
    ledger::{Attempt, Fate, Kept, Place},
};

/// Whether numbers are 1, 2, 3 … and time never runs backwards along them.
///
/// # Errors
/// If not, with what was found.
pub fn one_order(kept: &[Kept]) -> Result<()> {
    let rows = kept.iter().map(|kept| Row {
        conversation_id: kept.key.conversation_id,
        seq: kept.seq,
        sent_at: kept.sent_at,
        message_id: kept.key.message_id,
        sender_id: kept.key.sender_id,
    });
    let evidence = Evidence { rows: rows.collect(), ..of(kept, UserId::random()) };
    ensure(&evidence, &[Check::Holes, Check::TimeBackwards])
}

/// Whether somebody was shown exactly these, each once and in order.
///
/// # Errors
/// If not, with what was found.
pub fn shown_exactly(kept: &[Kept], messages: &[Message]) -> Result<()> {
    let reader = UserId::random();
    let device = DeviceRecord {
        name: "them".to_owned(),
        user_id: reader,
        messages: messages.to_vec(),
        skipped: 0,
        versions: BTreeMap::new(),
        reads: BTreeMap::new(),
        reloaded_at: None,
    };
    let evidence = Evidence { devices: vec![device], ..of(kept, reader) };
    ensure(&evidence, &[Check::NotShown, Check::ShownTwice, Check::OutOfOrder, Check::Phantoms, Check::Moved])
}

fn of(kept: &[Kept], reader: UserId) -> Evidence {
    let mut ids: Vec<_> = kept.iter().map(|kept| kept.key.conversation_id).collect();
    ids.dedup();
    let attempts = kept.iter().map(|kept| {
        let place = Place { seq: kept.seq, sent_at: kept.sent_at };
        Attempt { key: kept.key, text: kept.text.clone(), fate: Fate::Accepted(place), answers: vec![place] }
    });
    Evidence {
        rooms: ids.into_iter().map(|id| Room { id, members: vec![reader] }).collect(),
        attempts: attempts.collect(),
        ..Evidence::default()
    }
}

fn ensure(evidence: &Evidence, wanted: &[Check]) -> Result<()> {
    let findings: Vec<Finding> =
        checks::audit(evidence).into_iter().filter(|finding| wanted.contains(&finding.check)).collect();
    ensure_held(&findings)
}

#[cfg(test)]
mod tests {
    use chat_client::{
        clock::Timestamp,
        ids::{ConversationId, MessageId},
        positions::Seq,
    };

    use super::*;
    use crate::audit::Key;

    fn conversation(numbers: &[u64]) -> Vec<Kept> {
        let (conversation_id, sender_id) = (ConversationId::random(), UserId::random());
        let kept = |seq: &u64| Kept {
            key: Key { conversation_id, sender_id, message_id: MessageId::random() },
            seq: Seq(*seq),
            sent_at: Timestamp(1000),
            text: "hello".to_owned(),
        };
        numbers.iter().map(kept).collect()
    }

    fn as_shown(kept: &Kept) -> Message {
        Message {
            conversation_id: kept.key.conversation_id,
            message_id: kept.key.message_id,
            sender_id: kept.key.sender_id,
            seq: kept.seq,
            sent_at: kept.sent_at,
            text: kept.text.clone(),
        }
    }

    #[test]
    fn holes_repeats_and_time_running_backwards_are_found() {
        assert!(one_order(&conversation(&[1, 2, 3])).is_ok());
        assert!(one_order(&conversation(&[1, 3])).is_err());
        assert!(one_order(&conversation(&[1, 2, 2])).is_err());
        let mut late = conversation(&[1, 2]);
        late[0].sent_at = Timestamp(1001);
        assert!(one_order(&late).is_err());
    }

    #[test]
    fn what_is_missing_shown_twice_or_changed_is_found() {
        let kept = conversation(&[1, 2, 3]);
        let shown: Vec<_> = kept.iter().map(as_shown).collect();
        assert!(shown_exactly(&kept, &shown).is_ok());
        assert!(shown_exactly(&kept, &shown[..2]).is_err());
        assert!(shown_exactly(&kept[..2], &shown).is_err());
        let twice: Vec<_> = [0, 1, 1, 2].map(|index| shown[index].clone()).into();
        assert!(shown_exactly(&kept, &twice).is_err());
        let mut changed = shown;
        changed[1].text = "other".to_owned();
        assert!(shown_exactly(&kept, &changed).is_err());
    }
}
