//! Looks now and then at how far storing lags behind the log, whether the log is still the same, and whether PostgreSQL
//! has come back older.

use std::time::Duration;

use chat_shared::{
    log::{Log, LogState},
    postgres::LogWatch,
    telemetry::Latch,
};
use metrics::gauge;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{gaps, metrics as names, source::Source, store::Store};

const INTERVAL: Duration = Duration::from_secs(5);

/// What is watched.
pub struct Watch {
    /// The database.
    pub pool: PgPool,
    /// The tables.
    pub store: Store,
    /// The log.
    pub log: Log,
    /// The log as PostgreSQL is compared with it.
    pub source: Source,
    /// Whether PostgreSQL answers.
    pub postgres: Latch,
}

impl Watch {
    /// Watches until `draining`. Fails if the log has been lost or exchanged while this process runs.
    pub async fn run(self, draining: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = LogWatch::default();
        // Cancel safe: it only looks.
        while draining.run_until_cancelled(ticks.tick()).await.is_some() {
            match draining.run_until_cancelled(watch.look(&self.pool, &self.log)).await {
                None => break,
                Some(looked) => match looked? {
                    Some(state) => {
                        if let Err(error) = self.source.look(&self.store).await {
                            tracing::warn!(%error, "PostgreSQL can't be compared with the log, trying again");
                        }
                        self.postgres.set(self.show(&state).await.is_ok());
                    }
                    None => self.postgres.set(self.store.count_letters().await.is_ok()),
                },
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; nobody needs a lag of 2^53 to the digit")]
    async fn show(&self, state: &LogState) -> sqlx::Result<()> {
        let stored = self.store.checkpoint(&state.name).await?.unwrap_or_default();
        let lag = state.last.0.saturating_sub(stored.0);
        gauge!(names::LAG_EVENTS).set(lag as f64);
        if lag == 0 {
            gauge!(names::STORED_AGE_SECONDS).set(0);
        }
        let gaps = gaps::count(&self.pool, &state.name).await?;
        gauge!(names::GAP_EVENTS).set(gaps.pending as f64);
        gauge!(names::GAP_LOST_EVENTS).set(gaps.lost as f64);
        gauge!(names::DEAD_LETTERS).set(self.store.count_letters().await? as f64);
        Ok(())
    }
}
