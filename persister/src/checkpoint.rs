//! The statements on the checkpoint: how far the log is stored, and whether the database still has what it had.
//!
//! **Invariant:** nothing is stored in a database whose incarnation, the run of its server, isn't the one for which
//! everything that may be missing has been recorded as a gap. The row of the checkpoint says so, so no instance can raise it
//! over a gap that another one has not recorded.

use chat_shared::{clock::Timestamp, log::LogState, position::StreamSeq};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{gaps, store::Store};

/// How the database compares with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// It lacks nothing, or what it may lack had been recorded.
    Known,
    /// What it may lack has been recorded now.
    Recorded {
        /// The first position that may be missing.
        first: StreamSeq,
        /// The last one.
        last: StreamSeq,
        /// Whether it surely lacks what was acknowledged. If not, its server was only started again.
        is_older: bool,
    },
    /// Its checkpoint is that of another stream of the same name.
    OtherLog,
}

/// Raises the checkpoint; false if the database may have come back older, or the checkpoint is another log's.
pub async fn raise_checkpoint(
    connection: &mut PgConnection,
    log: &LogState,
    last: StreamSeq,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let raised = sqlx::query!(
        "update log_checkpoints
         set last_stream_seq = greatest(last_stream_seq, $3), updated_at = greatest(updated_at, $4)
         where stream_name = $1 and stream_created_at = $2 and incarnation = database_incarnation()",
        log.name,
        OffsetDateTime::from(log.created_at),
        last.to_sql(),
        OffsetDateTime::from(now),
    )
    .execute(connection)
    .await?;
    Ok(raised.rows_affected() > 0)
}

impl Store {
    /// How far the log has been stored; none before the first time.
    pub async fn checkpoint(&self, stream_name: &str) -> sqlx::Result<Option<StreamSeq>> {
        let last =
            sqlx::query_scalar!("select last_stream_seq from log_checkpoints where stream_name = $1", stream_name)
                .fetch_optional(&self.pool)
                .await?;
        Ok(last.map(StreamSeq::from_sql))
    }

    /// Notes that everything up to `acked` has been acknowledged. False if the database may have come back older.
    pub async fn note_acked(&self, log: &LogState, acked: StreamSeq) -> sqlx::Result<bool> {
        let known = sqlx::query_scalar!(
            r#"select coalesce(acked_stream_seq, 0) as "acked!" from log_checkpoints
               where stream_name = $1 and stream_created_at = $2 and incarnation = database_incarnation()
                   and last_stream_seq >= $3"#,
            log.name,
            OffsetDateTime::from(log.created_at),
            acked.to_sql(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(known) = known else { return Ok(false) };
        if StreamSeq::from_sql(known) < acked {
            // If the database is exchanged in between, the condition fails, and the next look finds it.
            sqlx::query!(
                "update log_checkpoints set acked_stream_seq = greatest(coalesce(acked_stream_seq, 0), $2)
                 where stream_name = $1 and incarnation = database_incarnation() and last_stream_seq >= $2",
                log.name,
                acked.to_sql(),
            )
            .execute(&self.pool)
            .await?;
        }
        Ok(true)
    }

    /// Records what the database may lack, unless that has been done since its server started, and lets it be written.
    ///
    /// All that may be missing lies after what had been acknowledged when the database was last whole, and before `last`,
    /// the log's end now. `acked` is how far the log is acknowledged now; it must have been read before.
    pub async fn verify(&self, log: &LogState, acked: StreamSeq, last: StreamSeq) -> sqlx::Result<Verified> {
        let (now, created_at) = (OffsetDateTime::from(self.clock.now()), OffsetDateTime::from(log.created_at));
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "insert into log_checkpoints (stream_name, stream_created_at, last_stream_seq, updated_at, acked_stream_seq)
             values ($1, $2, 0, $3, 0) on conflict do nothing",
            log.name,
            created_at,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query!(
            r#"select stream_created_at, last_stream_seq, acked_stream_seq,
                   incarnation is not distinct from database_incarnation() as "is_known!"
               from log_checkpoints where stream_name = $1 for update"#,
            log.name,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if row.stream_created_at != created_at {
            return Ok(Verified::OtherLog);
        }
        let stored = StreamSeq::from_sql(row.last_stream_seq);
        let is_older = stored < acked;
        if row.is_known && !is_older {
            return Ok(Verified::Known);
        }
        let whole = row.acked_stream_seq.map_or(stored.min(acked), StreamSeq::from_sql);
        let first = StreamSeq(whole.0 + 1);
        // Of what was acknowledged it is known that it had been stored; of the rest it isn't.
        gaps::record(&mut transaction, &log.name, (first, acked.min(last)), true, now).await?;
        let rest = first.max(StreamSeq(acked.0 + 1));
        gaps::record(&mut transaction, &log.name, (rest, last), false, now).await?;
        sqlx::query!(
            "update log_checkpoints
             set incarnation = database_incarnation(), last_stream_seq = greatest(last_stream_seq, $2)
             where stream_name = $1",
            log.name,
            acked.to_sql(),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(if first <= last { Verified::Recorded { first, last, is_older } } else { Verified::Known })
    }

    /// Forgets how far the log has been stored; whether anything was known.
    pub async fn forget_checkpoint(&self, stream_name: &str) -> sqlx::Result<bool> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("delete from log_gaps where stream_name = $1", stream_name).execute(&mut *transaction).await?;
        let forgotten = sqlx::query!("delete from log_checkpoints where stream_name = $1", stream_name)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(forgotten.rows_affected() > 0)
    }
}
