//! Waits until a moment of the monotonic clock, exactly. The runtime's own timers count in milliseconds, which is more
//! than what is measured.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::clock;

/// One alarm of the kernel.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Not set.
    pub fn new() -> Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .context("the kernel gives no timer")?;
        #[expect(deprecated, reason = "unsound for types that give up their descriptor; an OwnedFd doesn't")]
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// Comes back at `at_us`, at once if that is over.
    pub async fn until(&self, at_us: u64) -> Result<()> {
        if at_us <= clock::now_us() {
            // Others get their turn even if everything is late.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let value =
            Timespec { tv_sec: (at_us / 1_000_000).cast_signed(), tv_nsec: i64::try_from(at_us % 1_000_000)? * 1000 };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        let mut rung = self.0.readable().await?;
        // Setting it again takes back what it counted, so nothing need be read.
        rung.clear_ready();
        Ok(())
    }
}
