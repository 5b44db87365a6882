//! Jobs held in memory while the queue can't be reached, in their order, within a bound.

use std::collections::VecDeque;

use chat_shared::jobs::Job;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::telemetry;

/// Bytes of held jobs; about 250,000 jobs without texts. What comes at the bound is dropped and counted.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The jobs held.
#[derive(Debug, Default)]
pub struct Held {
    waiting: Mutex<Waiting>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
}

impl Held {
    /// Whether none is held, so that the queue can be reached as far as is known.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().jobs.is_empty()
    }

    /// Holds jobs behind those held before; how many were dropped at the bound.
    pub fn hold(&self, jobs: Vec<Job>) -> usize {
        self.hold_within(jobs, HELD_BYTES_MAX)
    }

    fn hold_within(&self, jobs: Vec<Job>, bytes_max: usize) -> usize {
        let mut waiting = self.waiting.lock();
        let mut dropped = 0;
        for job in jobs {
            let bytes = bytes_of(&job);
            if waiting.bytes + bytes > bytes_max {
                dropped += 1;
            } else {
                waiting.bytes += bytes;
                waiting.jobs.push_back(job);
            }
        }
        show(&waiting);
        self.rung.notify_one();
        dropped
    }

    /// Waits until one is held.
    pub async fn filled(&self) {
        while self.is_empty() {
            self.rung.notified().await;
        }
    }

    /// The first ones, at most `count`.
    pub fn first(&self, count: usize) -> Vec<Job> {
        self.waiting.lock().jobs.iter().take(count).cloned().collect()
    }

    /// Removes the first `count`. Only one task takes from the front.
    pub fn remove(&self, count: usize) {
        let mut waiting = self.waiting.lock();
        let count = count.min(waiting.jobs.len());
        let freed: usize = waiting.jobs.drain(..count).map(|job| bytes_of(&job)).sum();
        waiting.bytes -= freed;
        show(&waiting);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let left = self.waiting.get_mut().jobs.len();
        if left > 0 {
            metrics::counter!(telemetry::JOBS_DROPPED_TOTAL).increment(left as u64);
            tracing::error!(left, "the notifier ends before the queue of notifications is back: these are lost");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the bound is far below 2^53")]
fn show(waiting: &Waiting) {
    metrics::gauge!(telemetry::JOBS_HELD).set(waiting.jobs.len() as f64);
}

fn bytes_of(job: &Job) -> usize {
    let text = match job {
        Job::Message(job) => job.envelope.as_ref().map_or(0, |envelope| envelope.as_bytes().len()),
        Job::Assigned(_) | Job::SessionEnded { .. } | Job::ReadElsewhere { .. } | Job::Waiting(_) => 0,
    };
    size_of::<Job>() + text
}

#[cfg(test)]
mod tests {
    use chat_shared::ids::UserId;

    use super::*;

    fn jobs(count: usize) -> Vec<Job> {
        (0..count).map(|_| Job::ReadElsewhere { user_id: UserId::random(), read: None }).collect()
    }

    #[test]
    fn what_comes_at_the_bound_is_dropped() {
        let (held, each) = (Held::default(), size_of::<Job>());
        let first = jobs(3);
        assert_eq!(held.hold_within(first.clone(), 4 * each), 0);
        assert_eq!(held.hold_within(jobs(3), 4 * each), 2);
        assert_eq!(held.first(3), first);
        held.remove(3);
        assert_eq!(held.hold_within(jobs(3), 4 * each), 0, "there is room again");
        held.remove(9);
        assert!(held.is_empty());
        assert_eq!(held.waiting.lock().bytes, 0);
    }
}
