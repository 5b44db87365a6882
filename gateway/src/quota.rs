//! Quotas of a user for each day in UTC, on what all users share: the log, conversations, questions for profiles.
//!
//! A gateway counts in memory, and adds what one user has used to a counter in Redis whenever it is a 64th of the quota.
//! So most users cost Redis nothing, and the quota holds for the fleet to within a 64th, and a second at the allowed
//! rate, of each gateway. Without Redis each gateway counts for itself.

use std::{collections::HashSet, mem, num::NonZeroU64, sync::Arc, time::Duration};

use chat_shared::{
    clock::{Clock, Day},
    ids::UserId,
    lifecycle::Tasks,
    redis::{Redis, RedisError, bounded},
};
use clap::Args;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::{refusal::Refusal, telemetry};

/// Users whose use is counted in a gateway; the least active is forgotten first, with what Redis was not told.
const USERS_MAX: u64 = 100_000;
/// Users whose use waits for Redis. Over it one more waits until their use has grown by another step.
const DUE_MAX: usize = 10_000;
/// Counters added up in one round trip.
const REPORTED_MAX: usize = 500;
/// How often they are.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Use that is not in Redis, as a share of the quota.
const STEPS: u64 = 64;
/// Time to live of a day's counters after their last change.
const KEPT: Duration = Duration::from_hours(25);
/// Bytes of the log that an event takes beside a message's text: its subject, headers, participants and place on disk.
pub const EVENT_BYTES: u64 = 512;

/// Quotas of a user for each day.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Quotas")]
#[expect(clippy::struct_field_names, reason = "bounds end in `_max`")]
pub struct QuotaSettings {
    /// Bytes that one user may add to the log in a day (UTC): texts, and 512 for each message, read mark and change.
    ///
    /// Over it sends, read marks and changes are refused as `rate_limited` until midnight. One user who fills the quota every
    /// day takes seven times as much of the log.
    #[arg(long, env = "CHAT_LOG_BYTES_PER_USER_DAY_MAX", default_value = "33554432", value_name = "BYTES")]
    pub log_bytes_per_user_day_max: NonZeroU64,
    /// Conversations that one user may make in a day (UTC).
    ///
    /// Over it making one is refused as `rate_limited` until midnight. Each costs NATS about 3.3 KB of memory for seven days
    /// after its last event.
    #[arg(long, env = "CHAT_CONVERSATIONS_PER_USER_DAY_MAX", default_value = "1000", value_name = "CONVERSATIONS")]
    pub conversations_per_user_day_max: NonZeroU64,
    /// Ids that one user may ask `GET /v1/profiles` for in a day (UTC).
    ///
    /// Over it the request is refused as `rate_limited` until midnight; names in lists and pushes are not counted.
    #[arg(long, env = "CHAT_PROFILE_IDS_PER_USER_DAY_MAX", default_value = "20000", value_name = "IDS")]
    pub profile_ids_per_user_day_max: NonZeroU64,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes added to the log.
    LogBytes,
    /// Conversations made.
    Conversations,
    /// Ids in requests for profiles.
    ProfileIds,
}

impl Resource {
    const ALL: [Self; 3] = [Self::LogBytes, Self::Conversations, Self::ProfileIds];

    /// Its name in Redis and in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::LogBytes => "log_bytes",
            Self::Conversations => "conversations",
            Self::ProfileIds => "profile_ids",
        }
    }

    /// Its name in the refusal.
    const fn description(self) -> &'static str {
        match self {
            Self::LogBytes => "messages, read marks and changes",
            Self::Conversations => "new conversations",
            Self::ProfileIds => "profiles asked for",
        }
    }

    fn refused(self) -> metrics::Counter {
        metrics::counter!(telemetry::QUOTA_REFUSED_TOTAL, "resource" => self.as_str())
    }

    const fn of<T>(self, [log_bytes, conversations, profile_ids]: &[T; 3]) -> &T {
        match self {
            Self::LogBytes => log_bytes,
            Self::Conversations => conversations,
            Self::ProfileIds => profile_ids,
        }
    }

    const fn of_mut<T>(self, [log_bytes, conversations, profile_ids]: &mut [T; 3]) -> &mut T {
        match self {
            Self::LogBytes => log_bytes,
            Self::Conversations => conversations,
            Self::ProfileIds => profile_ids,
        }
    }
}

/// The quotas of all users, and what they have used. Clones share everything.
#[derive(Clone)]
pub struct Quotas(Arc<Parts>);

struct Parts {
    redis: Redis,
    clock: Clock,
    max: [u64; 3],
    used: Cache<UserId, Arc<Mutex<Used>>>,
    /// Users of whom Redis is to be told.
    due: Mutex<HashSet<UserId>>,
}

