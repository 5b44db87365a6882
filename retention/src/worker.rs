//! Prepares at the start and every hour, and sooner again after a failure.

use std::time::Duration;

use anyhow::Context;
use chat_shared::{
    clock::{Clock, Day},
    postgres,
    sealing::MasterKeys,
    telemetry::Latch,
};
use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{FAILURES_TOTAL, KEYS_AHEAD_DAYS, KEYS_DAMAGED, PARTITIONS_AHEAD_DAYS},
    pace::retry_delay,
    prepare::{Prepared, prepare},
};

const INTERVAL: Duration = Duration::from_hours(1);
/// Spreads instances that were started together.
const JITTER_MAX: Duration = Duration::from_mins(5);

/// Keeps the coming days prepared.
pub struct Worker {
    /// The database.
    pub pool: PgPool,
    /// What day it is.
    pub clock: Clock,
    /// Wrap the content keys.
    pub master_keys: MasterKeys,
    /// Set after the first success.
    pub prepared: Latch,
}

impl Worker {
    /// Works until `draining`. Fails only on what no retry can mend.
    pub async fn run(self, draining: CancellationToken) -> anyhow::Result<()> {
        let mut last = None;
        let mut failures = 0;
        loop {
            // Dropping a preparation half-way is harmless: each of its statements stands alone.
            let Some(attempt) = draining.run_until_cancelled(self.attempt()).await else { return Ok(()) };
            if let Some(prepared) = attempt? {
                failures = 0;
                last = Some(prepared);
                self.prepared.set(true);
            } else {
                failures += 1;
                counter!(FAILURES_TOTAL).increment(1);
            }
            show_days_ahead(last, self.clock.now().day());
            let delay =
                if failures == 0 { INTERVAL + JITTER_MAX.mul_f64(rand::random()) } else { retry_delay(failures) };
            if draining.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// One preparation; nothing if it failed for now.
    async fn attempt(&self) -> anyhow::Result<Option<Prepared>> {
        match postgres::check(&self.pool).await {
            Ok(_) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "trying again");
                return Ok(None);
            }
            Err(error) => return Err(error).context("the database can't be used"),
        }
        match prepare(&self.pool, &self.clock, &self.master_keys).await {
            Ok(prepared) => {
                gauge!(KEYS_DAMAGED).set(u32::try_from(prepared.keys_unopened).unwrap_or(u32::MAX));
                tracing::info!(
                    partitions_made = prepared.partitions_made,
                    keys_made = prepared.keys_made,
                    "the coming days are prepared"
                );
                Ok(Some(prepared))
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "partitions and keys could not be prepared, trying again");
                Ok(None)
            }
            Err(error) => Err(error).context("preparing partitions and keys"),
        }
    }
}

/// Counts from what the last success left, so that the gauges fall while nothing succeeds.
fn show_days_ahead(last: Option<Prepared>, today: Day) {
    let ahead = |until: Option<Day>| f64::from(until.map_or(0, |until| until.0 - today.0));
    gauge!(PARTITIONS_AHEAD_DAYS).set(ahead(last.map(Prepared::partitions_until)));
    gauge!(KEYS_AHEAD_DAYS).set(ahead(last.map(Prepared::keys_until)));
}
