//! Remembers for a moment that something is out of reach, so that not every request waits to find it out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nobody tries after a failure; then one request tries for all.
const REST: Duration = Duration::from_secs(1);

/// Open while something is known to be out of reach.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    resting_until: Option<Instant>,
    answered_at: Option<Instant>,
}

impl Breaker {
    /// Whether to try now. After the rest one caller is told so, and the others rest on until it has found out.
    pub fn permits(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        match state.resting_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.resting_until = Some(now + REST);
                true
            }
        }
    }

    /// It answered somebody.
    pub fn close(&self, now: Instant) {
        *self.state.lock() = State { resting_until: None, answered_at: Some(now) };
    }

    /// It did not answer one who asked at `asked_at`. If it has answered others since, it is only busy. Says whether
    /// it is news that it is out of reach.
    pub fn open(&self, asked_at: Instant, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.answered_at.is_some_and(|answered_at| answered_at > asked_at) {
            return false;
        }
        state.resting_until.replace(now + REST).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_for_all_after_the_rest() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(breaker.permits(start));
        assert!(breaker.open(start, start));
        assert!(!breaker.permits(start + REST / 2));
        assert!(breaker.permits(start + REST));
        assert!(!breaker.permits(start + REST), "the others rest on");
        assert!(!breaker.open(start + REST, start + REST), "no news");
        breaker.close(start + REST);
        assert!(breaker.permits(start + REST));
    }

    #[test]
    fn what_answers_others_is_only_busy() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        breaker.close(start + REST / 2);
        assert!(!breaker.open(start, start + REST));
        assert!(breaker.permits(start + REST));
        assert!(breaker.open(start + REST, start + REST * 2));
        assert!(!breaker.permits(start + REST * 2));
    }
}