/// What one user has used on one day.
struct Used {
    day: Day,
    counts: [Count; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Of the fleet, as far as Redis has told.
    reported: u64,
    /// Of this gateway, besides.
    unreported: u64,
}

/// An addition to a counter in Redis.
struct Addition {
    user_id: UserId,
    day: Day,
    resource: Resource,
    amount: u64,
}

impl Quotas {
    /// Counts from nothing; Redis is told and asked once a second until the process drains.
    pub fn start(settings: &QuotaSettings, redis: Redis, clock: Clock, tasks: &Tasks) -> Self {
        let max = [
            settings.log_bytes_per_user_day_max,
            settings.conversations_per_user_day_max,
            settings.profile_ids_per_user_day_max,
        ];
        let used = Cache::builder().max_capacity(USERS_MAX).time_to_idle(KEPT).build();
        let quotas = Self(Arc::new(Parts { redis, clock, max: max.map(NonZeroU64::get), used, due: Mutex::default() }));
        for resource in Resource::ALL {
            resource.refused().absolute(0);
        }
        let (reporting, draining) = (quotas.clone(), tasks.draining().clone());
        tasks.best_effort("quotas", async move {
            // Cancel safe: what was not reported counts here, and is reported with the next step.
            while draining.run_until_cancelled(tokio::time::sleep(REPORT_INTERVAL)).await.is_some() {
                draining.run_until_cancelled(reporting.report()).await;
            }
        });
        quotas
    }

    /// Refuses a user who has used up the day's quota.
    pub fn check(&self, user_id: UserId, resource: Resource) -> Result<(), Refusal> {
        let now = self.0.clock.now();
        let Some(used) = self.0.used.get(&user_id) else { return Ok(()) };
        let used = used.lock();
        if used.day != now.day() || resource.of(&used.counts).total() < *resource.of(&self.0.max) {
            return Ok(());
        }
        drop(used);
        resource.refused().increment(1);
        let left_ms = now.day().plus(1).start().0 - now.0;
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or_default());
        Err(Refusal::over_quota(resource.description(), left))
    }

    /// Counts what a user has used.
    pub fn count(&self, user_id: UserId, resource: Resource, amount: u64) {
        let today = self.0.clock.now().day();
        let used =
            self.0.used.get_with(user_id, || Arc::new(Mutex::new(Used { day: today, counts: [Count::default(); 3] })));
        let mut used = used.lock();
        if used.day != today {
            *used = Used { day: today, counts: [Count::default(); 3] };
        }
        let count = resource.of_mut(&mut used.counts);
        count.unreported = count.unreported.saturating_add(amount);
        if count.unreported >= self.step(resource) {
            let mut due = self.0.due.lock();
            if due.len() < DUE_MAX {
                due.insert(user_id);
            }
        }
    }

    /// Checks, and counts if it is allowed.
    pub fn take(&self, user_id: UserId, resource: Resource, amount: u64) -> Result<(), Refusal> {
        self.check(user_id, resource)?;
        self.count(user_id, resource, amount);
        Ok(())
    }

    fn step(&self, resource: Resource) -> u64 {
        (resource.of(&self.0.max) / STEPS).max(1)
    }

    /// Adds what is due to the counters in Redis, and learns what other gateways have added.
    pub async fn report(&self) {
        let due = mem::take(&mut *self.0.due.lock());
        let additions: Vec<_> = due.into_iter().flat_map(|user_id| self.additions(user_id)).collect();
        for additions in additions.chunks(REPORTED_MAX) {
            match self.add(additions).await {
                Ok(totals) => additions.iter().zip(totals).for_each(|(addition, total)| self.learn(addition, total)),
                // They may have been added, and count as if they were: repeating them could count them twice.
                Err(RedisError::TimedOut) => additions.iter().for_each(|addition| self.learn(addition, 0)),
                Err(error) => {
                    tracing::debug!(%error, "quotas are counted by this gateway alone");
                    self.0.due.lock().extend(additions.iter().map(|addition| addition.user_id));
                }
            }
        }
    }

    fn additions(&self, user_id: UserId) -> Vec<Addition> {
        let Some(used) = self.0.used.get(&user_id) else { return Vec::new() };
        let used = used.lock();
        let additions = Resource::ALL.into_iter().filter_map(|resource| {
            let amount = resource.of(&used.counts).unreported;
            (amount >= self.step(resource)).then_some(Addition { user_id, day: used.day, resource, amount })
        });
        additions.collect()
    }

    async fn add(&self, additions: &[Addition]) -> Result<Vec<u64>, RedisError> {
        let mut pipeline = redis::pipe();
        for Addition { user_id, day, resource, amount } in additions {
            let key = format!("{}:{{{}}}:used:{}", self.0.redis.namespace(), user_id.as_uuid().simple(), day.0);
            pipeline.cmd("HINCRBY").arg(&key).arg(resource.as_str()).arg(*amount);
            pipeline.cmd("PEXPIRE").arg(&key).arg(KEPT.as_millis().to_string()).ignore();
        }
        let mut redis = self.0.redis.link().await?;
        bounded(pipeline.query_async(&mut redis)).await.map_err(|error| match error {
            // The connection ended before the answer, which is as good as no answer in time.
            RedisError::Redis(error) if error.is_io_error() => RedisError::TimedOut,
            error => error,
        })
    }

    fn learn(&self, addition: &Addition, total: u64) {
        let Some(used) = self.0.used.get(&addition.user_id) else { return };
        let mut used = used.lock();
        if used.day == addition.day {
            let count = addition.resource.of_mut(&mut used.counts);
            count.unreported = count.unreported.saturating_sub(addition.amount);
            // A Redis that has lost its counters knows less than this gateway does.
            count.reported = total.max(count.reported.saturating_add(addition.amount));
        }
    }
}

impl Count {
    const fn total(self) -> u64 {
        self.reported.saturating_add(self.unreported)
    }
}
