//! Batched inserts into a bare table that looks like that of messages, a commit for each batch.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use super::rate;

/// Rows of a transaction, as the persister's batches at their largest.
const ROWS: usize = 500;
/// Conversations that the rows are spread over.
const CONVERSATIONS: usize = 1000;
/// About a sealed message.
const ENVELOPE_BYTES: usize = 100;
/// Removed first, in case an earlier measurement was cut off.
const REMOVE: &str = "drop table if exists load_floor";
const MAKE: &str = "create table load_floor (
    conversation_id uuid not null,
    seq bigint not null check (seq > 0),
    sent_at timestamptz not null,
    message_id uuid not null,
    sender_id uuid not null,
    envelope bytea not null,
    deleted_at timestamptz,
    primary key (conversation_id, seq, sent_at)
)";
const MAKE_INDEX: &str = "create index load_floor_by_message on load_floor (conversation_id, message_id)";
const INSERT: &str = "insert into load_floor (conversation_id, seq, sent_at, message_id, sender_id, envelope)
    select conversation_id, seq, now(), message_id, sender_id, envelope
    from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bytea[])
        as row (conversation_id, seq, message_id, sender_id, envelope)
    on conflict do nothing";

/// Rows a second.
pub(super) async fn measure(postgres_url: &str, length: Duration) -> Result<f64> {
    let mut connection = PgConnection::connect(postgres_url).await.context("PostgreSQL can't be reached")?;
    for statement in [REMOVE, MAKE, MAKE_INDEX] {
        connection.execute(statement).await?;
    }
    let measured = insert(&mut connection, length).await;
    connection.execute(REMOVE).await.context("a table could not be removed")?;
    connection.close().await?;
    measured
}

async fn insert(connection: &mut PgConnection, length: Duration) -> Result<f64> {
    let conversations: Vec<Uuid> = (0..CONVERSATIONS).map(|_| Uuid::new_v4()).collect();
    let senders: Vec<Uuid> = (0..ROWS).map(|_| Uuid::new_v4()).collect();
    let envelopes = vec![vec![7_u8; ENVELOPE_BYTES]; ROWS];
    let mut numbers = (1_i64..).flat_map(|seq| conversations.iter().map(move |id| (*id, seq)));
    let mut took = Duration::ZERO;
    let mut count = 0;
    while took < length {
        let (ids, seqs): (Vec<Uuid>, Vec<i64>) = numbers.by_ref().take(ROWS).unzip();
        let message_ids: Vec<Uuid> = ids.iter().map(|_| Uuid::new_v4()).collect();
        let began = Instant::now();
        #[expect(
            clippy::disallowed_methods,
            reason = "the table isn't in the schema that statements are checked against"
        )]
        let statement = sqlx::query(INSERT);
        let inserted = statement
            .bind(&ids)
            .bind(&seqs)
            .bind(&message_ids)
            .bind(&senders)
            .bind(&envelopes)
            .execute(&mut *connection);
        count += inserted.await?.rows_affected();
        took += began.elapsed();
    }
    Ok(rate(count, took))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub async fn assert_gone(postgres_url: &str) {
        let mut connection = PgConnection::connect(postgres_url).await.unwrap();
        let found = connection.fetch_optional("select from pg_class where relname like 'load_floor%'").await.unwrap();
        assert!(found.is_none());
    }
}
