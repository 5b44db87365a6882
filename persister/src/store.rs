//! The statements: one transaction a batch, dead letters.
//!
//! **Invariants:** nothing is ever lowered. Rows are locked in the order messages, conversations, participants, former
//! participants, checkpoint, and sorted within each, so that instances don't lock each other out.

use chat_shared::{
    clock::{Clock, Day},
    limits,
    log::LogState,
    position::StreamSeq,
};
use sqlx::{PgConnection, PgPool};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::{
    batch::{Batch, HeadColumns, MessageColumns, ReadColumns},
    checkpoint::raise_checkpoint,
};

/// The tables that the persister writes.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
}

/// An entry that could not be stored, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// The subject it was appended to.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Why it could not be stored.
    pub reason: String,
}

/// A dead letter, as it lies in the table.
#[derive(Debug)]
pub struct StoredLetter {
    /// Its row.
    pub dead_letter_id: i64,
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// The subject it was appended to.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What a transaction changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Messages that were new.
    pub messages: u64,
    /// Participants who had not read that far.
    pub reads: u64,
}

impl Store {
    /// The tables behind `pool`.
    pub const fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock }
    }

    /// Stores a batch, all of it or nothing. `log` is the stream it came from; none for a batch that doesn't move the
    /// checkpoint. Returns none, and stores nothing, if the database may have come back older: see [`Store::verify`].
    pub async fn store(&self, batch: &Batch, log: Option<&LogState>) -> sqlx::Result<Option<Stored>> {
        let mut transaction = self.pool.begin().await?;
        let mut stored = Stored::default();
        if !batch.messages.is_empty() {
            stored.messages = insert_messages(&mut transaction, &batch.messages).await?;
            raise_conversations(&mut transaction, &batch.heads).await?;
        }
        if !batch.reads.is_empty() {
            let (raised, present) = raise_participants(&mut transaction, &batch.heads, &batch.reads).await?;
            stored.reads = raised;
            if present < batch.reads.len() {
                raise_former_participants(&mut transaction, &batch.reads).await?;
                // Users who came back while the statements before waited.
                stored.reads += raise_participants(&mut transaction, &batch.heads, &batch.reads).await?.0;
            }
        }
        // Last, because all instances wait for each other at this row.
        if let Some(log) = log
            && !raise_checkpoint(&mut transaction, log, batch.last, self.clock.now()).await?
        {
            return Ok(None);
        }
        transaction.commit().await?;
        Ok(Some(stored))
    }

    /// Makes the partition of a day; whether it was missing.
    pub async fn make_partition(&self, day: Day) -> sqlx::Result<bool> {
        sqlx::query_scalar!(r#"select make_message_partition($1) as "is_new!""#, Date::from(day))
            .fetch_one(&self.pool)
            .await
    }

    /// Puts an entry in the table of dead letters, once. `log` is as for [`Store::store`], and so is false.
    pub async fn bury(&self, stream_name: &str, letter: &DeadLetter, log: Option<&LogState>) -> sqlx::Result<bool> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "insert into dead_letters (stream_name, stream_seq, subject, payload, reason, created_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (stream_name, stream_seq) do nothing",
            stream_name,
            letter.stream_seq.to_sql(),
            letter.subject,
            letter.payload,
            letter.reason,
            OffsetDateTime::from(self.clock.now()),
        )
        .execute(&mut *transaction)
        .await?;
        if let Some(log) = log
            && !raise_checkpoint(&mut transaction, log, letter.stream_seq, self.clock.now()).await?
        {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The dead letters after row `after`, at most `rows_max` of them.
    pub async fn letters(&self, after: i64, rows_max: i64) -> sqlx::Result<Vec<StoredLetter>> {
        let rows = sqlx::query!(
            "select dead_letter_id, stream_seq, subject, payload from dead_letters
             where dead_letter_id > $1 order by dead_letter_id limit $2",
            after,
            rows_max,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| StoredLetter {
                dead_letter_id: row.dead_letter_id,
                stream_seq: StreamSeq::from_sql(row.stream_seq),
                subject: row.subject,
                payload: row.payload,
            })
            .collect())
    }

    /// How many dead letters there are.
    pub async fn count_letters(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar!(r#"select count(*) as "count!" from dead_letters"#).fetch_one(&self.pool).await
    }

    /// Removes dead letters that have been stored after all.
    pub async fn remove_letters(&self, ids: &[i64]) -> sqlx::Result<()> {
        sqlx::query!("delete from dead_letters where dead_letter_id = any($1)", ids).execute(&self.pool).await?;
        Ok(())
    }
}

