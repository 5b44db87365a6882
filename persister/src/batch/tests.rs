//! A batch depends on the set of its entries alone, and raises what a scan of the entries would.

use std::collections::BTreeMap;

use chat_shared::{
    event::{MessageSent, Participants, ParticipantsChanged},
    ids::{ConversationId, MessageId, UserId},
    sealing::Envelope,
    wire::ConversationKind,
};
use proptest::prelude::*;

use super::*;

const NOON: Timestamp = Timestamp(1_767_225_600_000);

fn envelope() -> Envelope {
    Envelope::from_bytes([&[1, 0, 0, 0x4f, 0xe6][..], &[7; 40]].concat())
}

fn event(fact: Fact, seq: u64) -> Event {
    Event {
        conversation_id: ConversationId::random(),
        kind: ConversationKind::Group,
        seq: Seq(seq),
        sent_at: NOON,
        previous: StreamSeq::ZERO,
        participants: Participants::default(),
        fact,
    }
}

fn message(envelope: Envelope) -> Fact {
    Fact::MessageSent(MessageSent { message_id: MessageId::random(), sender_id: UserId::random(), envelope })
}

fn read(event: &Event) -> Result<Item, Unstorable> {
    Item::read(StreamSeq(9), &event.encode())
}

#[test]
fn a_message_becomes_a_row_and_a_change_of_participants_none() {
    let item = read(&event(message(envelope()), 3)).unwrap();
    assert_eq!(item.stream_seq, StreamSeq(9));
    assert_eq!(item.message.unwrap().seq, Seq(3));
    let change = Fact::ParticipantsChanged(ParticipantsChanged { added: vec![], removed: vec![] });
    let item = read(&event(change, 0)).unwrap();
    assert_eq!(item.message, None);
    let batch = Batch::of(&[item]);
    assert!(batch.messages.is_empty());
    assert_eq!(batch.last, StreamSeq(9), "it moves the checkpoint");
}

#[test]
fn what_can_never_be_stored_says_why() {
    assert!(matches!(Item::read(StreamSeq(1), b"poison"), Err(Unstorable::Unreadable(_))));
    assert!(matches!(read(&event(message(envelope()), 0)), Err(Unstorable::SeqOutOfRange(0))));
    assert!(matches!(read(&event(message(envelope()), u64::MAX)), Err(Unstorable::SeqOutOfRange(_))));
    let nonsense = Envelope::from_bytes(b"plain text".to_vec());
    assert!(matches!(read(&event(message(nonsense), 1)), Err(Unstorable::NoEnvelope)));
}

#[test]
fn nothing_makes_an_empty_batch() {
    assert_eq!(Batch::of(&[]), Batch::default());
}

/// Entries as a log holds them: few conversations, each numbered without holes, and a stream position each.
fn log() -> impl Strategy<Value = Vec<Item>> {
    proptest::collection::vec((0u8..4, 0u8..3, any::<bool>(), 0i64..200_000_000), 0..40).prop_map(|entries| {
        let mut heads: BTreeMap<u8, (u64, i64)> = BTreeMap::new();
        (1..)
            .zip(entries)
            .map(|(stream_seq, (conversation, sender, is_message, passed))| {
                let (seq, at) = heads.entry(conversation).or_insert((0, NOON.0));
                *at += passed;
                *seq += u64::from(is_message);
                Item {
                    stream_seq: StreamSeq(stream_seq),
                    sent_at: Timestamp(*at),
                    message: is_message.then(|| MessageRow {
                        conversation_id: Uuid::from_u128(conversation.into()),
                        seq: Seq(*seq),
                        sent_at: Timestamp(*at),
                        message_id: Uuid::from_u128(stream_seq.into()),
                        sender_id: Uuid::from_u128(sender.into()),
                        envelope: vec![sender],
                    }),
                }
            })
            .collect()
    })
}

type Row = (OffsetDateTime, Uuid, Uuid, Vec<u8>);

/// What the tables hold after batches have been stored one after the other.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    messages: BTreeMap<(Uuid, i64), Row>,
    heads: BTreeMap<Uuid, (i64, OffsetDateTime, Uuid)>,
    reads: BTreeMap<(Uuid, Uuid), i64>,
}

impl Tables {
    fn store(&mut self, batch: &Batch) {
        let (rows, heads, reads) = (&batch.messages, &batch.heads, &batch.reads);
        for row in 0..rows.seq.len() {
            self.messages.entry((rows.conversation_id[row], rows.seq[row])).or_insert_with(|| {
                (rows.sent_at[row], rows.message_id[row], rows.sender_id[row], rows.envelope[row].clone())
            });
        }
        for row in 0..heads.last_seq.len() {
            let head = (heads.last_seq[row], heads.last_message_at[row], heads.last_message_id[row]);
            let stored = self.heads.entry(heads.conversation_id[row]).or_insert(head);
            if stored.0 < head.0 {
                *stored = head;
            }
        }
        for row in 0..reads.read_seq.len() {
            let stored = self.reads.entry((reads.conversation_id[row], reads.user_id[row])).or_insert(0);
            *stored = reads.read_seq[row].max(*stored);
        }
    }
}

proptest! {
    #[test]
    fn order_and_repetition_make_no_difference(
        (once, mixed) in log().prop_flat_map(|log| {
            let mixed = [log.clone(), log.clone()].concat();
            (Just(log), Just(mixed).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(Batch::of(&once), Batch::of(&mixed));
    }

    #[test]
    fn rows_are_sorted_so_that_instances_do_not_lock_each_other_out(log in log()) {
        let batch = Batch::of(&log);
        let rows: Vec<_> = batch.messages.conversation_id.iter().zip(&batch.messages.seq).collect();
        prop_assert!(rows.is_sorted());
        prop_assert!(batch.heads.conversation_id.is_sorted());
        let reads: Vec<_> = batch.reads.conversation_id.iter().zip(&batch.reads.user_id).collect();
        prop_assert!(reads.is_sorted());
    }

    #[test]
    fn batches_cut_and_stored_in_any_way_end_the_same(
        (log, parts) in log().prop_flat_map(|log| {
            let parts: Vec<Vec<Item>> = log.chunks(3).chain(log.chunks(7)).map(<[Item]>::to_vec).collect();
            (Just(log), Just(parts).prop_shuffle())
        }),
    ) {
        let (mut whole, mut cut) = (Tables::default(), Tables::default());
        whole.store(&Batch::of(&log));
        for part in &parts {
            cut.store(&Batch::of(part));
        }
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _read = Item::read(StreamSeq(1), &bytes);
    }
}
