//! Remembers for a while that something is out of reach, so that not everybody waits to find it out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// How long nobody tries at first. Each try that fails after a rest doubles the next one.
    pub rest_min: Duration,
    /// How long nobody tries at the most.
    pub rest_max: Duration,
}

/// Opens at the first failure, for a second each time.
impl Default for Rules {
    fn default() -> Self {
        Self { failures_max: 1, rest_min: Duration::from_secs(1), rest_max: Duration::from_secs(1) }
    }
}

/// Open while something is known to be out of reach.
#[derive(Debug, Default)]
pub struct Breaker {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
    answered_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    /// Since when nobody tries, but for the one who asked just then.
    since: Instant,
    rest: Duration,
}

impl Breaker {
    /// A breaker with its own rules.
    pub fn new(rules: Rules) -> Self {
        Self { rules, state: Mutex::default() }
    }

    /// Whether to try now. After the rest one caller is told so, and the others rest on until it has found out.
    pub fn permits(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        match &mut state.open {
            None => true,
            Some(open) if now < open.since + open.rest => false,
            Some(open) => {
                open.since = now;
                true
            }
        }
    }

    /// How long nobody tries yet.
    pub fn rest(&self, now: Instant) -> Duration {
        self.state.lock().open.map_or(Duration::ZERO, |open| (open.since + open.rest).saturating_duration_since(now))
    }

    /// Whether it is open, be it that one may try for all.
    pub fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    /// It answered somebody. Says whether it is news that it is back.
    pub fn close(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let was_open = state.open.is_some();
        *state = State { failures: 0, open: None, answered_at: Some(now) };
        was_open
    }

    /// It did not answer one who asked at `asked_at`. If it has answered others since, it is only busy. Says whether
    /// it is news that it is out of reach.
    pub fn fail(&self, asked_at: Instant, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.answered_at.is_some_and(|answered_at| answered_at > asked_at) {
            return false;
        }
        match &mut state.open {
            // Those who asked before it opened, or before the last one tried for all, add nothing to what is known.
            Some(open) if asked_at < open.since => false,
            Some(open) => {
                *open = Open { since: now, rest: (open.rest * 2).min(self.rules.rest_max) };
                false
            }
            None => {
                state.failures += 1;
                if state.failures < self.rules.failures_max {
                    return false;
                }
                state.open = Some(Open { since: now, rest: self.rules.rest_min });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(1);

    #[test]
    fn one_tries_for_all_after_the_rest() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(breaker.permits(start));
        assert!(breaker.fail(start, start));
        assert!(!breaker.permits(start + REST / 2));
        assert_eq!(breaker.rest(start + REST / 2), REST / 2);
        assert!(breaker.permits(start + REST));
        assert!(!breaker.permits(start + REST), "the others rest on");
        assert!(!breaker.fail(start + REST, start + REST), "no news");
        assert!(breaker.is_open());
        assert!(breaker.close(start + REST), "news");
        assert!(breaker.permits(start + REST));
        assert!(!breaker.is_open());
    }

    #[test]
    fn what_answers_others_is_only_busy() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(!breaker.close(start + REST / 2));
        assert!(!breaker.fail(start, start + REST));
        assert!(breaker.permits(start + REST));
        assert!(breaker.fail(start + REST, start + REST * 2));
        assert!(!breaker.permits(start + REST * 2));
    }

    #[test]
    fn one_that_never_says_how_its_try_went_keeps_nobody_away_for_good() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        breaker.fail(start, start);
        assert!(breaker.permits(start + REST));
        assert!(breaker.permits(start + REST * 2));
    }

    #[test]
    fn the_rest_doubles_with_each_try_that_fails_after_it() {
        let rules = Rules { failures_max: 3, rest_min: REST, rest_max: REST * 4 };
        let (breaker, start) = (Breaker::new(rules), Instant::now());
        assert!(!breaker.fail(start, start));
        assert!(!breaker.fail(start, start));
        breaker.close(start);
        let mut now = start + REST;
        assert!(!breaker.fail(now, now), "only those in a row count");
        assert!(!breaker.fail(now, now));
        assert!(breaker.permits(now));
        assert!(breaker.fail(now, now));
        for rest in [REST, REST * 2, REST * 4, REST * 4] {
            assert_eq!(breaker.rest(now), rest);
            assert!(!breaker.permits(now + rest / 2));
            let asked_before = now.checked_sub(REST / 2).unwrap();
            now += rest;
            assert!(breaker.permits(now));
            assert!(!breaker.fail(asked_before, now), "it was on its way before");
            assert!(!breaker.fail(now, now));
        }
        breaker.close(now);
        assert!(breaker.permits(now));
    }
}