async fn insert_messages(connection: &mut PgConnection, rows: &MessageColumns) -> sqlx::Result<u64> {
    let inserted = sqlx::query!(
        "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
         select * from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::uuid[], $5::uuid[], $6::bytea[])
         on conflict do nothing",
        &rows.conversation_id,
        &rows.seq,
        &rows.sent_at,
        &rows.message_id,
        &rows.sender_id,
        &rows.envelope,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

/// An update takes its rows in any order, hence the sorted lock before it. Each number is raised by itself: of two batches the one
/// with the later messages may be stored first, and the other one may have the last message of the other side.
async fn raise_conversations(connection: &mut PgConnection, heads: &HeadColumns) -> sqlx::Result<()> {
    sqlx::query!(
        "with head as materialized (
             select conversation.conversation_id, head.last_seq, head.last_message_at, head.last_message_id,
                 head.customer_seq, head.agent_seq
             from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::uuid[], $5::bigint[], $6::bigint[])
                 as head (conversation_id, last_seq, last_message_at, last_message_id, customer_seq, agent_seq)
             join conversations conversation using (conversation_id)
             where conversation.last_seq < head.last_seq
                 or conversation.customer_seq < head.customer_seq
                 or conversation.agent_seq < head.agent_seq
             order by conversation.conversation_id
             for no key update of conversation
         )
         update conversations conversation
         set last_seq = greatest(conversation.last_seq, head.last_seq),
             last_message_at = case when conversation.last_seq < head.last_seq
                 then head.last_message_at else conversation.last_message_at end,
             last_message_id = case when conversation.last_seq < head.last_seq
                 then head.last_message_id else conversation.last_message_id end,
             last_activity_at = greatest(conversation.last_activity_at, head.last_message_at),
             customer_seq = greatest(conversation.customer_seq, head.customer_seq),
             agent_seq = greatest(conversation.agent_seq, head.agent_seq)
         from head
         where conversation.conversation_id = head.conversation_id",
        &heads.conversation_id,
        &heads.last_seq,
        &heads.last_message_at,
        &heads.last_message_id,
        &heads.customer_seq,
        &heads.agent_seq,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Raises the places of the batch's conversations in their participants' lists, if they lie too far behind, and how far
/// participants have read; how many had not read that far, and how many of `reads` are of participants. In one statement,
/// because two would lock rows in two orders.
async fn raise_participants(
    connection: &mut PgConnection,
    heads: &HeadColumns,
    reads: &ReadColumns,
) -> sqlx::Result<(u64, usize)> {
    let raised = sqlx::query!(
        r#"with wanted as materialized (
             select participant.conversation_id, participant.user_id, active.listed_at as active_at, own.read_seq,
                 own.last_read_message_id, own.since_seq, coalesce(own.own_runs, '{}') as own_runs, own.own_message_id,
                 participant.listed_at as known_listed_at, participant.read_seq as known_seq,
                 participant.own_runs as known_runs, own.user_id is not null as is_own,
                 participant.since_seq < own.since_seq as is_later
             from participants participant
             left join unnest($1::uuid[], $2::timestamptz[]) as active (conversation_id, listed_at)
                 using (conversation_id)
             left join unnest(
                 $3::uuid[], $4::uuid[], $5::bigint[], $6::uuid[], $8::bigint[], $9::text[]::int8multirange[], $10::uuid[]
             ) as own
                 (conversation_id, user_id, read_seq, last_read_message_id, since_seq, own_runs, own_message_id)
                 using (conversation_id, user_id)
             where participant.conversation_id = any($1 || $3)
                 and (
                     participant.listed_at < active.listed_at - make_interval(secs => $7) or own.user_id is not null
                 )
             order by participant.conversation_id, participant.user_id
             for no key update of participant
         ), raised as (
             update participants participant
             set listed_at = case when wanted.known_listed_at < wanted.active_at - make_interval(secs => $7)
                     then wanted.active_at else wanted.known_listed_at end,
                 read_seq = settled.read_seq,
                 own_runs = settled.own_runs,
                 last_read_message_id = case
                     when settled.read_seq = wanted.known_seq then participant.last_read_message_id
                     when settled.read_seq = wanted.read_seq then wanted.last_read_message_id
                     when settled.read_seq = upper(wanted.own_runs) - 1 then wanted.own_message_id
                 end,
                 since_seq = greatest(participant.since_seq, wanted.since_seq)
             from wanted
             cross join lateral settle_read(
                 greatest(wanted.known_seq, wanted.read_seq), wanted.known_runs + wanted.own_runs
             ) as settled
             where participant.conversation_id = wanted.conversation_id and participant.user_id = wanted.user_id
                 and (
                     wanted.known_listed_at < wanted.active_at - make_interval(secs => $7)
                     or settled.read_seq > wanted.known_seq
                     or settled.own_runs <> wanted.known_runs
                     or wanted.is_later
                 )
             returning settled.read_seq > wanted.known_seq as is_read
         )
         select (select count(*) from raised where is_read) as "raised!",
             (select count(*) from wanted where is_own) as "present!""#,
        &heads.conversation_id,
        &heads.last_message_at,
        &reads.conversation_id,
        &reads.user_id,
        &reads.read_seq,
        &reads.last_read_message_id as &[Option<Uuid>],
        limits::LIST_LAG_MAX.as_secs_f64(),
        &reads.since_seq,
        &reads.own_runs,
        &reads.own_message_id as &[Option<Uuid>],
    )
    .fetch_one(connection)
    .await?;
    Ok((raised.raised.unsigned_abs(), usize::try_from(raised.present).unwrap_or(0)))
}

