//! Moves the bodies of old messages into packs in an object store, day after day (R12.3). It has no master key and no
//! content keys: bodies stay sealed.
//!
//! **Invariants:** a body leaves PostgreSQL only after its pack was stored, read back and found equal, and is kept beside it for
//! another day. PostgreSQL decides what is due and what is allowed. Each step is found as the last one left it, so that
//! instances may end anywhere; a lease in PostgreSQL keeps two from packing the same day.

mod by_hand;
mod rewrite;
pub mod steps;
mod sweep;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_cold::{
    pack::{Draft, Malformed, Pack, sha256},
    store::{PutError, Store, StoreError},
};
use chat_shared::telemetry::Latch;
use metrics::{counter, gauge};
use sqlx::PgPool;
use time::Date;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use by_hand::{verify, warm};

use crate::{
    metrics::{COLD_BYTES_TOTAL, COLD_DAYS_DUE, COLD_FAILURES_TOTAL, COLD_MESSAGES_TOTAL},
    pace::Rhythm,
};
use steps::{PackRow, Step};

/// Between two passes.
const INTERVAL: Duration = Duration::from_mins(1);
/// Between two sweeps of the store.
const SWEEP_INTERVAL: Duration = Duration::from_hours(24);
/// Bytes of a pack, and at most the bodies of one read more.
const PACK_BYTES: usize = 32 * 1024 * 1024;
/// Bodies of one read from PostgreSQL.
const ROWS_MAX: i64 = 2000;

/// Moves bodies, for as long as it runs.
pub struct Cold {
    pool: PgPool,
    store: Store,
    after_days: i32,
    /// This instance, in leases.
    holder: Uuid,
    swept_at: Option<Instant>,
    pack_bytes: usize,
}

