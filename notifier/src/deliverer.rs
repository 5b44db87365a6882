//! Delivers what the parts' workers have read: routes it, then publishes it.
//!
//! While one batch is on its way to Redis and the gateways, what the workers read is gathered for the next. So the
//! busier the log, the fewer calls and deliveries an event costs, and alone it waits for nobody.
//!
//! If Redis or NATS fails, the whole batch is delivered again: an event may stand in an inbox twice, which clients drop. What
//! concerns one user or one event stays there: a broken inbox is reset, an event that leads to a panic is skipped.
//!
//! **Invariant:** events of a lot stay in order, and a lot is answered only after all of it has been routed and published.
//! From then on nothing that happens to its notifications lets it be routed again.

use std::time::{Duration, Instant};

use chat_shared::{
    clock::{Clock, Timestamp},
    inbox::{Inboxes, Routed, Routing},
    lifecycle::{Tasks, isolated_async},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    mender::Mender,
    news::{self, News},
    notifications::{Clerk, Filing, Reasons},
    plan::{self, Addressed},
    publisher::{PublishError, Publisher},
    reachable::Reachable,
    telemetry,
};

/// Lots that wait; as many as there are workers, each of which waits for its answer.
const LOTS_MAX: usize = 16;
/// How long a lot may take: less than a part stays pinned to an instance that reads nothing, or another one would deliver
/// later events first.
const LOT_WAIT_MAX: Duration = Duration::from_millis(1900);
/// Events of a batch after which no further lot is gathered.
const EVENTS_MAX: usize = 500;

/// The way to whoever delivers.
#[derive(Debug, Clone)]
pub struct Deliverer {
    lots: mpsc::Sender<Lot>,
}

/// Not everything reached the inboxes of its audience and the gateways: it has to be delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDelivered;

/// An event that one worker read.
#[derive(Debug)]
pub struct Delivering {
    /// What and for whom.
    pub addressed: Addressed,
    /// What it tells.
    pub news: News,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Whether it was not tried before.
    pub is_fresh: bool,
}

struct Lot {
    events: Vec<Delivering>,
    answer: Answer,
}

/// Where a lot's worker waits.
type Answer = oneshot::Sender<Delivered>;

/// Whether a lot was delivered; and if that causes notifications, when their jobs are filed.
pub type Delivered = Result<Option<Filing>, NotDelivered>;

/// What delivering takes.
pub struct Means {
    /// Where events go first.
    pub inboxes: Inboxes,
    /// Whether that is worth trying.
    pub reachable: Reachable,
    /// Where they go then.
    pub publisher: Publisher,
    /// Resets broken inboxes.
    pub mender: Mender,
    /// Files notification jobs; none if no provider is set up.
    pub clerk: Option<Clerk>,
    /// The time.
    pub clock: Clock,
}

impl Deliverer {
    /// Delivers until the last clone is dropped.
    pub fn start(means: Means, tasks: &Tasks) -> Self {
        let (lots, queue) = mpsc::channel(LOTS_MAX);
        tasks.essential("deliverer", means.run(queue));
        Self { lots }
    }

    /// Delivers events in their order.
    pub async fn deliver(&self, events: Vec<Delivering>) -> Delivered {
        let (answer, answered) = oneshot::channel();
        let delivering = async {
            self.lots.send(Lot { events, answer }).await.map_err(|_| NotDelivered)?;
            answered.await.unwrap_or(Err(NotDelivered))
        };
        tokio::time::timeout(LOT_WAIT_MAX, delivering).await.unwrap_or(Err(NotDelivered))
    }
}

