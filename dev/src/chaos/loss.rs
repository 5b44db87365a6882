//! What is lost when PostgreSQL, NATS and Redis are lost together and PostgreSQL is restored from a backup.

use std::collections::BTreeSet;

use crate::audit::{Attempt, AwayDevice, Fate, Key, Row};

/// Messages around such a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Accepted, and in no store: none of them was accepted before the backup.
    pub lost: BTreeSet<Key>,
    /// Without an answer when everything was lost. What of them was accepted is lost too, and accepted again as their
    /// senders repeat them.
    unanswered: BTreeSet<Key>,
}

impl Loss {
    /// From all attempts at the moment of the loss, those that had been accepted before the backup, and the rows that the
    /// backup has. What was accepted before the backup and has no row is not counted as lost, so that the audit finds it.
    pub fn of(attempts: &[Attempt], before: &BTreeSet<Key>, rows: &[Row]) -> Self {
        let stored: BTreeSet<Key> = rows.iter().map(Row::key).collect();
        let keys = |is_wanted: fn(Fate) -> bool| attempts.iter().filter(move |it| is_wanted(it.fate)).map(|it| it.key);
        let accepted = keys(|fate| matches!(fate, Fate::Accepted(_)));
        Self {
            lost: accepted.filter(|key| !before.contains(key) && !stored.contains(key)).collect(),
            unanswered: keys(|fate| fate == Fate::Unknown).collect(),
        }
    }

    /// Takes out of what devices were notified of what is lost, and the first notification of what was accepted again. A
    /// notification that was still to be sent is lost with the queue.
    pub fn excuse(&self, away: &mut [AwayDevice]) {
        for device in away {
            let is_of =
                |keys: &BTreeSet<Key>, it: &(_, _)| keys.iter().any(|key| (key.conversation_id, key.message_id) == *it);
            device.notified.retain(|it| !is_of(&self.lost, it));
            let mut known = BTreeSet::new();
            device.notified.retain(|it| !is_of(&self.unanswered, it) || known.insert(*it));
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_client::{
        clock::Timestamp,
        ids::{ConversationId, MessageId, UserId},
        positions::Seq,
    };

    use super::*;
    use crate::audit::Place;

    fn attempt(fate: Fate) -> Attempt {
        let (conversation_id, sender_id) = (ConversationId::random(), UserId::random());
        let key = Key { conversation_id, sender_id, message_id: MessageId::random() };
        Attempt { key, text: String::new(), fate, answers: Vec::new() }
    }

    fn accepted() -> Attempt {
        attempt(Fate::Accepted(Place { seq: Seq(1), sent_at: Timestamp(1) }))
    }

    fn row(attempt: &Attempt) -> Row {
        let Key { conversation_id, sender_id, message_id } = attempt.key;
        Row { conversation_id, seq: Seq(1), sent_at: Timestamp(1), message_id, sender_id }
    }

    #[test]
    fn only_what_was_accepted_after_the_backup_and_has_no_row_is_lost() {
        let all = [accepted(), accepted(), accepted(), accepted(), attempt(Fate::Unknown)];
        let before = [all[0].key, all[1].key].into();
        let loss = Loss::of(&all, &before, &[row(&all[0]), row(&all[2])]);
        assert_eq!(loss, Loss { lost: [all[3].key].into(), unanswered: [all[4].key].into() });
    }

    #[test]
    fn notifications_of_what_is_lost_are_excused_and_second_ones_only_of_what_was_unanswered() {
        let all = [accepted(), accepted(), attempt(Fate::Unknown)];
        let of = |number: usize| (all[number].key.conversation_id, all[number].key.message_id);
        let (user_id, notified) = (UserId::random(), [0, 1, 2, 2, 0].map(of).to_vec());
        let mut away = [AwayDevice { name: String::new(), user_id, notified, unknown: BTreeSet::new() }];
        Loss { lost: [all[1].key].into(), unanswered: [all[2].key].into() }.excuse(&mut away);
        assert_eq!(away[0].notified, [0, 2, 0].map(of));
    }
}
