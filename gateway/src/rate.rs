//! How much a user may ask, and how many connections may be opened, each second.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use chat_shared::{ids::UserId, lifecycle::Tasks, limits};
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::refusal::Refusal;

/// How often users who have been quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// The limiters of this gateway.
#[derive(Clone)]
pub struct RateLimits {
    users: Arc<DefaultKeyedRateLimiter<UserId>>,
    handshakes: Arc<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl RateLimits {
    /// Limits of [`limits::COMMANDS_PER_SECOND_MAX`] a user, and of so many handshakes in all.
    pub fn start(handshakes_per_second_max: NonZeroU32, tasks: &Tasks) -> Self {
        const PER_SECOND: NonZeroU32 = NonZeroU32::new(limits::COMMANDS_PER_SECOND_MAX).expect("the bound is not zero");
        const BURST: NonZeroU32 = NonZeroU32::new(limits::COMMANDS_BURST_MAX).expect("the bound is not zero");
        let users = Arc::new(RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(BURST)));
        let handshakes = Arc::new(RateLimiter::direct(Quota::per_second(handshakes_per_second_max)));
        let (tidied, draining) = (Arc::clone(&users), tasks.draining().clone());
        tasks.best_effort("rate_limits", async move {
            while draining.run_until_cancelled(tokio::time::sleep(TIDY_INTERVAL)).await.is_some() {
                tidied.retain_recent();
                tidied.shrink_to_fit();
            }
        });
        Self { users, handshakes, clock: DefaultClock::default() }
    }

    /// Counts one command or request of a user.
    pub fn check(&self, user_id: UserId) -> Result<(), Refusal> {
        self.users.check_key(&user_id).map_err(|until| Refusal::rate_limited(until.wait_time_from(self.clock.now())))
    }

    /// Counts one handshake. If there are too many, how long to stay away, spread at random.
    pub fn check_handshake(&self) -> Result<(), Duration> {
        self.handshakes.check().map_err(|until| {
            until.wait_time_from(self.clock.now()) + Duration::from_millis(rand::random_range(1000..5000))
        })
    }
}
