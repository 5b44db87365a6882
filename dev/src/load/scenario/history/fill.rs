//! Millions of messages of past days, put into Postgres as services would have over that time, but at once.
//!
//! They are really sealed, each for its own place with a key of its day, so that pages cost what pages cost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use chat_shared::{
    clock::{Clock, Day, Timestamp},
    ids::{ConversationId, MessageId, UserId},
    sealing::{ContentKey, MasterKey, Sealed},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{sync::mpsc, task::spawn_blocking};
use uuid::Uuid;

use crate::{
    content_keys,
    copy::{Rows, copy},
    fleet::Fleet,
};

/// Of readers' tokens.
const TOKEN_TTL: Duration = Duration::from_hours(2);
/// Bytes that go to Postgres at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait for Postgres.
const CHUNKS_MAX: usize = 8;
const MS_PER_DAY: i64 = 86_400_000;

/// How much there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Messages in all.
    pub rows: u64,
    /// Conversations that share them.
    pub conversations: u64,
    /// Days that they are spread over, up to yesterday; each has a partition and a key of its own.
    pub days: u16,
}

/// What there is.
#[derive(Debug)]
pub struct Archive {
    /// The conversations, all of the same length.
    pub talks: Vec<Talk>,
    /// Messages of each conversation.
    pub last_seq: u64,
    /// Messages in all.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A direct conversation.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Its id.
    pub conversation_id: ConversationId,
    users: [UserId; 2],
    last_message_id: MessageId,
    /// Of both participants.
    pub tokens: [String; 2],
}

impl Size {
    fn last_seq(&self) -> u64 {
        (self.rows / self.conversations.max(1)).max(1)
    }
}

/// Puts them there. Gateways that run have to be started again to learn of the keys.
///
/// # Errors
/// If Postgres refuses something.
pub async fn fill(fleet: &Fleet, size: &Size) -> Result<Archive> {
    let began = Instant::now();
    let mut database = PgConnection::connect(&fleet.urls().postgres).await?;
    let until = Clock::System.now().day();
    let first_day = until.plus(-i32::from(size.days));
    let master_key = MasterKey::parse(&std::fs::read_to_string(fleet.dir().join("keys/master.key"))?)?;
    let keys = make_days(&mut database, &master_key, first_day, until).await?;
    let talks = (0..size.conversations).map(|_| Talk::new(fleet)).collect::<Result<Vec<_>>>()?;
    let span = Span { from: first_day.start(), until: until.start(), last_seq: size.last_seq() };
    make_conversations(&mut database, &talks, &span).await?;
    let rows = copy_messages(&mut database, talks.clone(), span, keys).await?;
    // As autovacuum would have done in the course of the days.
    database.execute("vacuum (analyze) messages, conversations, participants").await?;
    database.close().await?;
    Ok(Archive { talks, last_seq: size.last_seq(), rows, seconds: began.elapsed().as_secs_f64() })
}

/// When messages were sent: evenly from one moment to another.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    last_seq: u64,
}

impl Span {
    fn sent_at(&self, seq: u64) -> Timestamp {
        let length = u128::from(self.until.0.abs_diff(self.from.0));
        let after = length * u128::from(seq - 1) / u128::from(self.last_seq);
        Timestamp(self.from.0 + i64::try_from(after).unwrap_or(i64::MAX))
    }
}

impl Talk {
    fn new(fleet: &Fleet) -> Result<Self> {
        let mut users = [UserId::random(), UserId::random()];
        users.sort_by_key(|user| user.as_uuid());
        let token = |user: UserId| fleet.kaha().tokens().user(user.as_uuid(), None, TOKEN_TTL);
        Ok(Self {
            conversation_id: ConversationId::random(),
            users,
            last_message_id: MessageId::random(),
            tokens: [token(users[0])?, token(users[1])?],
        })
    }
}

/// A partition and a content key for each day before `until`; the keys in their order.
async fn make_days(
    database: &mut PgConnection,
    master_key: &MasterKey,
    first: Day,
    until: Day,
) -> Result<Vec<ContentKey>> {
    // Retention makes one for yesterday too.
    let stored = content_keys::stored(database).await?.into_iter().map(|key| (key.day, key));
    let mut wrapped: BTreeMap<_, _> = stored.collect();
    let mut generated = Vec::new();
    for day in (first.0..until.0).map(Day) {
        let statement = format!("select make_message_partition(date '1970-01-01' + {})", day.0);
        database.execute(AssertSqlSafe(statement)).await?;
        if !wrapped.contains_key(&day) {
            generated.push(master_key.generate(day)?);
        }
    }
    content_keys::store(database, generated.iter()).await?;
    wrapped.extend(generated.into_iter().map(|key| (key.day, key)));
    Ok(wrapped.range(first..until).map(|(_, key)| master_key.unwrap(key)).collect::<Result<_, _>>()?)
}

