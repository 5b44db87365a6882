//! Puts jobs in the queue.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    ids::UserId,
    inbox::{InboxError, Inboxes, Routed},
    jobs::{Added, JOBS_TOGETHER_MAX, Job, Jobs, NotAdded},
};
use moka::sync::Cache;

use crate::{deliverer::Delivering, news, occasionally::Occasionally, telemetry};

/// Jobs that are known to have been added. A batch that comes again, because not all of its jobs were added in time, goes on
/// where it stopped; so it is well above what batches make necessary at once.
const KNOWN_MAX: u64 = 50_000;
/// How long they are known: as long as the queue would recognise them.
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// The way into the queue.
#[derive(Clone)]
pub struct Intake {
    jobs: Jobs,
    known: Cache<String, ()>,
    inboxes: Inboxes,
    full: Arc<Occasionally>,
}

/// What a batch makes necessary.
pub struct Reasons {
    jobs: Vec<Job>,
    readers: Vec<UserId>,
}

/// Why jobs may not stand in the queue. Adding them again does no harm.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It can't be known which there are.
    #[error(transparent)]
    Inboxes(#[from] InboxError),
    /// The queue didn't answer.
    #[error(transparent)]
    Queue(#[from] NotAdded),
}

impl Intake {
    /// Into this queue.
    pub fn new(jobs: Jobs, inboxes: Inboxes) -> Self {
        let known = Cache::builder().max_capacity(KNOWN_MAX).time_to_live(KNOWN_FOR).build();
        Self { jobs, known, inboxes, full: Arc::default() }
    }

    /// Adds what batches have made necessary, all at once.
    pub async fn take(&self, reasons: Reasons) -> Result<(), NotTaken> {
        let Reasons { mut jobs, mut readers } = reasons;
        if !readers.is_empty() {
            readers.sort_unstable();
            readers.dedup();
            let badges = self.inboxes.badges(&readers).await?;
            let shown = readers.into_iter().zip(badges).filter(|(_, badge)| badge.is_some_and(|badge| badge > 0));
            jobs.extend(shown.map(|(user_id, _)| Job::ReadElsewhere { user_id }));
        }
        Ok(self.add(&jobs).await?)
    }

    /// Adds jobs. What a full queue doesn't take is dropped and counted.
    pub async fn add(&self, jobs: &[Job]) -> Result<(), NotAdded> {
        let is_known = |job: &&Job| job.id().is_some_and(|id| self.known.contains_key(&id));
        let unknown: Vec<Job> = jobs.iter().filter(|job| !is_known(job)).cloned().collect();
        for part in unknown.chunks(JOBS_TOGETHER_MAX) {
            self.add_part(part).await?;
            part.iter().filter_map(Job::id).for_each(|id| self.known.insert(id, ()));
        }
        Ok(())
    }

    async fn add_part(&self, jobs: &[Job]) -> Result<(), NotAdded> {
        let dropped = match self.jobs.add(jobs).await? {
            Added::All => 0,
            Added::Dropped(dropped) => dropped,
        };
        metrics::counter!(telemetry::JOBS_ADDED_TOTAL).increment((jobs.len() - dropped) as u64);
        if dropped > 0 {
            metrics::counter!(telemetry::JOBS_DROPPED_TOTAL).increment(dropped as u64);
            if self.full.is_due() {
                tracing::warn!(dropped, "the queue of notifications is full: whom they were for is not notified");
            }
        }
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
