//! Ages days of messages out: each is soft-deleted at the start (UTC) of the 91st day after it, and removed for good at
//! the start of the 98th.
//!
//! **Invariants:** PostgreSQL decides what is due, by its own clock and the state of the day in `message_days`, so a
//! clock that is wrong here changes nothing. Each step is one transaction that finds the day as the last one left it,
//! so that instances may end anywhere and work side by side.

mod steps;

use std::time::{Duration, Instant};

use chat_shared::config_check::Report;
use metrics::{counter, gauge, histogram};
use sqlx::PgPool;
use time::Date;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{
        AGEING_FAILURES_TOTAL, DAYS, FLOORS_RAISED_TOTAL, KEYS_DESTROYED_TOTAL, LOCK_ATTEMPTS_TOTAL, LOCK_SECONDS,
        OLDEST_DAY_AGE_DAYS, PARTITION_FAULTS,
    },
    pace::{self, Batch, Rhythm},
};

use steps::Step;

/// Between two passes.
const INTERVAL: Duration = Duration::from_mins(1);
/// Attempts to get the lock for a step of a day in one pass. Each makes readers and writers of messages wait for 50 ms
/// at the most.
const ATTEMPTS_MAX: u32 = 5;
/// After the first attempt that got no lock; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// After so many attempts without the lock a pass leaves all steps that need the lock of all days to the next pass.
const REFUSALS_MAX: u32 = 10;
/// Conversations, or rows of each ledger, of a transaction.
const BATCH_MAX: i32 = 1000;
const BATCH_MIN: i32 = 10;
/// How long PostgreSQL may take to say which partitions have faults, when settings are checked.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Ages days out, for as long as it runs.
#[derive(Debug)]
pub struct Ageing {
    pool: PgPool,
    batch: Batch,
    /// Faults of the partitions in the pass before.
    faults: Vec<String>,
}

/// The work of one pass.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Steps, and batches of steps, that were done.
    pub done: u32,
    /// Attempts that did not get a lock.
    pub refusals: u32,
    /// Days whose next step failed.
    pub failures: u32,
    /// Faults of partitions, because of which nothing was tried.
    pub faults: usize,
}

