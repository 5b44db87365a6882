//! Files jobs: in the queue, or in memory while the queue can't be reached.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use chat_shared::{
    ids::UserId,
    inbox::{Inboxes, Routed},
    jobs::{Added, JOBS_TOGETHER_MAX, Job, Jobs, NotAdded, ReadUpTo},
    lifecycle::Tasks,
};
use tokio_util::sync::CancellationToken;

use super::held::Held;
use crate::{deliverer::Delivering, news, occasionally::Occasionally, telemetry};

/// How long jobs may take to enter the queue; those that take longer are held. With the time of a lot it is well below the
/// time after which the log delivers an entry again.
const FILE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two attempts to file held jobs.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The way into the queue.
#[derive(Clone)]
pub struct Intake {
    jobs: Jobs,
    inboxes: Inboxes,
    held: Arc<Held>,
    complaints: Arc<Occasionally>,
}

/// Causes for jobs, from a batch of events.
pub struct Reasons {
    jobs: Vec<Job>,
    readers: Vec<(UserId, ReadUpTo)>,
}

impl Intake {
    /// Into this queue, which is made again when it is gone.
    pub fn start(jobs: Jobs, inboxes: Inboxes, tasks: &Tasks) -> Self {
        let intake = Self { jobs, inboxes, held: Arc::default(), complaints: Arc::default() };
        let (refiling, draining) = (intake.clone(), tasks.draining().clone());
        tasks.best_effort("refiling", async move { refiling.refile(draining).await });
        intake
    }

    /// Files the jobs that batches have caused, all at once.
    pub async fn take(&self, reasons: Reasons) {
        let Reasons { mut jobs, mut readers } = reasons;
        if !readers.is_empty() {
            readers.sort_unstable_by_key(|(user_id, read)| (*user_id, read.conversation_id, Reverse(read.read_seq)));
            readers.dedup_by_key(|(user_id, read)| (*user_id, read.conversation_id));
            let shown = self.shown_a_badge(readers).await.into_iter();
            jobs.extend(shown.map(|(user_id, read)| Job::ReadElsewhere { user_id, read: Some(read) }));
        }
        self.file(jobs).await;
    }

    /// The users whose devices show a badge; all of them if Redis can't be asked, since a job too many does no harm.
    async fn shown_a_badge(&self, readers: Vec<(UserId, ReadUpTo)>) -> Vec<(UserId, ReadUpTo)> {
        let user_ids: Vec<_> = readers.iter().map(|(user_id, _)| *user_id).collect();
        let Ok(badges) = self.inboxes.badges(&user_ids).await else { return readers };
        let shown = readers.into_iter().zip(badges).filter(|(_, badge)| badge.is_some_and(|badge| badge > 0));
        shown.map(|(reader, _)| reader).collect()
    }

    /// Files jobs. While the queue can't be reached they are held, behind those that are held already.
    pub async fn file(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        if self.held.is_empty() {
            let error = match tokio::time::timeout(FILE_WAIT_MAX, self.add(&jobs)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it is too slow".to_owned(),
            };
            tracing::warn!(error, "notifications are held in memory until their queue can be reached");
        }
        self.note_dropped(self.held.hold(jobs));
    }

    /// Adds jobs to the queue. What a full queue doesn't take is dropped and counted.
    pub async fn add(&self, jobs: &[Job]) -> Result<(), NotAdded> {
        for part in jobs.chunks(JOBS_TOGETHER_MAX) {
            let dropped = match self.jobs.add(part).await? {
                Added::All => 0,
                Added::Dropped(dropped) => dropped,
            };
            metrics::counter!(telemetry::JOBS_ADDED_TOTAL).increment((part.len() - dropped) as u64);
            self.note_dropped(dropped);
        }
        Ok(())
    }

    fn note_dropped(&self, dropped: usize) {
        if dropped > 0 {
            metrics::counter!(telemetry::JOBS_DROPPED_TOTAL).increment(dropped as u64);
            if self.complaints.is_due() {
                tracing::warn!(dropped, "the queue of notifications is full: whom they were for is not notified");
            }
        }
    }

    /// Files held jobs until `draining`, and then what the queue takes at once.
    async fn refile(&self, draining: CancellationToken) {
        loop {
            // Cancel safe: it only waits.
            if draining.run_until_cancelled(self.held.filled()).await.is_none() {
                break;
            }
            if let Err(error) = self.refile_some().await {
                tracing::debug!(%error, "the queue of notifications can't be reached");
                if let Err(error) = self.jobs.ensure().await {
                    tracing::debug!(%error, "the queue of notifications can't be made again");
                }
                // Cancel safe: it only waits.
                draining.run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL)).await;
            } else if self.held.is_empty() {
                tracing::info!("the queue of notifications holds all that was held in memory");
            }
        }
        while !self.held.is_empty() && self.refile_some().await.is_ok() {}
    }

    async fn refile_some(&self) -> Result<(), NotAdded> {
        let first = self.held.first(JOBS_TOGETHER_MAX);
        self.add(&first).await?;
        self.held.remove(first.len());
        Ok(())
    }
}

impl Reasons {
    /// Of a batch, with the inboxes' answers; none if nobody has to be notified.
    pub fn of(events: &[Delivering], routed: &[Routed]) -> Option<Self> {
        let reasons = Self { jobs: news::jobs(events, routed), readers: news::readers(events) };
        Some(reasons).filter(|reasons| !reasons.jobs.is_empty() || !reasons.readers.is_empty())
    }

    /// Adds those of another batch.
    pub fn append(&mut self, mut other: Self) {
        self.jobs.append(&mut other.jobs);
        self.readers.append(&mut other.readers);
    }
}
