//! Reads one part of the log, has each batch delivered, and only then settles it.
//!
//! **Invariant:** an entry is settled as done only after its event stands in the inboxes of its whole audience, and its
//! notifications in their queue, or in memory while the queue can't be reached.

use std::time::Duration;

use chat_shared::{
    lifecycle::isolated,
    log::{Consumer, Entry, NotAnEntry, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    deliverer::{Deliverer, Delivering},
    news::News,
    occasionally::Occasionally,
    plan::Addressed,
    telemetry,
};

/// How long an entry that could not be delivered rests, for each time it has been tried.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Tries after which the rest grows no longer.
const RETRY_GROWTH_MAX: u32 = 5;

/// Works on what the consumer reads until `draining`, then finishes the batch in hand and lets another instance take
/// over. `shows_text` says whether notifications show what was written.
pub async fn run(
    mut consumer: Consumer,
    deliverer: Deliverer,
    shows_text: bool,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let complaints = Occasionally::default();
    // Cancel safe: what was read and not returned is read again.
    while let Some(entries) = draining.run_until_cancelled(consumer.batch()).await {
        let (entries, events) = readable(entries, shows_text, &complaints).await;
        if entries.is_empty() {
            continue;
        }
        let Ok(filing) = deliverer.deliver(events).await else {
            metrics::counter!(telemetry::RETRIES_TOTAL).increment(entries.len() as u64);
            for entry in &entries {
                entry.settle(Outcome::RetryAfter(rest(entry.deliveries))).await;
            }
            continue;
        };
        let is_filed = match filing {
            Some(filing) => filing.await.is_ok(),
            None => true,
        };
        // If not, the process ends, and another instance is given them.
        if is_filed {
            for entry in &entries {
                entry.settle(Outcome::Done).await;
            }
        }
    }
    consumer.release().await;
    Ok(())
}

/// Sorts out entries that are no events or on a wrong subject. The persister keeps them as dead letters.
async fn readable(entries: Vec<Entry>, shows_text: bool, complaints: &Occasionally) -> (Vec<Entry>, Vec<Delivering>) {
    let mut kept = Vec::with_capacity(entries.len());
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        let error = match isolated("entry", || delivering(&entry, shows_text)) {
            Ok(Ok(event)) => {
                events.push(event);
                kept.push(entry);
                continue;
            }
            Ok(Err(error)) => {
                metrics::counter!(telemetry::UNREADABLE_TOTAL).increment(1);
                error.to_string()
            }
            Err(panicked) => {
                metrics::counter!(telemetry::PANICS_TOTAL).increment(1);
                panicked.to_string()
            }
        };
        if complaints.is_due() {
            tracing::warn!(stream_seq = entry.stream_seq.0, error, "an entry of the log is delivered to nobody");
        }
        entry.settle(Outcome::Discard).await;
    }
    (kept, events)
}

fn delivering(entry: &Entry, shows_text: bool) -> Result<Delivering, NotAnEntry> {
    let event = entry.event()?;
    let addressed = Addressed {
        event: entry.payload().clone(),
        stream_seq: entry.stream_seq,
        audience: event.audience().collect(),
        lsn: event.lsn(),
    };
    let (sent_at, is_fresh) = (event.sent_at, entry.deliveries == 1);
    Ok(Delivering { addressed, sent_at, is_fresh, news: News::of(event, shows_text) })
}

fn rest(deliveries: u64) -> Duration {
    RETRY_DELAY * u32::try_from(deliveries).unwrap_or(u32::MAX).clamp(1, RETRY_GROWTH_MAX)
}