impl Means {
    async fn run(self, mut queue: mpsc::Receiver<Lot>) -> anyhow::Result<()> {
        while let Some(first) = queue.recv().await {
            let started = Instant::now();
            let (mut events, mut answers) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(mut lot) = next {
                // Who doesn't wait any more has given its entries back.
                if !lot.answer.is_closed() {
                    events.append(&mut lot.events);
                    answers.push(lot.answer);
                }
                next = if events.len() < EVENTS_MAX { queue.try_recv().ok() } else { None };
            }
            if events.is_empty() {
                continue;
            }
            let read = events.len();
            let events = news::merged(events);
            metrics::counter!(telemetry::RECEIPTS_MERGED_TOTAL).increment((read - events.len()) as u64);
            let delivered = match isolated_async("batch", self.deliver(&events)).await {
                Ok(delivered) => delivered,
                Err(_) => self.deliver_one_by_one(&events).await,
            };
            metrics::histogram!(telemetry::BATCH_SECONDS).record(started.elapsed());
            match (delivered, &self.clerk) {
                (Ok(Some(reasons)), Some(clerk)) => {
                    let filed = answers.into_iter().map(|answer| {
                        let (filed, filing) = oneshot::channel();
                        _ = answer.send(Ok(Some(filing)));
                        filed
                    });
                    clerk.file(reasons, filed.collect()).await;
                }
                (delivered, _) => {
                    for answer in answers {
                        _ = answer.send(delivered.as_ref().map(|_| None).map_err(|error| *error));
                    }
                }
            }
        }
        Ok(())
    }

    /// After a panic in a batch: the event whose content leads to it is skipped. Others may be routed twice.
    async fn deliver_one_by_one(&self, events: &[Delivering]) -> Result<Option<Reasons>, NotDelivered> {
        let mut reasons: Option<Reasons> = None;
        for event in events {
            let Ok(delivered) = isolated_async("event", self.deliver(std::slice::from_ref(event))).await else {
                metrics::counter!(telemetry::PANICS_TOTAL).increment(1);
                continue;
            };
            match (&mut reasons, delivered?) {
                (Some(reasons), Some(more)) => reasons.append(more),
                (reasons, more) => *reasons = reasons.take().or(more),
            }
        }
        Ok(reasons)
    }

    /// Gives what is left to do before the batch is done, if anything.
    async fn deliver(&self, events: &[Delivering]) -> Result<Option<Reasons>, NotDelivered> {
        if let Some(routed) = self.route(events).await {
            self.note_routed(events);
            self.mender.mend(events, &routed).await;
            let reasons = self.clerk.as_ref().and_then(|_| Reasons::of(events, &routed));
            self.publish_numbered(events, routed).await?;
            Ok(reasons)
        } else {
            self.publish_unnumbered(events).await;
            Err(NotDelivered)
        }
    }

    /// The inboxes' answers, or none if Redis can't take the batch.
    async fn route(&self, events: &[Delivering]) -> Option<Vec<Routed>> {
        if !self.reachable.is_set() {
            return None;
        }
        let routings: Vec<_> = events
            .iter()
            .flat_map(|Delivering { addressed, .. }| {
                addressed.audience.iter().map(|user_id| Routing {
                    user_id: *user_id,
                    event: &addressed.event,
                    delivered: None,
                    lsn: addressed.lsn,
                })
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

    fn note_routed(&self, events: &[Delivering]) {
        metrics::counter!(telemetry::ROUTED_TOTAL).increment(events.len() as u64);
        let lag = metrics::histogram!(telemetry::LAG_SECONDS);
        let now = self.clock.now();
        for Delivering { sent_at, .. } in events {
            lag.record(Duration::from_millis(now.0.saturating_sub(sent_at.0).max(0).unsigned_abs()));
        }
    }

    /// An event that is published twice because a later one was not is no harm: clients pass over repeats.
    async fn publish_numbered(&self, events: &[Delivering], routed: Vec<Routed>) -> Result<(), NotDelivered> {
        for (gateway_id, deliveries) in plan::numbered(events.iter().map(|event| &event.addressed), routed) {
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
    async fn publish_unnumbered(&self, events: &[Delivering]) {
        let fresh: Vec<_> = events.iter().filter(|event| event.is_fresh).map(|event| &event.addressed.event).collect();
        metrics::counter!(telemetry::UNNUMBERED_TOTAL).increment(fresh.len() as u64);
        for delivery in plan::unnumbered(fresh) {
            if self.publisher.to_all(delivery.encode()).await.map_err(|error| not_delivered(&error)).is_err() {
                return;
            }
        }
    }
}

fn not_delivered(error: &PublishError) -> NotDelivered {
    tracing::warn!(%error, "a batch will be delivered again");
    NotDelivered
}
