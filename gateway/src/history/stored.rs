//! What PostgreSQL has of a conversation's messages. Reads only: the persister writes them.
//!
//! **Invariant:** every statement on `messages` gives a window of time, so that few partitions are touched.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chat_shared::{
    clock::Timestamp,
    event::MessageSent,
    ids::{ConversationId, InvalidId, MessageId},
    position::Seq,
    sealing::Envelope,
    wire::Message,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{cold::ColdPlace, range::Range};
use crate::{
    database::{Database, DatabaseError, statement},
    refusal::Refusal,
};

/// How far back a repeat is looked for: a day longer than the log keeps events.
const REPEAT_AGE_MAX: Duration = Duration::from_hours(8 * 24);
/// The span of a search's first window; each further window is as long as all before it.
const WINDOW_MIN: Duration = Duration::from_hours(24);
/// The windows with a span, the longest 32 days. One more window holds all that remains, however old.
const WINDOWS_MAX: usize = 7;
/// Earlier than any message.
const BEGINNING: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// A message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its number.
    pub seq: Seq,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Its id, sender and sealed text; the text is empty while it is `cold`.
    pub message: MessageSent,
    /// Where its sealed text is instead.
    pub cold: Option<ColdPlace>,
}

impl StoredMessage {
    /// Whether its text is somewhere else.
    pub fn lacks_text(&self) -> bool {
        self.message.envelope.as_bytes().is_empty()
    }
}

/// The answer to a search for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// How far the conversation was stored before the search.
    pub last_seq: Seq,
    /// The message, if it is stored.
    pub message: Option<StoredMessage>,
}

/// Why rows can't be had.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// PostgreSQL did not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A stored value that no process of ours writes.
    #[error("a stored id is not of version 4")]
    Unreadable(#[from] InvalidId),
}

impl From<RowsError> for Refusal {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Database(error) => error.into(),
            RowsError::Unreadable(error) => Self::internal(&error),
        }
    }
}

/// A row of `messages`, as its statements give it.
struct Row {
    seq: i64,
    sent_at: OffsetDateTime,
    message_id: Uuid,
    sender_id: Uuid,
    envelope: Option<Vec<u8>>,
}

impl TryFrom<Row> for StoredMessage {
    type Error = InvalidId;

    fn try_from(row: Row) -> Result<Self, InvalidId> {
        Ok(Self {
            seq: Seq::from_sql(row.seq),
            sent_at: row.sent_at.into(),
            message: MessageSent {
                message_id: row.message_id.try_into()?,
                sender_id: row.sender_id.try_into()?,
                envelope: Envelope::from_bytes(row.envelope.unwrap_or_default()),
                seen_seq: Seq::ZERO,
                // Rows aren't for anybody: whoever shows them looks who takes part.
                audience: chat_shared::sealing::AudienceTag::default(),
            },
            cold: None,
        })
    }
}

impl StoredMessage {
    /// As clients see it, with its text in clear.
    pub fn into_message(self, conversation_id: ConversationId, text: String) -> Message {
        let MessageSent { message_id, sender_id, .. } = self.message;
        Message { conversation_id, message_id, sender_id, seq: self.seq, sent_at: self.sent_at, text }
    }
}

/// A stretch of time: after `.0` and up to `.1`.
type Window = (OffsetDateTime, OffsetDateTime);

/// The time at which a search for rows begins, and its direction. Time never runs backwards along the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// Back from the time of a message after the wanted ones, or of the last of them.
    Back(Timestamp),
    /// Forward from the time of a message before the wanted ones, up to the time of the conversation's last message.
    Forward(Timestamp, Timestamp),
}

