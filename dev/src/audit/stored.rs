//! What PostgreSQL has of some conversations, read behind the services' backs.

use anyhow::Result;
use chat_client::{clock::Timestamp, ids::ConversationId, positions::Seq};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::evidence::{Head, ReadMark, Row};

/// The rows of `messages`, by conversation and number.
pub async fn rows(connection: &mut PgConnection, of: &[ConversationId]) -> Result<Vec<Row>> {
    let statement = format!(
        "select conversation_id, seq, (extract(epoch from sent_at) * 1000)::bigint, message_id, sender_id \
         from messages where conversation_id = any({}) order by conversation_id, seq, sent_at",
        list(of)
    );
    read(connection, statement, |row| {
        Ok(Row {
            conversation_id: row.try_get::<Uuid, _>(0)?.try_into()?,
            seq: seq(row, 1)?,
            sent_at: Timestamp(row.try_get(2)?),
            message_id: row.try_get::<Uuid, _>(3)?.try_into()?,
            sender_id: row.try_get::<Uuid, _>(4)?.try_into()?,
        })
    })
    .await
}

/// What `conversations` says of their messages.
pub async fn heads(connection: &mut PgConnection, of: &[ConversationId]) -> Result<Vec<Head>> {
    let statement = format!(
        "select conversation_id, last_seq, floor_seq, version from conversations where conversation_id = any({})",
        list(of)
    );
    read(connection, statement, |row| {
        Ok(Head {
            conversation_id: row.try_get::<Uuid, _>(0)?.try_into()?,
            last_seq: seq(row, 1)?,
            floor_seq: seq(row, 2)?,
            version: row.try_get::<i64, _>(3)?.unsigned_abs(),
        })
    })
    .await
}

/// How far each participant has read.
pub async fn reads(connection: &mut PgConnection, of: &[ConversationId]) -> Result<Vec<ReadMark>> {
    let statement = format!(
        "select conversation_id, user_id, read_seq, since_seq from participants where conversation_id = any({})",
        list(of)
    );
    read(connection, statement, |row| {
        Ok(ReadMark {
            conversation_id: row.try_get::<Uuid, _>(0)?.try_into()?,
            user_id: row.try_get::<Uuid, _>(1)?.try_into()?,
            read_seq: seq(row, 2)?,
            since_seq: seq(row, 3)?,
        })
    })
    .await
}

/// How many entries of the log were set aside.
pub async fn dead_letters(connection: &mut PgConnection) -> Result<u64> {
    number(connection, "select count(*) from dead_letters".to_owned()).await
}

/// The one number that a statement gives.
pub async fn number(connection: &mut PgConnection, statement: String) -> Result<u64> {
    Ok(sqlx::raw_sql(AssertSqlSafe(statement)).fetch_one(connection).await?.try_get::<i64, _>(0)?.unsigned_abs())
}

/// Only ids get here, so there is nothing to quote.
fn list(ids: &[ConversationId]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("'{}'", id.as_uuid())).collect();
    format!("array[{}]::uuid[]", ids.join(","))
}

fn seq(row: &PgRow, column: usize) -> Result<Seq> {
    Ok(Seq(row.try_get::<i64, _>(column)?.unsigned_abs()))
}

async fn read<T>(
    connection: &mut PgConnection,
    statement: String,
    take: impl Fn(&PgRow) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(connection).await?;
    rows.iter().map(take).collect()
}