/// Why a step was not done. All of it may pass.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// PostgreSQL refused or did not answer.
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    /// The store refused or did not answer.
    #[error("the object store: {0}")]
    Store(#[from] StoreError),
    /// The store did not take a pack.
    #[error("the object store: {0}")]
    Put(#[from] PutError),
    /// The store gave other bytes than it was given.
    #[error("the object store gives other bytes of {object} than were stored: nothing local is removed")]
    Differs {
        /// The name in the store.
        object: String,
    },
    /// A pack that is as it was stored can't be read as one.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The work of one pass.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Steps that were done.
    pub done: u32,
    /// Days whose next step failed.
    pub failures: u32,
}

impl Cold {
    /// Over the tables behind `pool`; bodies move when their day is over for `after_days`.
    pub fn new(pool: PgPool, store: Store, after_days: i32) -> Self {
        Self { pool, store, after_days, holder: Uuid::new_v4(), swept_at: None, pack_bytes: PACK_BYTES }
    }

    /// Works until `draining`, and sets `passed` after the first pass without a failure. Failed passes are tried again.
    pub async fn run(mut self, passed: Latch, draining: CancellationToken) {
        let mut rhythm = Rhythm::every(INTERVAL);
        // Dropping a pass half-way is harmless: an object that is not recorded is swept.
        while let Some(pass) = draining.run_until_cancelled(self.pass()).await {
            if let Err(error) = &pass {
                tracing::warn!(%error, "texts can't be moved, trying again");
                counter!(COLD_FAILURES_TOTAL).increment(1);
            }
            let has_succeeded = pass.is_ok_and(|pass| pass.failures == 0);
            if has_succeeded {
                passed.set(true);
            }
            if !rhythm.pause(has_succeeded, &draining).await {
                return;
            }
        }
    }

    /// Takes each day as far as it is due, the oldest first. Fails if PostgreSQL can't be asked, or the store can't be swept.
    pub async fn pass(&mut self) -> Result<Pass, ColdError> {
        let mut pass = Pass::default();
        let days = steps::due(&self.pool, self.after_days).await?;
        show_due(&days);
        for (day, _) in days {
            match self.advance(day, &mut pass).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, %day, "a step of moving texts failed, trying again");
                    counter!(COLD_FAILURES_TOTAL).increment(1);
                    pass.failures += 1;
                }
            }
        }
        show_due(&steps::due(&self.pool, self.after_days).await?);
        if self.swept_at.is_none_or(|swept_at| swept_at.elapsed() >= SWEEP_INTERVAL) {
            sweep::sweep(&self.pool, &self.store).await?;
            self.swept_at = Some(Instant::now());
        }
        Ok(pass)
    }

    async fn advance(&self, day: Date, pass: &mut Pass) -> Result<(), ColdError> {
        while let Some(step) = steps::next(&self.pool, self.after_days, day).await? {
            if !self.perform(day, step).await? {
                return Ok(());
            }
            pass.done += 1;
        }
        Ok(())
    }

    /// One step; false if another instance is at the day.
    async fn perform(&self, day: Date, step: Step) -> Result<bool, ColdError> {
        // No lease is needed: the day has aged out, and deleting is repeatable.
        if step != Step::DeletePacks && !steps::hold(&self.pool, day, self.holder).await? {
            return Ok(false);
        }
        match step {
            Step::Pack => self.pack(day).await?,
            Step::Copy => {
                let messages = steps::copy(&self.pool, day, self.holder).await?;
                tracing::info!(%day, messages, "the rows of a day are copied without texts");
            }
            Step::Swap => {
                steps::swap(&self.pool, day, self.holder).await?;
                tracing::info!(%day, "the texts of a day are in the object store");
            }
            Step::DropWarm => {
                for pack in steps::packs(&self.pool, day).await? {
                    self.read_back(&pack.object, &pack.sha256).await?;
                }
                steps::drop_warm(&self.pool, day, self.holder).await?;
                tracing::info!(%day, "the texts of a day are only in the object store");
            }
            Step::Rewrite => self.rewrite(day).await?,
            Step::DeletePacks => {
                sweep::delete_day(&self.store, day).await?;
                steps::forget_packs(&self.pool, day).await?;
                tracing::info!(%day, "the packs of a day are deleted");
            }
        }
        Ok(true)
    }

    /// Packs what is not packed of a day.
    async fn pack(&self, day: Date) -> Result<(), ColdError> {
        let (mut number, mut after) = steps::resume(&self.pool, day).await?;
        loop {
            let mut draft = Draft::default();
            loop {
                let bodies = steps::bodies(&self.pool, day, after, ROWS_MAX).await?;
                let is_last = bodies.is_empty();
                for body in bodies {
                    after = Some(body.key);
                    draft.push(body.key, body.envelope);
                }
                if is_last || draft.bytes_max() >= self.pack_bytes {
                    break;
                }
            }
            let Some(pack) = draft.finish() else { break };
            self.store_pack(day, number, pack).await?;
            number += 1;
        }
        steps::finish_packs(&self.pool, day, self.holder).await?;
        Ok(())
    }

    async fn store_pack(&self, day: Date, number: i32, pack: Pack) -> Result<(), ColdError> {
        let object = self.put(day, number, &pack).await?;
        steps::record(&self.pool, day, self.holder, number, &object, &pack).await?;
        counter!(COLD_MESSAGES_TOTAL).increment(pack.messages);
        counter!(COLD_BYTES_TOTAL).increment(u64::try_from(pack.bytes.len()).unwrap_or(u64::MAX));
        tracing::info!(%day, number, messages = pack.messages, bytes = pack.bytes.len(), "a pack is stored");
        Ok(())
    }

    /// Stores a pack and reads it back; the name it has.
    async fn put(&self, day: Date, number: i32, pack: &Pack) -> Result<String, ColdError> {
        // Of an attempt whose outcome is unknown the next one has another name.
        let object = format!("{}{number}-{:016x}.pack", prefix(day), rand::random::<u64>());
        self.store.put_new(&object, pack.bytes.clone()).await?;
        self.read_back(&object, &pack.sha256).await?;
        Ok(object)
    }

    async fn read_back(&self, object: &str, expected: &[u8]) -> Result<(), ColdError> {
        read_equal(&self.store, object, expected).await.map(drop)
    }
}

fn show_due(days: &[(Date, Step)]) {
    gauge!(COLD_DAYS_DUE).set(u32::try_from(days.len()).unwrap_or(u32::MAX));
}

/// The object, if it has this SHA-256.
async fn read_equal(store: &Store, object: &str, expected: &[u8]) -> Result<Bytes, ColdError> {
    let bytes = store.read(object).await?;
    if sha256(&bytes) == expected { Ok(bytes) } else { Err(ColdError::Differs { object: object.to_owned() }) }
}

/// What the names of a day's packs begin with.
fn prefix(day: Date) -> String {
    format!("{:04}/{:02}/{:02}/", day.year(), u8::from(day.month()), day.day())
}

/// The name of a pack in a log line or an answer: day and number.
fn name(day: Date, pack: &PackRow) -> String {
    format!("pack {} of {day}", pack.number)
}

/// Writes, reads and deletes an object of its own, as the worker does. Gives whether the bucket keeps versions.
pub async fn check_store(store: &Store) -> Result<bool, ColdError> {
    let object = format!("check/{:016x}", rand::random::<u64>());
    let body = Bytes::from_static(b"chat-retention cold --check-config");
    store.put_new(&object, body.clone()).await?;
    let answer = read_equal(store, &object, &sha256(&body)).await;
    let keeps_versions = store.keeps_versions(&object).await;
    store.delete(&object).await?;
    answer?;
    Ok(keeps_versions?)
}