impl Search {
    /// One window after the other. Together they hold everything in the search's direction, so that no message is too
    /// old to be found.
    fn windows(self) -> Vec<Window> {
        let spans = std::iter::successors(Some(WINDOW_MIN), |span| Some(*span * 2)).take(WINDOWS_MAX);
        let mut bounds: Vec<OffsetDateTime> = match self {
            Self::Back(from) => {
                let from = OffsetDateTime::from(from);
                let ends = spans.map(|span| (from - span).max(BEGINNING));
                [from].into_iter().chain(ends).chain([BEGINNING]).collect()
            }
            Self::Forward(from, until) => {
                let (from, until) = (OffsetDateTime::from(from), OffsetDateTime::from(until));
                let ends = spans.map(|span| (from + span).min(until));
                // Messages of the same millisecond as the one before them belong to the first window.
                [from - Duration::from_millis(1)].into_iter().chain(ends).chain([until]).collect()
            }
        };
        bounds.dedup();
        bounds.windows(2).map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1]))).collect()
    }
}

/// The rows of a range, each with its number; a deleted one without its message. Looks in ever longer windows until it
/// has the one that is furthest in the search's direction.
pub(super) async fn rows(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    wanted: Range,
    search: Search,
) -> Result<Vec<(Seq, Option<StoredMessage>)>, RowsError> {
    let mut found = Vec::new();
    let mut still_wanted = wanted;
    for window in search.windows() {
        let rows = rows_in_window(connection, conversation_id, still_wanted, window).await?;
        let (lowest, highest) = (rows.first().map(|(seq, _)| *seq), rows.last().map(|(seq, _)| *seq));
        found.extend(rows);
        match (search, lowest, highest) {
            (Search::Back(_), Some(lowest), _) if lowest > wanted.first => still_wanted.last = Seq(lowest.0 - 1),
            (Search::Forward(..), _, Some(highest)) if highest < wanted.last => still_wanted.first = highest.next(),
            (_, None, _) | (_, _, None) => {}
            _ => break,
        }
    }
    add_places(connection, conversation_id, &mut found).await?;
    Ok(found)
}

/// Looks where the texts are that are not in their rows.
async fn add_places(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    found: &mut [(Seq, Option<StoredMessage>)],
) -> Result<(), RowsError> {
    let mut cold: Vec<_> =
        found.iter_mut().filter_map(|(_, message)| message.as_mut()).filter(|message| message.lacks_text()).collect();
    if cold.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = cold.iter().map(|message| (message.seq, message.sent_at)).collect();
    for (message, place) in cold.iter_mut().zip(places(connection, conversation_id, &wanted).await?) {
        message.cold = place;
    }
    Ok(())
}

/// Where the texts of messages are, given by number and time, in the order given. A message is in the last chunk of its day
/// that does not begin after it.
pub(super) async fn places(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    wanted: &[(Seq, Timestamp)],
) -> Result<Vec<Option<ColdPlace>>, DatabaseError> {
    let seqs: Vec<_> = wanted.iter().map(|(seq, _)| seq.to_sql()).collect();
    let days: Vec<_> = wanted.iter().map(|(_, sent_at)| OffsetDateTime::from(*sent_at).date()).collect();
    let chunks = statement(
        sqlx::query!(
            r#"select wanted.nth as "nth!", p.object, c.place, c.length
               from unnest($2::bigint[], $3::date[]) with ordinality as wanted (seq, wanted_day, nth)
               cross join lateral (
                   select day, number, place, length from cold_chunks
                   where day = wanted_day and (conversation_id, first_seq) <= ($1, wanted.seq)
                   order by conversation_id desc, first_seq desc limit 1
               ) c
               join cold_packs p on p.day = c.day and p.number = c.number"#,
            conversation_id.as_uuid(),
            &seqs,
            &days
        )
        .fetch_all(connection),
    )
    .await?;
    let mut objects: HashMap<String, Arc<str>> = HashMap::new();
    let mut places = vec![None; wanted.len()];
    for chunk in chunks {
        let object = objects.entry(chunk.object).or_insert_with_key(|object| object.as_str().into());
        let place = ColdPlace {
            object: Arc::clone(object),
            place: chunk.place.unsigned_abs(),
            length: chunk.length.unsigned_abs(),
        };
        let at = usize::try_from(chunk.nth - 1).unwrap_or(usize::MAX);
        if let Some(wanted) = places.get_mut(at) {
            *wanted = Some(place);
        }
    }
    Ok(places)
}

