//! Removes the texts of users who are erased from PostgreSQL: one pass for all of them, which reads each day once, and a
//! second one for messages that were stored late.
//!
//! **Invariants:** PostgreSQL decides what is due and whose texts go. How far a pass is stands in PostgreSQL and moves in the
//! transaction that removes texts, so that instances may end anywhere and work side by side.

use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{ERASED_MESSAGES_TOTAL, ERASURE_FAILURES_TOTAL, ERASURES_OLDEST_SECONDS, ERASURES_PENDING},
    pace::{self, Batch, Rhythm},
};

/// Between two looks for what is due.
const INTERVAL: Duration = Duration::from_mins(1);
/// Blocks of 8 KiB that one transaction reads.
const BLOCKS_MAX: i32 = 512;
const BLOCKS_MIN: i32 = 8;

/// Removes texts, for as long as it runs.
#[derive(Debug)]
pub struct Erasing {
    pool: PgPool,
    blocks: Batch,
}

impl Erasing {
    /// Over the tables behind `pool`.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool, blocks: Batch::new(BLOCKS_MIN, BLOCKS_MAX) }
    }

    /// Works until `draining`. A step that fails is tried again.
    pub async fn run(mut self, draining: CancellationToken) {
        let mut rhythm = Rhythm::every(INTERVAL);
        // Dropping a pass half-way is harmless: each of its steps is a transaction of its own.
        while let Some(pass) = draining.run_until_cancelled(self.pass()).await {
            if let Err(error) = &pass {
                tracing::warn!(%error, "texts of erased users can't be removed, trying again");
                counter!(ERASURE_FAILURES_TOTAL).increment(1);
            }
            if !rhythm.pause(pass.is_ok(), &draining).await {
                return;
            }
        }
    }

    /// Goes on with the pass that runs, or begins one, until nothing is due or another instance is at it; how many texts it
    /// removed.
    pub async fn pass(&mut self) -> sqlx::Result<u64> {
        let mut removed = 0;
        loop {
            let started = Instant::now();
            let step = self.step().await;
            self.blocks.adapt(step.is_ok());
            let Some(texts) = step? else { break };
            removed += texts;
            pace::rest(started.elapsed()).await;
        }
        self.show().await?;
        Ok(removed)
    }

    /// One transaction; how many texts it removed. None if nothing is due, or another instance is at it.
    async fn step(&self) -> sqlx::Result<Option<u64>> {
        let texts = sqlx::query_scalar!("select erase_messages($1)", self.blocks.size()).fetch_one(&self.pool).await?;
        let texts = texts.map(i64::unsigned_abs);
        counter!(ERASED_MESSAGES_TOTAL).increment(texts.unwrap_or(0));
        Ok(texts)
    }

    async fn show(&self) -> sqlx::Result<()> {
        let pending = sqlx::query!(
            r#"select count(*) as "count!",
                   coalesce(extract(epoch from now() - min(requested_at)), 0)::double precision as "oldest!"
               from erasures where erased_at is null"#
        )
        .fetch_one(&self.pool)
        .await?;
        gauge!(ERASURES_PENDING).set(u32::try_from(pending.count).unwrap_or(u32::MAX));
        gauge!(ERASURES_OLDEST_SECONDS).set(pending.oldest);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
