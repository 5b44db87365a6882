//! The statements on gaps: ranges of the log that the database may lack.

use chat_shared::position::StreamSeq;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

/// A range of the log that has yet to be stored again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Its row.
    pub id: i64,
    /// The first position that may be missing.
    pub next: StreamSeq,
    /// The last one.
    pub last: StreamSeq,
    /// Whether all of them had been stored once.
    pub was_acked: bool,
}

/// Entries in all gaps of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GapEntries {
    /// Those that have yet to be looked at.
    pub pending: i64,
    /// Those that the log has lost too.
    pub lost: i64,
}

/// Records a gap, unless it is empty.
pub async fn record(
    connection: &mut PgConnection,
    stream_name: &str,
    (first, last): (StreamSeq, StreamSeq),
    was_acked: bool,
    found_at: OffsetDateTime,
) -> sqlx::Result<()> {
    if first <= last {
        sqlx::query!(
            "insert into log_gaps (stream_name, next_stream_seq, last_stream_seq, was_acked, found_at)
             values ($1, $2, $3, $4, $5)",
            stream_name,
            first.to_sql(),
            last.to_sql(),
            was_acked,
            found_at,
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// The oldest gap that no other instance works on. It is this one's until the transaction ends.
pub async fn take(connection: &mut PgConnection, stream_name: &str) -> sqlx::Result<Option<Gap>> {
    let row = sqlx::query!(
        "select gap_id, next_stream_seq, last_stream_seq, was_acked from log_gaps
         where stream_name = $1 and not is_lost
         order by gap_id limit 1 for update skip locked",
        stream_name,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Gap {
        id: row.gap_id,
        next: StreamSeq::from_sql(row.next_stream_seq),
        last: StreamSeq::from_sql(row.last_stream_seq),
        was_acked: row.was_acked,
    }))
}

/// Notes that everything up to `last` may be missing, too; the gap as it is then.
pub async fn extend(connection: &mut PgConnection, gap: Gap, last: StreamSeq) -> sqlx::Result<Gap> {
    let gap = Gap { last: gap.last.max(last), ..gap };
    sqlx::query!("update log_gaps set last_stream_seq = $2 where gap_id = $1", gap.id, gap.last.to_sql())
        .execute(connection)
        .await?;
    Ok(gap)
}

/// Notes that everything up to `done` is stored; a gap that is closed goes.
pub async fn advance(connection: &mut PgConnection, gap: Gap, done: StreamSeq) -> sqlx::Result<()> {
    if done >= gap.last {
        sqlx::query!("delete from log_gaps where gap_id = $1", gap.id).execute(connection).await?;
    } else {
        let next = StreamSeq(done.0 + 1).to_sql();
        sqlx::query!("update log_gaps set next_stream_seq = $2 where gap_id = $1", gap.id, next)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Notes that the log has lost everything up to `lost` too.
pub async fn give_up(connection: &mut PgConnection, gap: Gap, lost: StreamSeq) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into log_gaps (stream_name, next_stream_seq, last_stream_seq, was_acked, is_lost, found_at)
         select stream_name, next_stream_seq, $2, was_acked, true, found_at from log_gaps where gap_id = $1",
        gap.id,
        lost.to_sql(),
    )
    .execute(&mut *connection)
    .await?;
    advance(connection, gap, lost).await
}

/// How many entries the gaps of a stream have.
pub async fn count(pool: &PgPool, stream_name: &str) -> sqlx::Result<GapEntries> {
    sqlx::query_as!(
        GapEntries,
        r#"select
               coalesce(sum(last_stream_seq - next_stream_seq + 1) filter (where not is_lost), 0)::bigint as "pending!",
               coalesce(sum(last_stream_seq - next_stream_seq + 1) filter (where is_lost), 0)::bigint as "lost!"
           from log_gaps where stream_name = $1"#,
        stream_name,
    )
    .fetch_one(pool)
    .await
}

/// The ranges that the log has lost too.
pub async fn lost(pool: &PgPool, stream_name: &str) -> sqlx::Result<Vec<(StreamSeq, StreamSeq)>> {
    let rows = sqlx::query!(
        "select next_stream_seq, last_stream_seq from log_gaps where stream_name = $1 and is_lost order by gap_id",
        stream_name,
    )
    .fetch_all(pool)
    .await?;
    let range = |first, last| (StreamSeq::from_sql(first), StreamSeq::from_sql(last));
    Ok(rows.into_iter().map(|row| range(row.next_stream_seq, row.last_stream_seq)).collect())
}

/// Forgets the ranges that the log has lost too.
pub async fn forget_lost(pool: &PgPool, stream_name: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from log_gaps where stream_name = $1 and is_lost", stream_name).execute(pool).await?;
    Ok(())
}
