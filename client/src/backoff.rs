//! How long to wait before the next attempt. Pure: chance comes in as a number.

use std::time::Duration;

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, HINT_MAX};

/// What a server said about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// A delay meant for this client alone: the server has spread its clients already.
    Own(Duration),
    /// A delay that all clients are told: each adds its own chance.
    Common(Duration),
}

impl Hint {
    /// From an error's `retry_after`.
    pub(crate) fn common(retry_after: Option<Duration>) -> Option<Self> {
        retry_after.map(Self::Common)
    }
}

/// Exponential back-off with full jitter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure. `chance` is uniform in 0..1.
    pub(crate) fn next(&mut self, hint: Option<Hint>, chance: f64) -> Duration {
        let range = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let jitter = range.mul_f64(chance.clamp(0.0, 1.0));
        match hint {
            None => jitter,
            Some(Hint::Own(delay)) => delay.min(HINT_MAX),
            Some(Hint::Common(delay)) => delay.min(HINT_MAX) + jitter,
        }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number uniform in 0..1.
pub(crate) fn chance() -> f64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..9).map(|_| backoff.next(None, 1.0)).collect();
        assert_eq!(delays[..3], [BACKOFF_FIRST, BACKOFF_FIRST * 2, BACKOFF_FIRST * 4]);
        assert_eq!(delays[8], BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.next(None, 1.0), BACKOFF_FIRST);
    }

    #[test]
    fn a_hint_to_one_is_kept_and_a_hint_to_all_is_spread() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::default().next(Some(Hint::Own(second)), 0.9), second);
        assert_eq!(Backoff::default().next(Some(Hint::Common(second)), 1.0), second + BACKOFF_FIRST);
        assert_eq!(Backoff::default().next(Some(Hint::Own(second * 86_400)), 0.0), HINT_MAX);
    }

    proptest! {
        #[test]
        fn no_delay_is_over_its_bound(failures in 0_u32..200, chance in 0.0..1.0, hint_ms in any::<u64>()) {
            let mut backoff = Backoff { failures };
            prop_assert!(backoff.next(None, chance) <= BACKOFF_MAX);
            let hint = Hint::Common(Duration::from_millis(hint_ms));
            prop_assert!(backoff.next(Some(hint), chance) <= HINT_MAX + BACKOFF_MAX);
        }
    }
}
