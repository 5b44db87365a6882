//! Log entries become columns: what one transaction inserts and raises. Without any I/O.
//!
//! **Invariant:** a batch depends on the set of its entries alone, not on their order or repetition,
//! and its rows are sorted, so that two instances that store at once lock rows in the same order.

use std::collections::{BTreeMap, BTreeSet};

use chat_shared::{
    clock::{Day, Timestamp},
    event::{Fact, Participants, ParticipantsChanged, ReadAdvanced},
    ids::UserId,
    log::{self, NotAnEntry},
    position::{Seq, StreamSeq},
    wire::{Participant, Role},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::metrics as names;

/// A log entry that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// What it stores; none for a fact that only moves the checkpoint.
    pub row: Option<Row>,
}

/// What an entry stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A message.
    Message(MessageRow),
    /// How far a participant has read.
    Read(ReadRow),
    /// Users that joined.
    Joined(Vec<ReadRow>),
}

/// A row of `messages`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageRow {
    conversation_id: Uuid,
    seq: Seq,
    sent_at: Timestamp,
    message_id: Uuid,
    sender_id: Uuid,
    envelope: Vec<u8>,
    seen_seq: Seq,
    author: Author,
}

/// Which side of a business conversation a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Author {
    /// It is no business conversation.
    User,
    Customer,
    Staff,
}

impl Author {
    fn of(participants: &Participants, sender_id: UserId) -> Self {
        match (&participants.business, participants.find(sender_id)) {
            (None, _) => Self::User,
            (Some(_), Some(Participant { role: Role::Customer, .. })) => Self::Customer,
            (Some(_), _) => Self::Staff,
        }
    }
}

/// How far a participant has read, and after which message it takes part; zero where an entry does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRow {
    conversation_id: Uuid,
    user_id: Uuid,
    read_seq: Seq,
    /// The message that was read last; none for a user that joined.
    message_id: Option<Uuid>,
    /// A message of the user's own beyond `read_seq`, which is not unread.
    own: Option<(Seq, Uuid)>,
    since_seq: Seq,
}

