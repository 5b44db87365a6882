//! Remembers for a moment that something is out of reach, so that not every request waits to find it out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nobody tries after a failure; then one request tries for all.
const REST: Duration = Duration::from_secs(1);

/// Open while something is known to be out of reach.
#[derive(Debug, Default)]
pub struct Breaker {
    resting_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Whether to try now. After the rest one caller is told so, and the others rest on until it has found out.
    pub fn permits(&self, now: Instant) -> bool {
        let mut resting_until = self.resting_until.lock();
        match *resting_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                *resting_until = Some(now + REST);
                true
            }
        }
    }

    /// It answered.
    pub fn close(&self) {
        *self.resting_until.lock() = None;
    }

    /// It is out of reach; says whether that is news.
    pub fn open(&self, now: Instant) -> bool {
        self.resting_until.lock().replace(now + REST).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_for_all_after_the_rest() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(breaker.permits(start));
        assert!(breaker.open(start));
        assert!(!breaker.permits(start + REST / 2));
        assert!(breaker.permits(start + REST));
        assert!(!breaker.permits(start + REST), "the others rest on");
        assert!(!breaker.open(start + REST), "no news");
        breaker.close();
        assert!(breaker.permits(start + REST));
    }
}
