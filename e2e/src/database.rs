//! Looks into a fleet's PostgreSQL, behind the services' backs.

use anyhow::Result;
use chat_shared::ids::{ConversationId, UserId};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::eventually;

/// The number that a statement gives.
pub async fn count(url: &str, statement: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let count = connection.fetch_one(AssertSqlSafe(statement.to_owned())).await?.try_get(0)?;
    connection.close().await?;
    Ok(count)
}

/// The tables that hold rows, partitions among them, as a statement names them.
pub async fn tables(url: &str) -> Result<Vec<String>> {
    let statement = "select format('%I.%I', schemaname, tablename) from pg_tables
                     where schemaname not in ('pg_catalog', 'information_schema') order by 1";
    let mut connection = PgConnection::connect(url).await?;
    let rows = connection.fetch_all(AssertSqlSafe(statement)).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Carries out a statement.
pub async fn execute(url: &str, statement: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(statement.to_owned())).await?;
    Ok(connection.close().await?)
}

/// The numbers of a conversation's stored messages, ascending.
pub async fn stored(url: &str, conversation_id: ConversationId) -> Result<Vec<u64>> {
    let id = conversation_id.as_uuid();
    let statement = format!("select seq from messages where conversation_id = '{id}' order by seq, sent_at");
    let mut connection = PgConnection::connect(url).await?;
    let rows = connection.fetch_all(AssertSqlSafe(statement)).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok(row.try_get::<i64, _>(0)?.unsigned_abs())).collect()
}

/// Waits until exactly the messages 1 to `last` of a conversation are stored, each once.
pub async fn wait_until_stored(url: &str, conversation_id: ConversationId, last: u64) -> Result<()> {
    let wanted: Vec<u64> = (1..=last).collect();
    eventually(&format!("storing of messages 1 to {last}"), || async {
        Ok((stored(url, conversation_id).await? == wanted).then_some(()))
    })
    .await
}

/// Waits until it is stored that a participant has read so far.
pub async fn wait_until_read(url: &str, user_id: UserId, conversation_id: ConversationId, seq: i64) -> Result<()> {
    let statement = format!(
        "select read_seq from participants where conversation_id = '{}' and user_id = '{}'",
        conversation_id.as_uuid(),
        user_id.as_uuid()
    );
    eventually(&format!("storing of what was read up to {seq}"), || async {
        Ok((count(url, &statement).await? == seq).then_some(()))
    })
    .await
}
