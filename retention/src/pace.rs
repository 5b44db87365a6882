//! The rhythm of work that runs for as long as the process: passes at an interval, and rests inside a pass.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_mins(1);
/// Rests last this many times as long as the work before them, so that a pass takes a tenth of a connection at the most.
const REST_FACTOR: u32 = 9;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(5);

/// The pauses between passes.
#[derive(Debug)]
pub struct Rhythm {
    interval: Duration,
    failures: u32,
}

impl Rhythm {
    /// A pass at each interval.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// Waits for the next pass: for the interval after a success, and for less after a failure. False if the process drains.
    pub async fn pause(&mut self, has_succeeded: bool, draining: &CancellationToken) -> bool {
        self.failures = if has_succeeded { 0 } else { self.failures + 1 };
        let delay = if has_succeeded { self.interval } else { retry_delay(self.failures) };
        draining.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }
}

/// A second at first, so that a database that comes up a little later costs little; then up to a minute.
pub fn retry_delay(failures: u32) -> Duration {
    RETRY_DELAY_MIN.saturating_mul(1 << (failures - 1).min(10)).min(RETRY_DELAY_MAX)
}

/// Rests after work that took so long.
pub async fn rest(worked: Duration) {
    tokio::time::sleep((worked * REST_FACTOR).min(REST_MAX)).await;
}

/// The size of the next transaction: half of the size after a failure, for a disk on which that takes longer than a statement
/// may, and twice the size after a success.
#[derive(Debug)]
pub struct Batch {
    size: i32,
    min: i32,
    max: i32,
}

impl Batch {
    /// Begins with the largest size.
    pub const fn new(min: i32, max: i32) -> Self {
        Self { size: max, min, max }
    }

    /// The size of the next transaction.
    pub const fn size(&self) -> i32 {
        self.size
    }

    /// Takes in the outcome of a transaction.
    pub fn adapt(&mut self, has_succeeded: bool) {
        let size = if has_succeeded { self.size * 2 } else { self.size / 2 };
        self.size = size.clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_after_failures_grows_to_a_minute() {
        assert_eq!(retry_delay(1), Duration::from_secs(1));
        assert_eq!(retry_delay(4), Duration::from_secs(8));
        assert_eq!(retry_delay(7), Duration::from_mins(1));
        assert_eq!(retry_delay(u32::MAX), Duration::from_mins(1));
    }

    #[test]
    fn a_batch_shrinks_after_failures_and_grows_after_successes_within_its_bounds() {
        let mut batch = Batch::new(10, 1000);
        let mut after = |has_succeeded| {
            batch.adapt(has_succeeded);
            batch.size()
        };
        assert_eq!([(); 8].map(|()| after(false)), [500, 250, 125, 62, 31, 15, 10, 10]);
        assert_eq!([(); 8].map(|()| after(true)), [20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