/// Directly, since the log would know of conversations that are made by a gateway, and how far they go.
async fn make_conversations(database: &mut PgConnection, talks: &[Talk], span: &Span) -> Result<()> {
    let (mut conversations, mut participants) = (Rows::new(), Rows::new());
    let last_seq = i64::try_from(span.last_seq)?;
    let last_at = span.sent_at(span.last_seq);
    for Talk { conversation_id, users, last_message_id, .. } in talks {
        let conversation_id = conversation_id.as_uuid();
        conversations.row(9).uuid(conversation_id).bytes(b"direct").uuid(users[0].as_uuid()).uuid(users[1].as_uuid());
        conversations.bigint(last_seq).uuid(last_message_id.as_uuid()).time(last_at).time(span.from).time(last_at);
        for user in users {
            participants.row(4).uuid(conversation_id).uuid(user.as_uuid()).bytes(b"member").time(span.from);
        }
    }
    let mut transaction = database.begin().await?;
    let columns = "conversations (conversation_id, kind, direct_low, direct_high, last_seq, last_message_id, \
                   last_message_at, created_at, last_activity_at)";
    copy(&mut transaction, columns, conversations).await?;
    copy(&mut transaction, "participants (conversation_id, user_id, role, joined_at)", participants).await?;
    Ok(transaction.commit().await?)
}

/// Seals on a thread of its own while Postgres stores; how many there were.
async fn copy_messages(
    database: &mut PgConnection,
    talks: Vec<Talk>,
    span: Span,
    keys: Vec<ContentKey>,
) -> Result<u64> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let sealing = spawn_blocking(move || seal_all(&talks, span, &keys, &sender));
    let into = "copy messages (conversation_id, seq, sent_at, message_id, sender_id, envelope) \
                from stdin (format binary)";
    let mut copy = database.copy_in_raw(into).await?;
    while let Some(chunk) = chunks.recv().await {
        let chunk: Vec<u8> = chunk;
        copy.send(chunk).await?;
    }
    let rows = copy.finish().await;
    // If sealing failed the copy has no end, and its failure says less.
    sealing.await??;
    Ok(rows?)
}

/// In the order in which messages come in: everybody writes all the time.
fn seal_all(talks: &[Talk], span: Span, keys: &[ContentKey], chunks: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut rows = Rows::new();
    for seq in 1..=span.last_seq {
        let sent_at = span.sent_at(seq);
        let day = usize::try_from((sent_at.0 - span.from.0) / MS_PER_DAY)?;
        let key = keys.get(day).context("a day has no key")?;
        for talk in talks {
            let message_id = if seq == span.last_seq { talk.last_message_id } else { MessageId::random() };
            let sender_id = talk.users[usize::from(seq % 2 == 0)];
            let place = Sealed { conversation_id: talk.conversation_id, message_id, sender_id };
            let text = format!("This is number {seq}, and it is about as long as what people write to each other.");
            let envelope = key.seal(&place, text.as_bytes())?;
            let ids: [Uuid; 2] = [message_id.as_uuid(), sender_id.as_uuid()];
            rows.row(6).uuid(talk.conversation_id.as_uuid()).bigint(i64::try_from(seq)?).time(sent_at);
            rows.uuid(ids[0]).uuid(ids[1]).bytes(envelope.as_bytes());
        }
        if rows.len() >= CHUNK_BYTES {
            chunks.blocking_send(rows.take()).ok().context("Postgres has refused messages")?;
        }
    }
    chunks.blocking_send(rows.finish()).ok().context("Postgres has refused messages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fill_all_days_evenly_and_in_order() {
        let span = Span { from: Day(100).start(), until: Day(110).start(), last_seq: 1000 };
        let days: Vec<Day> = (1..=1000).map(|seq| span.sent_at(seq).day()).collect();
        assert!(days.is_sorted());
        assert!((100..110).all(|day| days.iter().filter(|other| **other == Day(day)).count() == 100));
    }
}