/// Why an entry can't even be tried.
#[derive(Debug, thiserror::Error)]
pub enum Unstorable {
    /// It is no event, or one that stands where none of its kind belongs.
    #[error(transparent)]
    NotAnEntry(#[from] NotAnEntry),
    /// Numbers begin at one and have to fit the column, of a message and of a read mark.
    #[error("the number {0} is none that a message can have")]
    SeqOutOfRange(u64),
    /// The content is not sealed in any way known here, so nobody could read it.
    #[error("the content is no envelope")]
    NoEnvelope,
}

impl Item {
    /// Reads the entry at `stream_seq`, which was appended to `subject`.
    pub fn read(stream_seq: StreamSeq, subject: &str, payload: &[u8]) -> Result<Self, Unstorable> {
        let event = log::read(subject, payload)?;
        let sent_at = event.sent_at;
        let conversation_id = event.conversation_id.as_uuid();
        let row = match event.fact {
            Fact::Unknown => {
                metrics::counter!(names::UNKNOWN_FACTS_TOTAL).increment(1);
                None
            }
            // The first participants take part from the first message on, however late the log has their conversation.
            Fact::ParticipantsChanged(change) if event.participants.version > 1 && event.seq > Seq::ZERO => {
                Some(Row::Joined(joined(conversation_id, storable(event.seq)?, &change)))
            }
            Fact::ParticipantsChanged(_) | Fact::BlocksChanged(_) | Fact::DeliveredAdvanced(_) => None,
            Fact::ReadAdvanced(ReadAdvanced { user_id, message_id, read_seq }) => Some(Row::Read(ReadRow {
                conversation_id,
                user_id: user_id.as_uuid(),
                read_seq: storable(read_seq)?,
                message_id: Some(message_id.as_uuid()),
                own: None,
                since_seq: Seq::ZERO,
            })),
            Fact::MessageSent(sent) => {
                let seq = storable(event.seq)?;
                if sent.envelope.day().is_none() {
                    return Err(Unstorable::NoEnvelope);
                }
                Some(Row::Message(MessageRow {
                    conversation_id,
                    seq,
                    sent_at,
                    message_id: sent.message_id.as_uuid(),
                    sender_id: sent.sender_id.as_uuid(),
                    envelope: sent.envelope.as_bytes().to_vec(),
                    seen_seq: sent.seen_seq,
                    author: Author::of(&event.participants, sent.sender_id),
                }))
            }
        };
        Ok(Self { stream_seq, sent_at, row })
    }
}

/// Users who join have read all messages so far, but for those who took part before.
fn joined(conversation_id: Uuid, since_seq: Seq, change: &ParticipantsChanged) -> Vec<ReadRow> {
    let row = |user_id: &UserId| ReadRow {
        conversation_id,
        user_id: user_id.as_uuid(),
        read_seq: if change.returned.contains(user_id) { Seq::ZERO } else { since_seq },
        message_id: None,
        own: None,
        since_seq,
    };
    change.added.iter().map(row).collect()
}

fn storable(seq: Seq) -> Result<Seq, Unstorable> {
    if (1..=i64::MAX.unsigned_abs()).contains(&seq.0) { Ok(seq) } else { Err(Unstorable::SeqOutOfRange(seq.0)) }
}

#[cfg(test)]
impl ReadRow {
    pub const fn for_test(conversation_id: Uuid, user_id: Uuid, read_seq: u64, message_id: Uuid) -> Self {
        let (message_id, own, since_seq) = (Some(message_id), None, Seq::ZERO);
        Self { conversation_id, user_id, read_seq: Seq(read_seq), message_id, own, since_seq }
    }
}

impl MessageRow {
    /// A user who sends has read the messages that the device had shown, and the own one where no other is between.
    fn read(&self) -> ReadRow {
        let Self { conversation_id, sender_id: user_id, seq, message_id, seen_seq, .. } = *self;
        let since_seq = Seq::ZERO;
        if seen_seq.next() >= seq {
            ReadRow { conversation_id, user_id, read_seq: seq, message_id: Some(message_id), own: None, since_seq }
        } else {
            let own = Some((seq, message_id));
            ReadRow { conversation_id, user_id, read_seq: seen_seq, message_id: None, own, since_seq }
        }
    }
}

/// What one transaction stores.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows of `messages`.
    pub messages: MessageColumns,
    /// The last message of each conversation in the batch.
    pub heads: HeadColumns,
    /// How far participants have read: to where they marked, to what they had seen when they sent, or to where they joined.
    pub reads: ReadColumns,
    /// The last position in the log.
    pub last: StreamSeq,
    /// When the newest entry was accepted.
    pub newest: Timestamp,
    /// The days whose partitions it needs.
    pub days: BTreeSet<Day>,
}

/// Columns of `messages`, sorted by conversation and number.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MessageColumns {
    pub conversation_id: Vec<Uuid>,
    pub seq: Vec<i64>,
    pub sent_at: Vec<OffsetDateTime>,
    pub message_id: Vec<Uuid>,
    pub sender_id: Vec<Uuid>,
    pub envelope: Vec<Vec<u8>>,
}

/// Columns of `conversations`, sorted by conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HeadColumns {
    pub conversation_id: Vec<Uuid>,
    pub last_seq: Vec<i64>,
    pub last_message_at: Vec<OffsetDateTime>,
    pub last_message_id: Vec<Uuid>,
    /// Of a business conversation: the last message of the customer; else 0.
    pub customer_seq: Vec<i64>,
    /// Of a business conversation: the last message of the staff; else 0.
    pub agent_seq: Vec<i64>,
}

/// Columns of `participants`, sorted by conversation and user.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadColumns {
    pub conversation_id: Vec<Uuid>,
    pub user_id: Vec<Uuid>,
    pub read_seq: Vec<i64>,
    pub last_read_message_id: Vec<Option<Uuid>>,
    /// Own messages beyond it, in PostgreSQL's notation of multiranges.
    pub own_runs: Vec<String>,
    /// The last of them.
    pub own_message_id: Vec<Option<Uuid>>,
    pub since_seq: Vec<i64>,
}

