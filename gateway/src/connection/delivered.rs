//! Messages of direct conversations that were pushed and that the client has yet to confirm: once it does, their
//! senders are told that they were delivered.

use std::{collections::VecDeque, sync::Arc};

use chat_shared::position::Cursor;
use parking_lot::Mutex;

use crate::delivery::DirectMessage;

/// Messages that are remembered. One more takes the place of an older one of the same conversation, which a later one
/// speaks for; if there is none, of the oldest, whose sender then learns of it by what is delivered or read next.
const REMEMBERED_MAX: usize = 64;

/// What was pushed on a connection, in the order of cursors.
#[derive(Default)]
pub(super) struct Unconfirmed(Mutex<VecDeque<(Cursor, Arc<DirectMessage>)>>);

impl Unconfirmed {
    /// Remembers a message that was pushed.
    pub(super) fn add(&self, cursor: Cursor, message: &Arc<DirectMessage>) {
        let mut pushed = self.0.lock();
        pushed.push_back((cursor, Arc::clone(message)));
        if pushed.len() > REMEMBERED_MAX {
            let is_spoken_for = |(place, (_, earlier)): (usize, &(Cursor, Arc<DirectMessage>))| {
                let mut later = pushed.iter().skip(place + 1);
                later.any(|(_, later)| later.conversation_id == earlier.conversation_id)
            };
            let least = pushed.iter().enumerate().position(|(place, entry)| is_spoken_for((place, entry)));
            pushed.remove(least.unwrap_or(0));
        }
    }

    /// Takes those up to `cursor`.
    pub(super) fn take(&self, cursor: Cursor) -> Vec<Arc<DirectMessage>> {
        let mut pushed = self.0.lock();
        let confirmed = pushed.partition_point(|(pushed_at, _)| *pushed_at <= cursor);
        let taken = pushed.drain(..confirmed).map(|(_, message)| message).collect();
        if pushed.is_empty() {
            // An idle connection holds no list.
            pushed.shrink_to(0);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        event::Participants,
        ids::{ConversationId, UserId},
        position::Seq,
    };

    use super::*;

    fn message(conversation_id: ConversationId, seq: u64) -> Arc<DirectMessage> {
        let participants = Participants::default();
        Arc::new(DirectMessage {
            conversation_id,
            participants,
            sender_id: UserId::random(),
            seq: Seq(seq),
            sent_at: chat_shared::clock::Timestamp(0),
        })
    }

    fn numbers(taken: &[Arc<DirectMessage>]) -> Vec<u64> {
        taken.iter().map(|message| message.seq.0).collect()
    }

    #[test]
    fn what_is_confirmed_is_taken_once() {
        let (pushed, id) = (Unconfirmed::default(), ConversationId::random());
        for seq in 1..=3 {
            pushed.add(Cursor(seq + 10), &message(id, seq));
        }
        assert!(pushed.take(Cursor(10)).is_empty());
        assert_eq!(numbers(&pushed.take(Cursor(12))), [1, 2]);
        assert!(pushed.take(Cursor(12)).is_empty());
        assert_eq!(numbers(&pushed.take(Cursor(99))), [3]);
    }

    #[test]
    fn a_client_that_confirms_nothing_costs_a_bounded_list_and_no_conversation_its_last_message() {
        let (pushed, quiet, busy) = (Unconfirmed::default(), ConversationId::random(), ConversationId::random());
        pushed.add(Cursor(1), &message(quiet, 1));
        for cursor in 2..=1000 {
            pushed.add(Cursor(cursor), &message(busy, cursor));
        }
        let taken = pushed.take(Cursor(1000));
        assert_eq!((taken.len(), taken[0].conversation_id), (REMEMBERED_MAX, quiet));
        assert_eq!(taken[REMEMBERED_MAX - 1].seq, Seq(1000));
        for cursor in 1..=65 {
            pushed.add(Cursor(cursor), &message(ConversationId::random(), cursor));
        }
        assert_eq!(numbers(&pushed.take(Cursor(99)))[0], 2, "the oldest went");
    }
}