async fn rows_in_window(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    wanted: Range,
    (after, until): Window,
) -> Result<Vec<(Seq, Option<StoredMessage>)>, RowsError> {
    let rows = statement(
        sqlx::query!(
            r#"select seq, sent_at, message_id, sender_id, envelope, deleted_at is not null as "is_deleted!"
               from messages
               where conversation_id = $1 and seq between $2 and $3 and sent_at > $4 and sent_at <= $5
               order by seq"#,
            conversation_id.as_uuid(),
            wanted.first.to_sql(),
            wanted.last.to_sql(),
            after,
            until
        )
        .fetch_all(connection),
    )
    .await?;
    rows.into_iter()
        .map(|row| {
            let seq = Seq::from_sql(row.seq);
            if row.is_deleted {
                return Ok((seq, None));
            }
            let (sent_at, message_id, sender_id, envelope) = (row.sent_at, row.message_id, row.sender_id, row.envelope);
            Ok((seq, Some(Row { seq: row.seq, sent_at, message_id, sender_id, envelope }.try_into()?)))
        })
        .collect()
}

/// The last messages of several conversations, given by number and time, in one statement; deleted ones are left out.
pub async fn last_messages(
    connection: &mut PgConnection,
    wanted: &[(Uuid, Seq, OffsetDateTime)],
) -> Result<HashMap<Uuid, StoredMessage>, RowsError> {
    let times = wanted.iter().map(|(_, _, sent_at)| *sent_at);
    let (Some(oldest), Some(latest)) = (times.clone().min(), times.clone().max()) else { return Ok(HashMap::new()) };
    let conversations: Vec<_> = wanted.iter().map(|(conversation_id, ..)| *conversation_id).collect();
    let seqs: Vec<_> = wanted.iter().map(|(_, seq, _)| seq.to_sql()).collect();
    let rows = statement(
        sqlx::query!(
            r#"select wanted.conversation_id as "conversation_id!", m.seq, m.sent_at, m.message_id, m.sender_id, m.envelope
             from unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) as wanted (conversation_id, seq, sent_at)
             cross join lateral (
                 -- The limit keeps this a look-up in one partition for each, whatever the planner knows of the table.
                 select * from messages
                 where conversation_id = wanted.conversation_id and seq = wanted.seq and sent_at = wanted.sent_at
                     and sent_at between $4 and $5 and deleted_at is null
                 limit 1
             ) m"#,
            &conversations,
            &seqs,
            &times.collect::<Vec<_>>(),
            oldest,
            latest
        )
        .fetch_all(connection),
    )
    .await?;
    rows.into_iter()
        .map(|row| {
            let (sent_at, message_id, sender_id, envelope) = (row.sent_at, row.message_id, row.sender_id, row.envelope);
            let message = Row { seq: row.seq, sent_at, message_id, sender_id, envelope }.try_into()?;
            Ok((row.conversation_id, message))
        })
        .collect()
}

/// The answer to a search for the number of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// How far the conversation was stored before the search.
    pub last_seq: Seq,
    /// The number, if the message is stored.
    pub seq: Option<Seq>,
}

