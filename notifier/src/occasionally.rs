//! Says the same thing only once in a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two times.
const INTERVAL: Duration = Duration::from_mins(1);

/// When something was last said.
#[derive(Debug, Default)]
pub struct Occasionally(Mutex<Option<Instant>>);

impl Occasionally {
    /// Whether to say it now; whoever asks says it if so.
    pub fn is_due(&self) -> bool {
        let mut said_at = self.0.lock();
        let is_due = said_at.is_none_or(|said_at| said_at.elapsed() >= INTERVAL);
        if is_due {
            *said_at = Some(Instant::now());
        }
        is_due
    }
}
