//! The machine's monotonic clock in microseconds: the same in all processes, so that they can agree on moments.

use rustix::time::{ClockId, clock_gettime};

/// Now.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1000
}
