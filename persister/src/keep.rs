//! Stores what can be stored and returns what can't: retries transient failures, halves a refused batch until the
//! offending entry is alone, and makes missing partitions.

use std::{collections::HashMap, fmt::Display, io, slice, sync::Arc, time::Duration};

use chat_shared::{
    clock::{Clock, Day},
    limits,
    position::StreamSeq,
    telemetry::Latch,
};
use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Item},
    evidence::Evidence,
    failure::{self, Failure},
    metrics as names,
    source::{Source, Unverified},
    store::{DeadLetter, Store, Stored},
};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// A transaction that takes longer counts as failed; a server that is frozen would never answer.
const TRANSACTION_WAIT_MAX: Duration = Duration::from_secs(20);
/// Partitions are made for events that may still lie in the log, and for clocks that are ahead.
const DAYS_AHEAD_MAX: i32 = 7;
#[expect(clippy::cast_possible_truncation, reason = "the log keeps events for days, not for millions of years")]
const DAYS_BACK_MAX: i32 = (limits::LOG_AGE_MAX.as_secs() / 86_400) as i32 + 1;

/// Stores batches, come what may.
pub struct Keeper {
    /// The tables.
    pub store: Store,
    /// The log whose checkpoint the entries move; none if they move none.
    pub source: Option<Source>,
    /// What day it is.
    pub clock: Clock,
    /// Whether PostgreSQL answers.
    pub postgres: Latch,
    /// Ends the retries.
    pub draining: CancellationToken,
    /// Ends the retries too; none to go on for ever.
    pub attempts_max: Option<u32>,
    /// Decides which refused entries are at fault themselves.
    pub evidence: Arc<Mutex<Evidence>>,
    /// The counter of messages that were new.
    pub rows_metric: &'static str,
}

/// What becomes of an entry that was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is a dead letter.
    Buried,
    /// It is to be tried again later.
    Held,
}

/// An entry that was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// Why.
    pub reason: String,
    /// Whether the entry itself is at fault. If not, the schema may be, and the entry waits.
    pub is_proven: bool,
}

/// The database did not come back in time; what was not stored is to be tried again later.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL could not store the entries: {0}")]
pub struct GaveUp(String);

enum Placed {
    Stored,
    Refused(String),
}

impl Keeper {
    /// Stores `items`, except those that it returns.
    pub async fn keep(&self, items: &[Item]) -> Result<Vec<Refusal>, GaveUp> {
        let (mut refusals, mut doubtful) = (Vec::new(), Vec::new());
        let mut pending = if items.is_empty() { Vec::new() } else { vec![items] };
        while let Some(part) = pending.pop() {
            match (self.place(part).await?, part) {
                (Placed::Stored, _) => {}
                (Placed::Refused(reason), [item]) if self.is_proven(item) => refusals.push(refusal(item, reason, true)),
                (Placed::Refused(reason), [item]) => doubtful.push((item, reason)),
                (Placed::Refused(_), _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    pending.extend([second, first]);
                }
            }
        }
        // Once more, if something was stored since: the fault may have been mended in between.
        for (item, reason) in doubtful {
            if !self.is_proven(item) {
                refusals.push(refusal(item, reason, false));
            } else if let Placed::Refused(reason) = self.place(slice::from_ref(item)).await? {
                refusals.push(refusal(item, reason, true));
            }
        }
        Ok(refusals)
    }

    /// Stores entries of the log, each with its position, subject and bytes, or sets them aside. Returns those that were
    /// not stored.
    pub async fn settle(
        &self,
        stream_name: &str,
        entries: &[(StreamSeq, &str, &[u8])],
    ) -> Result<HashMap<StreamSeq, Fate>, GaveUp> {
        let (mut items, mut refusals) = (Vec::with_capacity(entries.len()), Vec::new());
        for (stream_seq, subject, payload) in entries {
            match Item::read(*stream_seq, subject, payload) {
                Ok(item) => items.push(item),
                // The entry alone is at fault, whatever the database is like.
                Err(error) => {
                    refusals.push(Refusal { stream_seq: *stream_seq, reason: error.to_string(), is_proven: true });
                }
            }
        }
        refusals.extend(self.keep(&items).await?);
        let waiting: Vec<_> = refusals.iter().filter(|refusal| !refusal.is_proven).collect();
        if let Some(first) = waiting.first() {
            self.hold(waiting.len(), &first.reason).await?;
        }
        let mut fates = HashMap::new();
        for Refusal { stream_seq, reason, is_proven } in refusals {
            let Some((_, subject, payload)) = entries.iter().find(|(at, ..)| *at == stream_seq) else { continue };
            let (subject, payload) = ((*subject).to_owned(), payload.to_vec());
            let letter = DeadLetter { stream_seq, subject, payload, reason };
            let is_buried = is_proven && self.bury(stream_name, &letter).await?;
            fates.insert(stream_seq, if is_buried { Fate::Buried } else { Fate::Held });
        }
        Ok(fates)
    }

