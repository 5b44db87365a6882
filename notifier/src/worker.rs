//! Delivers one part of the log: routes each batch, publishes it, and only then settles it.
//!
//! **Invariant:** an entry is settled as done only after its event stands in the inboxes of its whole audience.

use std::time::{Duration, Instant};

use chat_shared::{
    clock::{Clock, Timestamp},
    inbox::{Inboxes, Routed, Routing},
    log::{Consumer, Entry, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    plan::{self, Addressed},
    publisher::{PublishError, Publisher},
    reachable::Reachable,
    telemetry,
};

/// How long an entry that could not be delivered rests, for each time it has been tried.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Tries after which the rest grows no longer.
const RETRY_GROWTH_MAX: u32 = 5;

/// What all workers share.
#[derive(Clone)]
pub struct Worker {
    /// Where events go first.
    pub inboxes: Inboxes,
    /// Whether that is worth trying.
    pub reachable: Reachable,
    /// Where they go then.
    pub publisher: Publisher,
    /// The time.
    pub clock: Clock,
}

/// An entry whose event can be read; the event itself stands beside it.
struct Delivering {
    entry: Entry,
    sent_at: Timestamp,
}

impl Worker {
    /// Delivers what the consumer reads until `draining`, then finishes the batch in hand and lets another instance
    /// take over.
    pub async fn run(self, mut consumer: Consumer, draining: CancellationToken) -> anyhow::Result<()> {
        // Cancel safe: what was read and not returned is read again.
        while let Some(entries) = draining.run_until_cancelled(consumer.batch()).await {
            let started = Instant::now();
            self.deliver(entries).await;
            metrics::histogram!(telemetry::BATCH_SECONDS).record(started.elapsed());
        }
        consumer.release().await;
        Ok(())
    }

    async fn deliver(&self, entries: Vec<Entry>) {
        let (delivering, events) = readable(entries).await;
        if delivering.is_empty() {
            return;
        }
        let delivered = if let Some(routed) = self.route(&events).await {
            self.note_routed(&delivering);
            self.publish_numbered(&events, routed).await
        } else {
            self.publish_unnumbered(&delivering, &events).await;
            Err(NotDelivered)
        };
        for Delivering { entry, .. } in &delivering {
            match delivered {
                Ok(()) => entry.settle(Outcome::Done).await,
                Err(NotDelivered) => entry.settle(Outcome::RetryAfter(rest(entry.deliveries))).await,
            }
        }
        if delivered.is_err() {
            metrics::counter!(telemetry::RETRIES_TOTAL).increment(delivering.len() as u64);
        }
    }

    /// The inboxes' answers, or none if Redis can't take the batch.
    async fn route(&self, events: &[Addressed]) -> Option<Vec<Routed>> {
        if !self.reachable.is_set() {
            return None;
        }
        let routings: Vec<_> = events
            .iter()
            .flat_map(|addressed| {
                addressed.audience.iter().map(|user_id| Routing { user_id: *user_id, event: &addressed.event })
            })
            .collect();
        match self.inboxes.route(&routings).await {
            Ok(routed) => Some(routed),
            Err(error) => {
                metrics::counter!(telemetry::REDIS_FAILURES_TOTAL).increment(1);
                self.reachable.clear(&error);
                None
            }
        }
    }

    fn note_routed(&self, delivering: &[Delivering]) {
        metrics::counter!(telemetry::ROUTED_TOTAL).increment(delivering.len() as u64);
        let lag = metrics::histogram!(telemetry::LAG_SECONDS);
        let now = self.clock.now();
        for Delivering { sent_at, .. } in delivering {
            lag.record(Duration::from_millis(now.0.saturating_sub(sent_at.0).max(0).unsigned_abs()));
        }
    }

    /// An event that is published twice because a later one was not is no harm: clients pass over repeats.
    async fn publish_numbered(&self, events: &[Addressed], routed: Vec<Routed>) -> Result<(), NotDelivered> {
        for (gateway_id, deliveries) in plan::numbered(events, routed) {
            for delivery in deliveries {
                self.publisher
                    .to_gateway(gateway_id, delivery.encode())
                    .await
                    .map_err(|error| not_delivered(&error))?;
            }
        }
        Ok(())
    }

    /// Each event once: on its first try. That it reaches the inboxes later does not depend on it.
    async fn publish_unnumbered(&self, delivering: &[Delivering], events: &[Addressed]) {
        let fresh: Vec<_> = delivering
            .iter()
            .zip(events)
            .filter(|(delivering, _)| delivering.entry.deliveries == 1)
            .map(|(_, addressed)| &addressed.event)
            .collect();
        metrics::counter!(telemetry::UNNUMBERED_TOTAL).increment(fresh.len() as u64);
        for delivery in plan::unnumbered(fresh) {
            if self.publisher.to_all(delivery.encode()).await.map_err(|error| not_delivered(&error)).is_err() {
                return;
            }
        }
    }
}

/// The batch has to be tried again.
#[derive(Debug, Clone, Copy)]
struct NotDelivered;

fn not_delivered(error: &PublishError) -> NotDelivered {
    tracing::warn!(%error, "a batch will be delivered again");
    NotDelivered
}

/// Sorts out what can't be read; the persister keeps it as a dead letter.
async fn readable(entries: Vec<Entry>) -> (Vec<Delivering>, Vec<Addressed>) {
    let mut delivering = Vec::with_capacity(entries.len());
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.event() {
            Ok(event) => {
                let addressed = Addressed { event: entry.payload().clone(), audience: event.audience().collect() };
                delivering.push(Delivering { entry, sent_at: event.sent_at });
                events.push(addressed);
            }
            Err(error) => {
                metrics::counter!(telemetry::UNREADABLE_TOTAL).increment(1);
                tracing::warn!(stream_seq = entry.stream_seq.0, %error, "an entry of the log is delivered to nobody");
                entry.settle(Outcome::Discard).await;
            }
        }
    }
    (delivering, events)
}

fn rest(deliveries: u64) -> Duration {
    RETRY_DELAY * u32::try_from(deliveries).unwrap_or(u32::MAX).clamp(1, RETRY_GROWTH_MAX)
}
