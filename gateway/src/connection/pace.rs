//! How fast one connection may send what no limit of commands counts: heartbeats, confirmations, pings.

use std::time::Duration;

use chat_shared::limits;
use tokio::time::Instant;

/// What one frame takes of the time there is.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / limits::FRAMES_PER_SECOND_MAX as u64);
/// How far frames may be ahead of their time.
const AHEAD_MAX: Duration = INTERVAL.saturating_mul(limits::FRAMES_BURST_MAX);

/// The rate of one connection. Only a moment, since every idle connection has one.
pub(super) struct Pace {
    /// Until when what came so far would have lasted, had it come evenly.
    lasts_until: Instant,
}

impl Pace {
    pub(super) fn start() -> Self {
        Self { lasts_until: Instant::now() }
    }

    /// Counts a frame. False if there were too many.
    pub(super) fn count(&mut self) -> bool {
        self.count_at(Instant::now())
    }

    fn count_at(&mut self, now: Instant) -> bool {
        self.lasts_until = self.lasts_until.max(now) + INTERVAL;
        self.lasts_until <= now + AHEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut pace = Pace { lasts_until: start };
        let counted = |pace: &mut Pace, now, count: u32| (0..count).filter(|_| pace.count_at(now)).count();
        let burst = usize::try_from(limits::FRAMES_BURST_MAX).unwrap();
        assert_eq!(counted(&mut pace, start, limits::FRAMES_BURST_MAX + 1), burst);
        let mut pace = Pace { lasts_until: start };
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            let per_second = limits::FRAMES_PER_SECOND_MAX;
            assert_eq!(counted(&mut pace, now, per_second), usize::try_from(per_second).unwrap(), "second {second}");
        }
        let rested = start + Duration::from_hours(1);
        assert_eq!(counted(&mut pace, rested, limits::FRAMES_BURST_MAX + 1), burst, "no rest earns more than a burst");
    }
}
