//! What PostgreSQL has of some conversations, read behind the services' backs.

use anyhow::Result;
use chat_client::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId},
    positions::Seq,
    wire::{CaseState, ReleaseReason},
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    cases::{Case, Lease, Member},
    evidence::{Head, ReadMark, Row},
};

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

/// The cases of some businesses, with the numbers of their conversations.
pub async fn cases(connection: &mut PgConnection, of: &[BusinessId]) -> Result<Vec<Case>> {
    let statement = format!(
        "select k.conversation_id, k.business_id, k.customer_id, k.case_number::bigint, k.state, k.agent_id, \
         c.customer_seq, c.agent_seq, c.resolved_seq \
         from cases k join conversations c using (conversation_id) where k.business_id = any({}) order by 1",
        businesses(of)
    );
    read(connection, statement, |row| {
        Ok(Case {
            conversation_id: row.try_get::<Uuid, _>(0)?.try_into()?,
            business_id: row.try_get::<Uuid, _>(1)?.try_into()?,
            customer_id: row.try_get::<Uuid, _>(2)?.try_into()?,
            number: row.try_get::<i64, _>(3)?.try_into()?,
            state: CaseState::named(row.try_get(4)?),
            agent_id: row.try_get::<Option<Uuid>, _>(5)?.map(TryInto::try_into).transpose()?,
            customer_seq: seq(row, 6)?,
            agent_seq: seq(row, 7)?,
            resolved_seq: seq(row, 8)?,
        })
    })
    .await
}

/// The staff of some businesses.
pub async fn staff(connection: &mut PgConnection, of: &[BusinessId]) -> Result<Vec<Member>> {
    let statement = format!(
        "select business_id, s.user_id, coalesce(s.capacity, b.capacity)::bigint, s.status = 'available' \
         from staff s join businesses b using (business_id) where business_id = any({})",
        businesses(of)
    );
    read(connection, statement, |row| {
        Ok(Member {
            business_id: row.try_get::<Uuid, _>(0)?.try_into()?,
            user_id: row.try_get::<Uuid, _>(1)?.try_into()?,
            capacity: row.try_get::<i64, _>(2)?.try_into()?,
            is_available: row.try_get(3)?,
        })
    })
    .await
}

/// The assignments of some businesses, in the order of their beginning.
pub async fn leases(connection: &mut PgConnection, of: &[BusinessId]) -> Result<Vec<Lease>> {
    let statement = format!(
        "select assignment_id, conversation_id, business_id, case_number::bigint, agent_id, assigned_by is null, \
         candidates::text, (extract(epoch from assigned_at) * 1000)::bigint, \
         (extract(epoch from released_at) * 1000)::bigint, release_reason \
         from assignments where business_id = any({}) order by assigned_at, assignment_id",
        businesses(of)
    );
    read(connection, statement, |row| {
        Ok(Lease {
            assignment_id: row.try_get::<i64, _>(0)?.unsigned_abs(),
            conversation_id: row.try_get::<Uuid, _>(1)?.try_into()?,
            business_id: row.try_get::<Uuid, _>(2)?.try_into()?,
            case_number: row.try_get::<i64, _>(3)?.try_into()?,
            agent_id: row.try_get::<Uuid, _>(4)?.try_into()?,
            is_routed: row.try_get(5)?,
            candidates: serde_json::from_str(row.try_get(6)?)?,
            assigned_at: Timestamp(row.try_get(7)?),
            released_at: row.try_get::<Option<i64>, _>(8)?.map(Timestamp),
            release_reason: row.try_get::<Option<&str>, _>(9)?.map(ReleaseReason::named),
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

fn list(ids: &[ConversationId]) -> String {
    array(ids.iter().map(|id| id.as_uuid()))
}

fn businesses(ids: &[BusinessId]) -> String {
    array(ids.iter().map(|id| id.as_uuid()))
}

/// Only ids get here, so there is nothing to quote.
fn array(ids: impl Iterator<Item = Uuid>) -> String {
    let ids: Vec<_> = ids.map(|id| format!("'{id}'")).collect();
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