/// Raises how far users have read who take part no more, for when they come back. A statement of its own, so that it sees
/// users who were removed while the one before waited for their rows.
async fn raise_former_participants(connection: &mut PgConnection, reads: &ReadColumns) -> sqlx::Result<()> {
    sqlx::query!(
        "with wanted as materialized (
             select former.conversation_id, former.user_id, own.read_seq, own.last_read_message_id, own.own_runs,
                 own.own_message_id, former.read_seq as known_seq, former.own_runs as known_runs
             from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[]::int8multirange[], $6::uuid[])
                 as own (conversation_id, user_id, read_seq, last_read_message_id, own_runs, own_message_id)
             join former_participants former using (conversation_id, user_id)
             where former.read_seq < own.read_seq or not own.own_runs <@ former.own_runs
             order by former.conversation_id, former.user_id
             for no key update of former
         )
         update former_participants former
         set read_seq = settled.read_seq,
             own_runs = settled.own_runs,
             last_read_message_id = case
                 when settled.read_seq = wanted.known_seq then former.last_read_message_id
                 when settled.read_seq = wanted.read_seq then wanted.last_read_message_id
                 when settled.read_seq = upper(wanted.own_runs) - 1 then wanted.own_message_id
             end
         from wanted
         cross join lateral settle_read(
             greatest(wanted.known_seq, wanted.read_seq), wanted.known_runs + wanted.own_runs
         ) as settled
         where former.conversation_id = wanted.conversation_id and former.user_id = wanted.user_id",
        &reads.conversation_id,
        &reads.user_id,
        &reads.read_seq,
        &reads.last_read_message_id as &[Option<Uuid>],
        &reads.own_runs,
        &reads.own_message_id as &[Option<Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(())
}