impl Ageing {
    /// Over the tables behind `pool`.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool, batch: Batch::new(BATCH_MIN, BATCH_MAX), faults: Vec::new() }
    }

    /// Works until `draining`. Failed passes and steps are tried again.
    pub async fn run(mut self, draining: CancellationToken) {
        let mut rhythm = Rhythm::every(INTERVAL);
        // Dropping a pass half-way is harmless: each of its statements is a transaction of its own.
        while let Some(pass) = draining.run_until_cancelled(self.pass()).await {
            if let Err(error) = &pass {
                tracing::warn!(%error, "days can't be aged out, trying again");
                counter!(AGEING_FAILURES_TOTAL).increment(1);
            }
            if !rhythm.pause(pass.is_ok(), &draining).await {
                return;
            }
        }
    }

    /// Takes each day as far as it is due, the oldest first. Fails if PostgreSQL can't be asked.
    pub async fn pass(&mut self) -> sqlx::Result<Pass> {
        let faults = steps::faults(&self.pool).await?;
        self.report(faults);
        let mut pass = Pass { faults: self.faults.len(), ..Pass::default() };
        if self.faults.is_empty() {
            steps::record_days(&self.pool).await?;
            for day in steps::due_days(&self.pool).await? {
                self.age(day, &mut pass).await?;
            }
        }
        self.show_days().await?;
        Ok(pass)
    }

    /// Logs faults when they change: everything else goes on, and the operator has to mend them.
    fn report(&mut self, faults: Vec<String>) {
        gauge!(PARTITION_FAULTS).set(u32::try_from(faults.len()).unwrap_or(u32::MAX));
        if faults == self.faults {
            return;
        }
        for fault in &faults {
            tracing::error!(fault, "no day ages out until this is mended");
        }
        if faults.is_empty() {
            tracing::info!("partitions of messages are as they should be again: days age out");
        }
        self.faults = faults;
    }

    /// Takes one day as far as it is due, unless another instance is at it.
    async fn age(&mut self, day: Date, pass: &mut Pass) -> sqlx::Result<()> {
        while let Some(step) = steps::next(&self.pool, day).await? {
            if step.locks_all_days() && pass.refusals >= REFUSALS_MAX {
                return Ok(());
            }
            let started = Instant::now();
            let outcome = self.attempt(day, step, pass).await;
            self.batch.adapt(outcome.is_ok());
            match outcome {
                Ok(Some(amount)) => {
                    pass.done += 1;
                    note(day, step, amount);
                    if step == Step::RaiseFloors {
                        pace::rest(started.elapsed()).await;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if is_lock_refused(&error) => {
                    tracing::debug!(%day, ?step, "others hold the lock of a step of ageing out, trying again");
                    return Ok(());
                }
                Err(error @ sqlx::Error::Database(_)) => {
                    tracing::warn!(%error, %day, ?step, "a step of ageing out failed, trying again");
                    counter!(AGEING_FAILURES_TOTAL).increment(1);
                    pass.failures += 1;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One step, tried again while others hold its lock; how much it changed. None if another instance is at the day.
    async fn attempt(&self, day: Date, step: Step, pass: &mut Pass) -> sqlx::Result<Option<i64>> {
        let mut pause = PAUSE_MIN;
        let mut attempts = 1;
        loop {
            let started = Instant::now();
            let outcome = steps::perform(&self.pool, day, step, self.batch.size()).await;
            let is_refused = outcome.as_ref().is_err_and(is_lock_refused);
            if is_refused {
                pass.refusals += 1;
            }
            if step.takes_lock() {
                counter!(LOCK_ATTEMPTS_TOTAL, "outcome" => if is_refused { "refused" } else { "taken" }).increment(1);
                histogram!(LOCK_SECONDS).record(started.elapsed());
            }
            if !is_refused || attempts >= ATTEMPTS_MAX {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempts += 1;
        }
    }

    async fn show_days(&self) -> sqlx::Result<()> {
        let days = steps::days(&self.pool).await?;
        for (state, count) in days.counts {
            gauge!(DAYS, "state" => state).set(u32::try_from(count).unwrap_or(u32::MAX));
        }
        gauge!(OLDEST_DAY_AGE_DAYS).set(days.oldest_age);
        Ok(())
    }
}

/// For `--check-config`: whether the partitions of messages have faults, because of which no day ages out.
pub async fn check(report: &mut Report, pool: Option<&PgPool>) {
    let Some(pool) = pool else { return };
    match tokio::time::timeout(ANSWER_MAX, steps::faults(pool)).await {
        Ok(Ok(faults)) if faults.is_empty() => report.ok("partitions of messages: days can age out"),
        Ok(Ok(faults)) => {
            for fault in faults {
                report.wrong(format_args!("partitions of messages: no day ages out until this is mended: {fault}"));
            }
        }
        Ok(Err(error)) => report.wrong(format_args!("partitions of messages: {error}")),
        Err(_) => report.wrong("partitions of messages: PostgreSQL doesn't answer"),
    }
}

fn note(day: Date, step: Step, amount: i64) {
    match step {
        Step::RaiseFloors => counter!(FLOORS_RAISED_TOTAL).increment(amount.unsigned_abs()),
        Step::SoftDelete => tracing::info!(%day, "the messages of a day are soft-deleted"),
        Step::DestroyKey => {
            counter!(KEYS_DESTROYED_TOTAL).increment(amount.unsigned_abs());
            tracing::info!(%day, "the content key of a day is destroyed");
        }
        Step::Drop => tracing::info!(%day, "the messages of a day are removed"),
        Step::Begin | Step::RewriteKeys | Step::Detach | Step::Forget => {}
    }
}

/// Whether others held the lock for longer than the step waits.
fn is_lock_refused(error: &sqlx::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

#[cfg(test)]
mod tests;
