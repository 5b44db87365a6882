//! When messages were accepted, and how long that took, repeats included.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What the clients' sends came to.
#[derive(Debug, Default)]
pub struct Samples(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// Beginning and end of every send that was accepted.
    accepted: Vec<(Instant, Instant)>,
    /// Good messages that were refused for good.
    refused: Vec<String>,
}

impl Samples {
    /// A message that was given to the client at `began` is accepted now.
    pub fn add(&self, began: Instant) {
        self.lock().accepted.push((began, Instant::now()));
    }

    /// A good message was refused.
    pub fn refused(&self, why: String) {
        self.lock().refused.push(why);
    }

    /// How many were refused for good, and why the first was.
    pub fn refusals(&self) -> (u64, Option<String>) {
        let taken = self.lock();
        (taken.refused.len() as u64, taken.refused.first().cloned())
    }

    /// How many were accepted since then.
    pub fn accepted_since(&self, since: Instant) -> usize {
        self.lock().accepted.iter().filter(|(_, end)| *end >= since).count()
    }

    /// How many were accepted between two moments.
    pub fn accepted_between(&self, since: Instant, until: Instant) -> usize {
        self.lock().accepted.iter().filter(|(_, end)| (since..until).contains(end)).count()
    }

    /// How long each message took that was given to a client since then and is accepted.
    pub fn durations_since(&self, since: Instant) -> Vec<Duration> {
        let taken = self.lock();
        taken.accepted.iter().filter(|(began, _)| *began >= since).map(|(began, end)| *end - *began).collect()
    }

    /// The longest that a message took which was accepted since then.
    pub fn slowest_since(&self, since: Instant) -> Duration {
        let taken = self.lock();
        let since = taken.accepted.iter().filter(|(_, end)| *end >= since);
        since.map(|(began, end)| *end - *began).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
