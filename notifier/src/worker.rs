//! Reads one part of the log, has each batch delivered, and only then settles it.
//!
//! **Invariant:** an entry is settled as done only after its event stands in the inboxes of its whole audience.

use std::time::Duration;

use chat_shared::log::{Consumer, Entry, Outcome};
use tokio_util::sync::CancellationToken;

use crate::{
    deliverer::{Deliverer, Delivering, NotDelivered},
    news::News,
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
    // Cancel safe: what was read and not returned is read again.
    while let Some(entries) = draining.run_until_cancelled(consumer.batch()).await {
        let (entries, events) = readable(entries, shows_text).await;
        if entries.is_empty() {
            continue;
        }
        let outcome = deliverer.deliver(events).await;
        for entry in &entries {
            match outcome {
                Ok(()) => entry.settle(Outcome::Done).await,
                Err(NotDelivered) => entry.settle(Outcome::RetryAfter(rest(entry.deliveries))).await,
            }
        }
        if outcome.is_err() {
            metrics::counter!(telemetry::RETRIES_TOTAL).increment(entries.len() as u64);
        }
    }
    consumer.release().await;
    Ok(())
}

/// Sorts out what is no event or stands where none of its kind belongs; the persister keeps it as a dead letter.
async fn readable(entries: Vec<Entry>, shows_text: bool) -> (Vec<Entry>, Vec<Delivering>) {
    let mut kept = Vec::with_capacity(entries.len());
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.event() {
            Ok(event) => {
                let addressed = Addressed {
                    event: entry.payload().clone(),
                    stream_seq: entry.stream_seq,
                    audience: event.audience().collect(),
                };
                events.push(Delivering {
                    addressed,
                    sent_at: event.sent_at,
                    is_fresh: entry.deliveries == 1,
                    news: News::of(event, shows_text),
                });
                kept.push(entry);
            }
            Err(error) => {
                metrics::counter!(telemetry::UNREADABLE_TOTAL).increment(1);
                tracing::warn!(stream_seq = entry.stream_seq.0, %error, "an entry of the log is delivered to nobody");
                entry.settle(Outcome::Discard).await;
            }
        }
    }
    (kept, events)
}

fn rest(deliveries: u64) -> Duration {
    RETRY_DELAY * u32::try_from(deliveries).unwrap_or(u32::MAX).clamp(1, RETRY_GROWTH_MAX)
}
