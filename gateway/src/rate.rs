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

/// Rows of a page that count as one command: a page of 100 counts as five.
const ROWS_PER_COMMAND: usize = 20;

/// `watch_presence` and `watch_businesses` commands of one user a second, over a longer time. Over it `rate_limited`: each costs a statement of
/// PostgreSQL, and work whenever somebody comes or goes.
const WATCHES_PER_SECOND_MAX: u32 = 2;
/// Such commands of one user at once: all their connections may come back together.
const WATCHES_BURST_MAX: u32 = 20;

/// Ids in `GET /v1/profiles` of one user a second, over a longer time. Over it `rate_limited`: each id that is not known
/// here is a key of Redis to look up, and a part of a call to kaha-main-v3.
const PROFILE_IDS_PER_SECOND_MAX: u32 = 100;
/// Ids of one user at once.
const PROFILE_IDS_BURST_MAX: u32 = 1000;

/// Events of the log that one user has read a second, over a longer time, for pages of history and the search for
/// messages that PostgreSQL doesn't have. Over it a page is shorter, or `rate_limited`.
const LOG_READS_PER_SECOND_MAX: u32 = 1000;
/// Such events of one user at once: a few pages, each as deep as one may reach.
const LOG_READS_BURST_MAX: u32 = 4000;

/// The wait that is suggested to a user who asks for more than that at once.
const LOG_READS_WAIT: Duration = Duration::from_secs(4);

/// The limiters of this gateway.
#[derive(Clone)]
pub struct RateLimits {
    users: Arc<DefaultKeyedRateLimiter<UserId>>,
    typing: Arc<DefaultKeyedRateLimiter<UserId>>,
    watches: Arc<DefaultKeyedRateLimiter<UserId>>,
    profile_ids: Arc<DefaultKeyedRateLimiter<UserId>>,
    log_reads: Arc<DefaultKeyedRateLimiter<UserId>>,
    handshakes: Arc<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl RateLimits {
    /// Limits of [`limits::COMMANDS_PER_SECOND_MAX`] and [`limits::TYPING_PER_SECOND_MAX`] a user, and of so many
    /// handshakes in all.
    pub fn start(handshakes_per_second_max: NonZeroU32, tasks: &Tasks) -> Self {
        let users = keyed(limits::COMMANDS_PER_SECOND_MAX, limits::COMMANDS_BURST_MAX);
        let typing = keyed(limits::TYPING_PER_SECOND_MAX, limits::TYPING_BURST_MAX);
        let watches = keyed(WATCHES_PER_SECOND_MAX, WATCHES_BURST_MAX);
        let profile_ids = keyed(PROFILE_IDS_PER_SECOND_MAX, PROFILE_IDS_BURST_MAX);
        let log_reads = keyed(LOG_READS_PER_SECOND_MAX, LOG_READS_BURST_MAX);
        let handshakes = Arc::new(RateLimiter::direct(Quota::per_second(handshakes_per_second_max)));
        let tidied = [&users, &typing, &watches, &profile_ids, &log_reads].map(Arc::clone);
        let draining = tasks.draining().clone();
        tasks.best_effort("rate_limits", async move {
            while draining.run_until_cancelled(tokio::time::sleep(TIDY_INTERVAL)).await.is_some() {
                for limits in &tidied {
                    limits.retain_recent();
                    limits.shrink_to_fit();
                }
            }
        });
        Self { users, typing, watches, profile_ids, log_reads, handshakes, clock: DefaultClock::default() }
    }

    /// Counts one command or request of a user.
    pub fn check(&self, user_id: UserId) -> Result<(), Refusal> {
        self.check_one(&self.users, user_id)
    }

    /// Counts the rows of a page as commands, [`ROWS_PER_COMMAND`] each, beside the request that is counted already.
    pub fn check_rows(&self, user_id: UserId, rows: usize) -> Result<(), Refusal> {
        self.check_more(user_id, rows.div_ceil(ROWS_PER_COMMAND).saturating_sub(1))
    }

    /// Counts so many commands of a user, beside the one that is counted already.
    pub fn check_more(&self, user_id: UserId, commands: usize) -> Result<(), Refusal> {
        self.check_some(&self.users, user_id, commands)
    }

    /// Counts one `set_typing` of a user, beside counting it as a command.
    pub fn check_typing(&self, user_id: UserId) -> Result<(), Refusal> {
        self.check_one(&self.typing, user_id)
    }

    /// Counts one `watch_presence` or `watch_businesses` of a user, beside counting it as a command.
    pub fn check_watch(&self, user_id: UserId) -> Result<(), Refusal> {
        self.check_one(&self.watches, user_id)
    }

    /// Counts the ids of one request for profiles, beside counting it as a request.
    pub fn check_profiles(&self, user_id: UserId, ids: usize) -> Result<(), Refusal> {
        self.check_some(&self.profile_ids, user_id, ids)
    }

    /// Counts events of the log that are read for a user. If there are too many, how long to wait.
    pub fn check_log_reads(&self, user_id: UserId, events: NonZeroU32) -> Result<(), Duration> {
        match self.log_reads.check_key_n(&user_id, events) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(self.clock.now())),
            // More than may ever be read at once.
            Err(_) => Err(LOG_READS_WAIT),
        }
    }

    fn check_one(&self, limits: &DefaultKeyedRateLimiter<UserId>, user_id: UserId) -> Result<(), Refusal> {
        limits.check_key(&user_id).map_err(|until| Refusal::rate_limited(until.wait_time_from(self.clock.now())))
    }

    fn check_some(
        &self,
        limits: &DefaultKeyedRateLimiter<UserId>,
        user_id: UserId,
        count: usize,
    ) -> Result<(), Refusal> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        match limits.check_key_n(&user_id, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(Refusal::rate_limited(until.wait_time_from(self.clock.now()))),
            Err(_) => Err(Refusal::too_large("more than may be asked for at once")),
        }
    }

    /// Counts one handshake. If there are too many, how long to stay away, spread at random.
    pub fn check_handshake(&self) -> Result<(), Duration> {
        self.handshakes.check().map_err(|until| {
            until.wait_time_from(self.clock.now()) + Duration::from_millis(rand::random_range(1000..5000))
        })
    }
}

/// A limit for each user.
fn keyed(per_second: u32, burst: u32) -> Arc<DefaultKeyedRateLimiter<UserId>> {
    let [per_second, burst] = [per_second, burst].map(|bound| NonZeroU32::new(bound).expect("no bound is zero"));
    Arc::new(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)))
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn whoever_floods_with_typing_is_told_to_wait_and_may_do_everything_else_r8_3() {
        let rate = RateLimits::start(NonZeroU32::MIN, &Tasks::default());
        let user_id = UserId::random();
        for _ in 0..limits::TYPING_BURST_MAX {
            assert_eq!(rate.check_typing(user_id), Ok(()));
        }
        let refusal = rate.check_typing(user_id).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert_eq!((rate.check_typing(UserId::random()), rate.check(user_id)), (Ok(()), Ok(())));
    }
}
