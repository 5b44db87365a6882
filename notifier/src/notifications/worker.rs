//! Takes jobs from the queue, works on several at once, and settles each.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    jobs::{Job, Jobs},
    lifecycle::isolated_async,
    log::{Consumer, ConsumerSpec, Entry, Outcome},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{Office, Trouble, decide, failed};
use crate::telemetry;

/// Jobs in hand, after which no more are taken. More than one provider takes at once, so that one that is slow doesn't stop
/// the others.
const IN_HAND_MAX: usize = 64;
/// Jobs that are taken at once.
const BATCH_MAX: usize = 32;
/// Jobs that were taken, those included that rest before they are tried again: at the bound no others are taken, so it is
/// well above what comes while a provider is out of reach for a while.
const ACK_PENDING_MAX: i64 = 1_000_000;
/// What a killed instance had in hand comes back after this; longer than a job takes at the most.
const ACK_WAIT: Duration = Duration::from_mins(1);
/// Between two looks at how many jobs wait.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two attempts to open the queue.
const OPEN_INTERVAL: Duration = Duration::from_secs(2);

/// Works on jobs until `draining`, then finishes those in hand. Until PostgreSQL is there, none is taken.
pub async fn run(jobs: Jobs, office: Office, draining: CancellationToken) -> anyhow::Result<()> {
    let opening = async {
        office.facts.wait_until_fit().await;
        open(&jobs).await
    };
    // Cancel safe: nothing has been taken yet.
    let Some(mut consumer) = draining.run_until_cancelled(opening).await else { return Ok(()) };
    tracing::info!("working on notifications");
    let office = Arc::new(office);
    let mut in_hand = FuturesUnordered::new();
    loop {
        // Cancel safe: a batch that isn't returned stays in the consumer, and work in hand is kept across turns.
        tokio::select! {
            () = draining.cancelled() => break,
            Some(()) = in_hand.next() => {}
            entries = consumer.batch(), if in_hand.len() < IN_HAND_MAX => {
                in_hand.extend(entries.into_iter().map(|entry| Box::pin(settle(Arc::clone(&office), entry))));
            }
        }
    }
    consumer.release().await;
    while in_hand.next().await.is_some() {}
    Ok(())
}

/// Shows how many jobs wait, and makes the queue again when it is gone, for ever.
pub async fn watch(jobs: Jobs) {
    loop {
        match jobs.waiting().await {
            #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 jobs nobody counts them")]
            Ok(waiting) => metrics::gauge!(telemetry::JOBS_WAITING).set(waiting as f64),
            Err(error) => {
                tracing::debug!(%error, "it can't be seen how many jobs wait");
                // Gateways add jobs too, and can't make the queue again.
                if let Err(error) = jobs.ensure().await {
                    tracing::warn!(%error, "the queue of notifications can't be reached or made again");
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn open(jobs: &Jobs) -> Consumer {
    loop {
        let spec = ConsumerSpec {
            name: "notifications".to_owned(),
            slots: Vec::new(),
            is_pinned: false,
            batch_max: BATCH_MAX,
            gather_max: Duration::ZERO,
            ack_pending_max: ACK_PENDING_MAX,
            ack_wait: ACK_WAIT,
        };
        match jobs.consumer(spec).await {
            Ok(consumer) => return consumer,
            Err(error) => tracing::warn!(%error, "the queue of notifications can't be read, trying again"),
        }
        tokio::time::sleep(OPEN_INTERVAL).await;
    }
}

async fn settle(office: Arc<Office>, entry: Entry) {
    let outcome = match Job::decode(entry.payload()) {
        // After a panic it is unknown whether a provider was asked.
        Ok(job) => isolated_async("job", office.outcome(job, entry.deliveries)).await.unwrap_or_else(|_| {
            metrics::counter!(telemetry::PANICS_TOTAL).increment(1);
            Outcome::Discard
        }),
        Err(error) => {
            tracing::warn!(%error, "a job in the queue of notifications is passed over");
            Outcome::Discard
        }
    };
    entry.settle(outcome).await;
}

impl Office {
    async fn outcome(&self, job: Job, attempt: u64) -> Outcome {
        match self.work(job, attempt).await {
            Ok(outcome) => outcome,
            Err(trouble) => {
                tracing::debug!(%trouble, "a job rests");
                let asked_for = match trouble {
                    Trouble::Postgres(out_of_reach) => Some(out_of_reach.rest),
                    Trouble::NoRedis | Trouble::Inboxes(_) | Trouble::Queue(_) => None,
                };
                failed(decide::rest_in_trouble(attempt, asked_for, rand::random()))
            }
        }
    }

    async fn work(&self, job: Job, attempt: u64) -> Result<Outcome, Trouble> {
        if !self.reachable.is_set() {
            return Err(Trouble::NoRedis);
        }
        match job {
            Job::Message(job) => self.message(&job, attempt).await,
            Job::Assigned(job) => self.assigned(&job, attempt).await,
            Job::SessionEnded { user_id, epoch, after, up_to } => {
                self.session_ended(user_id, epoch, after, up_to).await
            }
            Job::ReadElsewhere { user_id, read } => self.read_elsewhere(user_id, read, attempt).await,
            Job::Waiting(job) => self.waiting(&job, attempt).await,
        }
    }
}