/// Looks for the number of a message, first among those of the last eight days, then among all that are kept.
pub(super) async fn find_number(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    message_id: MessageId,
) -> Result<Numbered, RowsError> {
    let conversation = statement(
        sqlx::query!(
            "select last_seq, last_message_at from conversations where conversation_id = $1",
            conversation_id.as_uuid()
        )
        .fetch_optional(&mut *connection),
    )
    .await?;
    let Some(conversation) = conversation else { return Ok(Numbered { last_seq: Seq::ZERO, seq: None }) };
    let last_seq = Seq::from_sql(conversation.last_seq);
    let Some(last) = conversation.last_message_at else { return Ok(Numbered { last_seq, seq: None }) };
    for (after, until) in [(last - REPEAT_AGE_MAX, last), (BEGINNING, last - REPEAT_AGE_MAX)] {
        let seq = statement(
            sqlx::query_scalar!(
                "select seq from messages
                 where conversation_id = $1 and message_id = $2 and sent_at > $3 and sent_at <= $4
                 order by seq limit 1",
                conversation_id.as_uuid(),
                message_id.as_uuid(),
                after,
                until
            )
            .fetch_optional(&mut *connection),
        )
        .await?;
        if let Some(seq) = seq {
            return Ok(Numbered { last_seq, seq: Some(Seq::from_sql(seq)) });
        }
    }
    Ok(Numbered { last_seq, seq: None })
}

/// Looks for the message of this id among what the conversation has stored of its last eight days.
pub async fn find_stored(
    database: &Database,
    conversation_id: ConversationId,
    message_id: MessageId,
) -> Result<Stored, Refusal> {
    let mut connection = database.connection().await?;
    // How far it is stored is read first: what is stored in between is then found as a row, or lies after it.
    let conversation = statement(
        sqlx::query!(
            "select last_seq, last_message_at from conversations where conversation_id = $1",
            conversation_id.as_uuid()
        )
        .fetch_optional(&mut *connection),
    )
    .await?;
    let Some(conversation) = conversation else { return Ok(Stored { last_seq: Seq::ZERO, message: None }) };
    let last_seq = Seq::from_sql(conversation.last_seq);
    let Some(last_message_at) = conversation.last_message_at else { return Ok(Stored { last_seq, message: None }) };
    let row = statement(
        sqlx::query_as!(
            Row,
            "select seq, sent_at, message_id, sender_id, envelope from messages
             where conversation_id = $1 and message_id = $2 and sent_at >= $3
             order by seq limit 1",
            conversation_id.as_uuid(),
            message_id.as_uuid(),
            last_message_at - REPEAT_AGE_MAX,
        )
        .fetch_optional(&mut *connection),
    )
    .await?;
    let message = row.map(StoredMessage::try_from).transpose().map_err(|error| Refusal::internal(&error))?;
    Ok(Stored { last_seq, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time in January 2026.
    const NEWEST: Timestamp = Timestamp(1_767_225_600_000);

    fn are_joined(windows: &[Window]) -> bool {
        windows.iter().all(|(begin, end)| begin < end) && windows.windows(2).all(|pair| pair[0].0 == pair[1].1)
    }

    #[test]
    fn windows_back_reach_the_oldest_message() {
        let windows = Search::Back(NEWEST).windows();
        assert_eq!((windows[0].1, windows[0].1 - windows[0].0), (OffsetDateTime::from(NEWEST), time::Duration::DAY));
        assert!(are_joined(&windows));
        assert_eq!((windows.len(), windows[windows.len() - 1].0), (WINDOWS_MAX + 1, BEGINNING));
        let early = Search::Back(Timestamp(1)).windows();
        assert_eq!(early, [(BEGINNING, OffsetDateTime::from(Timestamp(1)))]);
    }

    #[test]
    fn windows_forward_reach_the_last_message() {
        for days in [0, 1, 3, 64, 65, 400] {
            let from = Timestamp(NEWEST.0 - days * 24 * 3_600_000);
            let mut windows = Search::Forward(from, NEWEST).windows();
            assert_eq!(OffsetDateTime::from(from) - windows[0].0, time::Duration::MILLISECOND);
            assert_eq!(windows[windows.len() - 1].1, OffsetDateTime::from(NEWEST));
            windows.reverse();
            assert!(are_joined(&windows), "{days} days");
        }
    }
}
