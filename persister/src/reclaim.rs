//! Removes from the beginning of the log what is stored and delivered, before a full log refuses messages.
//!
//! **Invariant:** nothing is removed that PostgreSQL may not hold, that a consumer has yet to settle, or that an append or
//! a repeat may still refer to.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chat_shared::{
    limits,
    log::{Log, LogError, Usage},
    position::StreamSeq,
};
use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{gaps, metrics as names, store::Store};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two notes of how far the log went.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);

/// When entries are removed, and which.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Share of the log's bytes, in percent, over which entries are removed …
    pub begin_percent: u64,
    /// … down to this share.
    pub end_percent: u64,
    /// Entries that were there for a shorter time stay: the log recognises repeats by them, and an append that follows one
    /// may be on its way.
    pub age_min: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { begin_percent: 80, end_percent: 70, age_min: limits::DUPLICATE_WINDOW + Duration::from_mins(5) }
    }
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
pub enum ReclaimError {
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// PostgreSQL does not answer.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Removes entries when the log fills up.
#[derive(Debug, Default)]
pub struct Reclaimer {
    rules: Rules,
    /// How far the log went, and when this process saw that; oldest first. A clock that steps changes nothing.
    seen: VecDeque<(Instant, StreamSeq)>,
}

impl Reclaimer {
    /// With other rules.
    #[cfg(test)]
    pub fn new(rules: Rules) -> Self {
        Self { rules, seen: VecDeque::new() }
    }

    /// Looks every few seconds, until `draining`.
    pub async fn run(mut self, log: Log, store: Store, pool: PgPool, draining: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Cancel safe: a removal is one request, and what it removed need not be known.
        while draining.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = draining.run_until_cancelled(self.look(&log, &store, &pool)).await {
                tracing::warn!(%error, "nothing can be removed from the log now");
            }
        }
    }

    /// Looks how full the log is, and removes what is over the bound and safe to remove. Gives how many entries.
    pub async fn look(&mut self, log: &Log, store: &Store, pool: &PgPool) -> Result<u64, ReclaimError> {
        let usage = log.usage().await?;
        self.note(usage.last, Instant::now());
        show(&usage);
        let Some(bytes_max) = usage.bytes_max else { return Ok(0) };
        if usage.bytes <= bytes_max / 100 * self.rules.begin_percent {
            return Ok(0);
        }
        let Some(excess) = usage.excess_over(bytes_max / 100 * self.rules.end_percent) else { return Ok(0) };
        let Some(safe) = self.safe(log, store, pool, &usage).await? else { return Ok(0) };
        let last = excess.min(safe);
        if last < usage.first {
            return Ok(0);
        }
        let removed = log.remove_up_to(last).await?;
        counter!(names::RECLAIMED_TOTAL).increment(removed);
        tracing::info!(
            removed,
            last = last.0,
            bytes = usage.bytes,
            "the log was filling up: stored entries are removed"
        );
        Ok(removed)
    }

    /// The last position that is old enough, stored and settled by all consumers.
    async fn safe(
        &self,
        log: &Log,
        store: &Store,
        pool: &PgPool,
        usage: &Usage,
    ) -> Result<Option<StreamSeq>, ReclaimError> {
        let Some(old) = self.old(Instant::now()) else { return Ok(None) };
        let Some(settled) = log.settled(usage).await? else { return Ok(None) };
        // A database that came back older lacks what was settled, and stores it again from the log.
        let is_whole = store.note_acked(&log.state().await?, settled).await?;
        if !is_whole || gaps::count(pool, log.name()).await?.pending > 0 {
            return Ok(None);
        }
        // A dead letter may have the last number of its conversation, which then stands in the log alone. Counted last: it
        // is in the table before its entry is settled.
        if store.count_letters().await? > 0 {
            return Ok(None);
        }
        Ok(Some(old.min(settled)))
    }

    fn note(&mut self, last: StreamSeq, now: Instant) {
        if self.seen.back().is_none_or(|(at, _)| now >= *at + NOTE_INTERVAL.min(self.rules.age_min)) {
            self.seen.push_back((now, last));
        }
        // One that is old enough stays.
        while self.seen.get(1).is_some_and(|(at, _)| now >= *at + self.rules.age_min) {
            self.seen.pop_front();
        }
    }

    fn old(&self, now: Instant) -> Option<StreamSeq> {
        self.seen.front().filter(|(at, _)| now >= *at + self.rules.age_min).map(|(_, last)| *last)
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; a log has fewer than 2^53 bytes")]
fn show(usage: &Usage) {
    gauge!(names::LOG_BYTES).set(usage.bytes as f64);
    gauge!(names::LOG_BYTES_MAX).set(usage.bytes_max.map_or(f64::INFINITY, |bytes_max| bytes_max as f64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_seen_long_ago_is_old() {
        let (mut reclaimer, start) = (Reclaimer::default(), Instant::now());
        let age_min = reclaimer.rules.age_min;
        let at = |seconds| start + Duration::from_secs(seconds);
        for minute in 0..60 {
            reclaimer.note(StreamSeq(minute), at(minute * 60));
        }
        let old = age_min.as_secs() / 60;
        assert_eq!(reclaimer.old(at(59 * 60)), Some(StreamSeq(59 - old)));
        assert!(reclaimer.seen.len() <= usize::try_from(old).unwrap() + 1);
        let mut young = Reclaimer::default();
        young.note(StreamSeq(9), start);
        assert_eq!(young.old(start + age_min / 2), None, "it has not seen enough yet");
    }
}