    fn is_proven(&self, item: &Item) -> bool {
        self.evidence.lock().is_against(item)
    }

    /// Reports entries that have to wait, and waits itself: longer each time, until something is stored.
    pub async fn hold(&self, entries: usize, reason: &str) -> Result<(), GaveUp> {
        counter!(names::HELD_TOTAL).increment(entries as u64);
        let delay = retry_delay(self.evidence.lock().note_fruitless());
        tracing::error!(
            entries,
            reason,
            retry_after_ms = delay.as_millis(),
            "PostgreSQL refuses entries and has stored none of their kind since: they wait, and none is set aside"
        );
        let waited = self.draining.run_until_cancelled(tokio::time::sleep(delay)).await;
        waited.ok_or_else(|| GaveUp(reason.to_owned()))
    }

    async fn place(&self, items: &[Item]) -> Result<Placed, GaveUp> {
        let batch = Batch::of(items);
        let (mut failures, mut has_partitions) = (0, false);
        loop {
            let started = Instant::now();
            let log = self.source.as_ref().map(|source| &source.state);
            let error = match bounded(self.store.store(&batch, log)).await {
                Ok(None) => {
                    self.verify(&mut failures).await?;
                    continue;
                }
                Ok(Some(stored)) => {
                    self.postgres.set(true);
                    self.measure(&batch, items.len(), stored, started.elapsed());
                    self.evidence.lock().note_stored(items, stored);
                    return Ok(Placed::Stored);
                }
                Err(error) => error,
            };
            match failure::classify(&error) {
                Failure::Data => return Ok(self.refused(items, failure::reason(&error))),
                // Whether this instance or another one made them: the next attempt shows whether they take the batch.
                Failure::MissingPartition if !has_partitions => {
                    self.make_partitions(&batch).await?;
                    has_partitions = true;
                }
                Failure::MissingPartition if batch.days.iter().any(|day| !self.is_plausible(*day)) => {
                    let reason = "no partition takes its day, and it is too far off to make one";
                    return Ok(self.refused(items, reason.to_owned()));
                }
                Failure::MissingPartition | Failure::Transient => self.pause(&mut failures, &error).await?,
            }
        }
    }

    /// Lets a database be written that may have come back older: once what it may lack has been recorded.
    async fn verify(&self, failures: &mut u32) -> Result<(), GaveUp> {
        let Some(source) = &self.source else { return Ok(()) };
        match tokio::time::timeout(TRANSACTION_WAIT_MAX, source.verify(&self.store)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => self.pause(failures, &error).await,
            Err(_) => self.pause(failures, &Unverified::from(no_answer())).await,
        }
    }

    fn refused(&self, items: &[Item], reason: String) -> Placed {
        self.evidence.lock().note_refused(items);
        Placed::Refused(reason)
    }

    fn is_plausible(&self, day: Day) -> bool {
        is_plausible(day, self.clock.now().day())
    }