impl Batch {
    /// Gathers `items`.
    pub fn of(items: &[Item]) -> Self {
        let (mut rows, mut reads) = (Vec::new(), Vec::new());
        for item in items {
            match &item.row {
                Some(Row::Message(row)) => rows.push(row),
                Some(Row::Read(read)) => reads.push(*read),
                Some(Row::Joined(joined)) => reads.extend(joined),
                None => {}
            }
        }
        rows.sort_unstable();
        rows.dedup();
        reads.extend(rows.iter().map(|row| row.read()));
        // Sorted by number, so the last one of a conversation stays.
        let heads: BTreeMap<Uuid, &MessageRow> = rows.iter().map(|row| (row.conversation_id, *row)).collect();
        let sides: BTreeMap<(Uuid, Author), Seq> =
            rows.iter().map(|row| ((row.conversation_id, row.author), row.seq)).collect();
        Self {
            days: rows.iter().map(|row| row.sent_at.day()).collect(),
            last: items.iter().map(|item| item.stream_seq).max().unwrap_or_default(),
            newest: items.iter().map(|item| item.sent_at).max().unwrap_or_default(),
            heads: HeadColumns::of(heads.into_values(), &sides),
            reads: ReadColumns::of(reads),
            messages: MessageColumns::of(&rows),
        }
    }
}

impl MessageColumns {
    fn of(rows: &[&MessageRow]) -> Self {
        Self {
            conversation_id: rows.iter().map(|row| row.conversation_id).collect(),
            seq: rows.iter().map(|row| row.seq.to_sql()).collect(),
            sent_at: rows.iter().map(|row| row.sent_at.into()).collect(),
            message_id: rows.iter().map(|row| row.message_id).collect(),
            sender_id: rows.iter().map(|row| row.sender_id).collect(),
            envelope: rows.iter().map(|row| row.envelope.clone()).collect(),
        }
    }

    /// Whether there is no row.
    pub const fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }
}

impl HeadColumns {
    fn of<'a>(rows: impl Iterator<Item = &'a MessageRow>, sides: &BTreeMap<(Uuid, Author), Seq>) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let last_of = |author| sides.get(&(row.conversation_id, author)).map_or(0, |seq| seq.to_sql());
            columns.customer_seq.push(last_of(Author::Customer));
            columns.agent_seq.push(last_of(Author::Staff));
            columns.conversation_id.push(row.conversation_id);
            columns.last_seq.push(row.seq.to_sql());
            columns.last_message_at.push(row.sent_at.into());
            columns.last_message_id.push(row.message_id);
        }
        columns
    }
}

/// How far a participant gets by the entries of a batch.
#[derive(Default)]
struct Reach {
    mark: (Seq, Option<Uuid>),
    own: BTreeMap<Seq, Uuid>,
    since_seq: Seq,
}

impl ReadColumns {
    /// How many rows there are.
    pub const fn len(&self) -> usize {
        self.read_seq.len()
    }

    /// The furthest of each participant.
    fn of(reads: Vec<ReadRow>) -> Self {
        let mut furthest: BTreeMap<_, Reach> = BTreeMap::new();
        for read in reads {
            let reach = furthest.entry((read.conversation_id, read.user_id)).or_default();
            reach.mark = reach.mark.max((read.read_seq, read.message_id));
            reach.own.extend(read.own);
            reach.since_seq = reach.since_seq.max(read.since_seq);
        }
        let mut columns = Self::default();
        for ((conversation_id, user_id), Reach { mark: (read_seq, message_id), own, since_seq }) in furthest {
            columns.own_message_id.push(own.values().next_back().copied());
            let own: Vec<_> = own.keys().map(|seq| format!("[{0},{0}]", seq.0)).collect();
            columns.conversation_id.push(conversation_id);
            columns.user_id.push(user_id);
            columns.read_seq.push(read_seq.to_sql());
            columns.last_read_message_id.push(message_id);
            columns.own_runs.push(format!("{{{}}}", own.join(",")));
            columns.since_seq.push(since_seq.to_sql());
        }
        columns
    }

    /// Whether there is no row.
    pub const fn is_empty(&self) -> bool {
        self.read_seq.is_empty()
    }
}

#[cfg(test)]
mod tests;
