//! A batch depends on the set of its entries alone, and raises what a scan of the entries would.

use std::collections::BTreeMap;

use chat_shared::{
    event::{BlocksChanged, DeliveredAdvanced, Event, MessageSent, Participants, ParticipantsChanged},
    ids::{ConversationId, MessageId, UserId},
    sealing::{AudienceTag, Envelope},
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

fn read_mark(read_seq: u64) -> Fact {
    Fact::ReadAdvanced(ReadAdvanced {
        user_id: UserId::random(),
        message_id: MessageId::random(),
        read_seq: Seq(read_seq),
    })
}

fn message(envelope: Envelope) -> Fact {
    Fact::MessageSent(MessageSent {
        message_id: MessageId::random(),
        sender_id: UserId::random(),
        envelope,
        seen_seq: Seq::ZERO,
        audience: AudienceTag::default(),
    })
}

fn read(event: &Event) -> Result<Item, Unstorable> {
    Item::read(StreamSeq(9), &log::subject_of("chat", event), &event.encode())
}

#[test]
fn a_message_becomes_a_row_and_a_change_of_participants_none() {
    let item = read(&event(message(envelope()), 3)).unwrap();
    assert_eq!(item.stream_seq, StreamSeq(9));
    assert!(matches!(item.row, Some(Row::Message(row)) if row.seq == Seq(3)));
    let change = Fact::ParticipantsChanged(ParticipantsChanged::default());
    let item = read(&event(change, 0)).unwrap();
    assert_eq!(item.row, None);
    let batch = Batch::of(&[item]);
    assert!(batch.messages.is_empty());
    assert_eq!(batch.last, StreamSeq(9), "it moves the checkpoint");
}

#[test]
fn a_read_mark_raises_its_reader_and_no_conversation_r8_5() {
    let item = read(&event(read_mark(3), 5)).unwrap();
    assert!(matches!(item.row, Some(Row::Read(row)) if row.read_seq == Seq(3)));
    let batch = Batch::of(&[item]);
    assert_eq!(batch.reads.read_seq, [3]);
    assert!(batch.messages.is_empty() && batch.heads.last_seq.is_empty() && batch.days.is_empty());
    assert_eq!(batch.last, StreamSeq(9), "it moves the checkpoint");
}

#[test]
fn a_delivery_should_it_ever_come_moves_only_the_checkpoint() {
    let delivered = DeliveredAdvanced { user_id: UserId::random(), delivered_seq: Seq(3) };
    let item = read(&event(Fact::DeliveredAdvanced(delivered), 5)).unwrap();
    assert_eq!(item.row, None);
}

#[test]
fn a_fact_of_a_later_version_moves_only_the_checkpoint() {
    let blocked = event(Fact::BlocksChanged(BlocksChanged { user_id: UserId::random(), lsn: None }), 5);
    let subject = log::subject_of("chat", &blocked);
    let (bytes, name) = (blocked.encode(), b"BlocksChanged");
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let later = [&bytes[..at], b"PinnedMessage", &bytes[at + name.len()..]].concat();
    let item = Item::read(StreamSeq(9), &subject, &later).unwrap();
    assert_eq!((item.row.clone(), Batch::of(&[item]).last), (None, StreamSeq(9)));
}

#[test]
fn what_can_never_be_stored_says_why() {
    let unreadable = Item::read(StreamSeq(1), "chat.1.fact", b"poison");
    assert!(matches!(unreadable, Err(Unstorable::NotAnEntry(NotAnEntry::Unreadable(_)))));
    let forged = Item::read(StreamSeq(1), "chat.gateway.fact", &event(message(envelope()), 1).encode());
    assert!(matches!(forged, Err(Unstorable::NotAnEntry(NotAnEntry::Misplaced))));
    assert!(matches!(read(&event(message(envelope()), 0)), Err(Unstorable::SeqOutOfRange(0))));
    assert!(matches!(read(&event(message(envelope()), u64::MAX)), Err(Unstorable::SeqOutOfRange(_))));
    assert!(matches!(read(&event(read_mark(0), 5)), Err(Unstorable::SeqOutOfRange(0))));
    assert!(matches!(read(&event(read_mark(u64::MAX), 5)), Err(Unstorable::SeqOutOfRange(_))));
    let nonsense = Envelope::from_bytes(b"plain text".to_vec());
    assert!(matches!(read(&event(message(nonsense), 1)), Err(Unstorable::NoEnvelope)));
}

#[test]
fn nothing_makes_an_empty_batch() {
    assert_eq!(Batch::of(&[]), Batch::default());
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Message,
    /// Of the message of this number.
    Read(u8),
    Nothing,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::Message), 2 => (1u8..12).prop_map(Kind::Read), 1 => Just(Kind::Nothing)]
}

/// Entries as a log holds them: few conversations, each numbered without holes, and a stream position each.
fn log() -> impl Strategy<Value = Vec<Item>> {
    proptest::collection::vec((0u8..4, 0u8..3, kind(), 0i64..200_000_000), 0..40).prop_map(|entries| {
        let mut heads: BTreeMap<u8, (u64, i64)> = BTreeMap::new();
        (1..)
            .zip(entries)
            .map(|(stream_seq, (conversation, user, kind, passed))| {
                let (seq, at) = heads.entry(conversation).or_insert((0, NOON.0));
                *at += passed;
                *seq += u64::from(matches!(kind, Kind::Message));
                let conversation_id = Uuid::from_u128(conversation.into());
                let user_id = Uuid::from_u128(user.into());
                let row = match kind {
                    Kind::Message => Some(Row::Message(MessageRow {
                        conversation_id,
                        seq: Seq(*seq),
                        sent_at: Timestamp(*at),
                        message_id: message_id(*seq),
                        sender_id: user_id,
                        envelope: vec![user],
                        seen_seq: Seq(*seq - 1),
                        author: [Author::User, Author::Customer, Author::Staff][usize::from(user)],
                    })),
                    Kind::Read(seq) => {
                        let seq = u64::from(seq);
                        let message_id = message_id(seq);
                        let message_id = Some(message_id);
                        let (own, since_seq) = (None, Seq::ZERO);
                        let read_seq = Seq(seq);
                        Some(Row::Read(ReadRow { conversation_id, user_id, read_seq, message_id, own, since_seq }))
                    }
                    Kind::Nothing => None,
                };
                Item { stream_seq: StreamSeq(stream_seq), sent_at: Timestamp(*at), row }
            })
            .collect()
    })
}

/// The same message of a conversation, whoever speaks of it.
fn message_id(seq: u64) -> Uuid {
    Uuid::from_u128(u128::from(seq) << 64)
}

type Stored = (OffsetDateTime, Uuid, Uuid, Vec<u8>);

/// What the tables hold after batches have been stored one after the other.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    messages: BTreeMap<(Uuid, i64), Stored>,
    heads: BTreeMap<Uuid, (i64, OffsetDateTime, Uuid)>,
    reads: BTreeMap<(Uuid, Uuid), (i64, Option<Uuid>)>,
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
            let read = (reads.read_seq[row], reads.last_read_message_id[row]);
            let stored = self.reads.entry((reads.conversation_id[row], reads.user_id[row])).or_insert(read);
            if stored.0 < read.0 {
                *stored = read;
            }
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
        prop_assert!(reads.is_sorted_by(|before, after| before < after), "one for each participant");
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
        let _read = Item::read(StreamSeq(1), "chat.1.fact", &bytes);
    }
}