    fn measure(&self, batch: &Batch, events: usize, stored: Stored, elapsed: Duration) {
        counter!(self.rows_metric).increment(stored.messages);
        counter!(names::READS_TOTAL).increment(stored.reads);
        counter!(names::BATCHES_TOTAL).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "a batch has hundreds of entries, an age is shown to people")]
        let (events, age_ms) = (events as f64, (self.clock.now().0 - batch.newest.0) as f64);
        histogram!(names::BATCH_EVENTS).record(events);
        histogram!(names::COMMIT_SECONDS).record(elapsed);
        if self.source.is_some() {
            gauge!(names::STORED_AGE_SECONDS).set((age_ms / 1000.0).max(0.0));
        }
    }

    /// Makes the partitions of the batch's days that are plausible.
    async fn make_partitions(&self, batch: &Batch) -> Result<(), GaveUp> {
        for &day in batch.days.iter().filter(|day| self.is_plausible(**day)) {
            let mut failures = 0;
            let is_new = loop {
                match bounded(self.store.make_partition(day)).await {
                    Ok(is_new) => break is_new,
                    Err(error) => self.pause(&mut failures, &error).await?,
                }
            };
            if is_new {
                tracing::warn!(day = day.0, "a day's partition was missing and has been made; is retention running?");
                counter!(names::PARTITIONS_MADE_TOTAL).increment(1);
            }
        }
        Ok(())
    }

    /// Puts an entry in the dead letters; whether it is there now. If not, it is to be tried again later.
    pub async fn bury(&self, stream_name: &str, letter: &DeadLetter) -> Result<bool, GaveUp> {
        let mut failures = 0;
        loop {
            let log = self.source.as_ref().map(|source| &source.state);
            let error = match bounded(self.store.bury(stream_name, letter, log)).await {
                Ok(false) => {
                    self.verify(&mut failures).await?;
                    continue;
                }
                Ok(true) => {
                    tracing::error!(
                        stream_seq = letter.stream_seq.0,
                        reason = letter.reason,
                        "an entry of the log can't be stored and is kept as a dead letter; see `chat-persister replay`"
                    );
                    counter!(names::DEAD_LETTERS_TOTAL).increment(1);
                    self.evidence.lock().forget([letter.stream_seq]);
                    return Ok(true);
                }
                Err(error) => error,
            };
            if failure::classify(&error) != Failure::Transient {
                tracing::error!(
                    stream_seq = letter.stream_seq.0,
                    reason = letter.reason,
                    %error,
                    "an entry of the log can neither be stored nor kept as a dead letter; it stays in the log"
                );
                return Ok(false);
            }
            self.pause(&mut failures, &error).await?;
        }
    }

    /// Waits before the next attempt, longer each time, unless there is to be none.
    async fn pause(&self, failures: &mut u32, error: &(dyn Display + Sync)) -> Result<(), GaveUp> {
        let gave_up = || GaveUp(error.to_string());
        *failures += 1;
        self.postgres.set(false);
        if self.draining.is_cancelled() || self.attempts_max.is_some_and(|max| *failures >= max) {
            return Err(gave_up());
        }
        counter!(names::RETRIES_TOTAL).increment(1);
        let delay = retry_delay(*failures);
        tracing::warn!(
            %error,
            failures,
            retry_after_ms = delay.as_millis(),
            "PostgreSQL did not take a batch, trying again"
        );
        self.draining.run_until_cancelled(tokio::time::sleep(delay)).await.ok_or_else(gave_up)
    }
}

fn refusal(item: &Item, reason: String, is_proven: bool) -> Refusal {
    Refusal { stream_seq: item.stream_seq, reason, is_proven }
}

async fn bounded<T>(statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    // Whether a commit that was cut off took place is unknown, and doesn't matter: storing again is harmless.
    tokio::time::timeout(TRANSACTION_WAIT_MAX, statement).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer from PostgreSQL in time"))
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_DELAY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY_DELAY_MAX)
}

const fn is_plausible(day: Day, today: Day) -> bool {
    today.0.saturating_sub(DAYS_BACK_MAX) <= day.0 && day.0 <= today.0.saturating_add(DAYS_AHEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_its_bound() {
        assert_eq!(retry_delay(1), RETRY_DELAY_MIN);
        assert_eq!(retry_delay(3), Duration::from_millis(400));
        assert_eq!(retry_delay(u32::MAX), RETRY_DELAY_MAX);
    }

    #[test]
    fn partitions_are_made_for_whatever_the_log_may_still_hold() {
        let today = Day(20_000);
        for days in [-8, -1, 0, 7] {
            assert!(is_plausible(today.plus(days), today), "{days}");
        }
        for days in [i32::MIN, -9, 8, i32::MAX] {
            assert!(!is_plausible(today.plus(days), today), "{days}");
        }
    }
}
