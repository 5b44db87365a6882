//! Profiles in Redis, which all gateways share: `<namespace>:profile:u:<id>` of users and `…:b:<id>` of businesses.
//!
//! A value is `<generation> <when it was fetched> <what kaha-main-v3 said>`. Each change of a profile begins a generation.
//! **Invariant:** what was asked for in an earlier generation is never kept. A value that is fetched at 0 is not current.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use chat_shared::{
    breaker::Breaker,
    clock::Timestamp,
    limits,
    redis::{Redis, RedisError, bounded},
};
use redis::Script;

use super::record::{Profile, ProfileId, Verdict, View};

static STORE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/store.lua")));
static CHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/change.lua")));

/// How long a request for profiles waits for Redis, beside which kaha-main-v3 can be asked. Once it has waited in vain,
/// nobody does for a second.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Time to live of `null`, for an id that kaha-main-v3 knew and knows no more. One that it never knew has no value.
const UNKNOWN_FRESH: Duration = Duration::from_mins(5);
/// How long the change of a profile that isn't kept is remembered: longer than any fetch takes that began before.
const CHANGE_KEPT: Duration = Duration::from_mins(5);
/// How far the clock of the gateway that fetched a profile may be ahead.
const CLOCK_AHEAD_MAX: Duration = Duration::from_mins(1);
/// Bytes of a value that is understood.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The count of a profile's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Generation(u64);

/// What Redis has of an id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// To be given back when it is stored.
    pub generation: Generation,
    fetched_at: Timestamp,
    verdict: Option<Verdict>,
}

impl Entry {
    /// What it says, if that is still current.
    pub fn current(&self, now: Timestamp) -> Option<&Verdict> {
        let verdict = self.verdict.as_ref()?;
        let fresh = match verdict {
            Verdict::Known(_) => limits::PROFILE_FRESH,
            Verdict::Unknown => UNKNOWN_FRESH,
        };
        let is_current = now < self.fetched_at.after(fresh) && self.fetched_at <= now.after(CLOCK_AHEAD_MAX);
        Some(verdict).filter(|_| is_current)
    }

    /// What is shown while kaha-main-v3 can't be asked.
    pub fn last_resort(self) -> View {
        match self.verdict {
            Some(Verdict::Known(profile)) => View::Stale(profile),
            Some(Verdict::Unknown) | None => View::Unavailable,
        }
    }

    /// A value that can't be read is as good as none; it is replaced by the next fetch.
    fn read(value: Option<&[u8]>) -> Self {
        value.and_then(Self::parse).unwrap_or_default()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= VALUE_BYTES_MAX)?;
        let (generation, rest) = text.split_once(' ')?;
        let (fetched_at, said) = rest.split_once(' ')?;
        let verdict = match said {
            "" => None,
            "null" => Some(Verdict::Unknown),
            profile => serde_json::from_str(profile).ok().map(|profile| Verdict::Known(Arc::new(profile))),
        };
        Some(Self {
            generation: Generation(generation.parse().ok()?),
            fetched_at: Timestamp(fetched_at.parse().ok()?),
            verdict,
        })
    }
}

/// The profiles that Redis has.
pub(super) struct Stored {
    redis: Redis,
    breaker: Breaker,
}

impl Stored {
    pub fn on(redis: &Redis) -> Self {
        Self { redis: redis.clone(), breaker: Breaker::default() }
    }

    /// What it has of each of the ids, in their order; one round trip.
    pub async fn read(&self, ids: &[ProfileId]) -> Result<Vec<Entry>, RedisError> {
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.get(self.key(*id));
        }
        let values: Vec<Option<Vec<u8>>> = self.ask(&pipeline, ids.len()).await?;
        Ok(values.iter().map(|value| Entry::read(value.as_deref())).collect())
    }

    /// Keeps what kaha-main-v3 said when it was asked at `asked_at`. Gives the generation that each profile is in now, in
    /// their order: what was asked for in another one has not been kept.
    pub async fn store(
        &self,
        fetched: &[(ProfileId, Generation, Verdict)],
        asked_at: Timestamp,
    ) -> Result<Vec<Generation>, RedisError> {
        let mut pipeline = redis::pipe();
        // Loading it each time costs little and survives a restart of Redis.
        pipeline.load_script(&STORE).ignore();
        for (id, generation, verdict) in fetched {
            let (said, kept) = match verdict {
                Verdict::Known(profile) => (written(profile), limits::PROFILE_FRESH + limits::PROFILE_STALE),
                Verdict::Unknown => ("null".to_owned(), UNKNOWN_FRESH),
            };
            let call = pipeline.cmd("EVALSHA").arg(STORE.get_hash()).arg(1).arg(self.key(*id));
            call.arg(generation.0).arg(asked_at.0).arg(said).arg(millis(kept));
        }
        generations(self.ask(&pipeline, fetched.len()).await?)
    }

    /// Says that profiles have changed: what is kept of them is no longer current. Gives their new generations, in their
    /// order.
    pub async fn change(&self, ids: &[ProfileId]) -> Result<Vec<Generation>, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.load_script(&CHANGE).ignore();
        for id in ids {
            let call = pipeline.cmd("EVALSHA").arg(CHANGE.get_hash()).arg(1).arg(self.key(*id));
            call.arg(millis(CHANGE_KEPT));
        }
        let mut redis = self.redis.link().await?;
        // Nobody's page waits for this, and it must not be given up lightly.
        let answers: Vec<String> = bounded(pipeline.query_async(&mut redis)).await?;
        if answers.len() != ids.len() {
            return Err(unexpected_answer());
        }
        generations(answers)
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
        answers_expected: usize,
    ) -> Result<Vec<T>, RedisError> {
        let asked_at = Instant::now();
        if !self.breaker.permits(asked_at) {
            return Err(RedisError::TimedOut);
        }
        let asking = async { Ok(pipeline.query_async(&mut self.redis.link().await?).await?) };
        let answered: Result<Vec<T>, RedisError> =
            tokio::time::timeout(WAIT_MAX, asking).await.unwrap_or(Err(RedisError::TimedOut));
        match answered {
            Ok(answers) if answers.len() == answers_expected => {
                self.breaker.close(Instant::now());
                Ok(answers)
            }
            Ok(_) => Err(unexpected_answer()),
            // One that answers, if only that it is full, is not out of reach.
            Err(RedisError::Redis(error)) if !error.is_io_error() && !error.is_unrecoverable_error() => {
                Err(error.into())
            }
            Err(error) => Err(self.failed(asked_at, error)),
        }
    }

    fn failed(&self, asked_at: Instant, error: RedisError) -> RedisError {
        if self.breaker.fail(asked_at, Instant::now()) {
            tracing::warn!(%error, "Redis has no profiles for us; kaha-main-v3 is asked instead");
        }
        error
    }

    fn key(&self, id: ProfileId) -> String {
        let kind = match id {
            ProfileId::User(_) => 'u',
            ProfileId::Business(_) => 'b',
        };
        format!("{}:profile:{kind}:{}", self.redis.namespace(), id.as_uuid().simple())
    }
}

fn written(profile: &Profile) -> String {
    serde_json::to_string(profile).expect("a profile is a map of strings, which always encodes")
}

fn generations(answers: Vec<String>) -> Result<Vec<Generation>, RedisError> {
    let numbers = answers.into_iter().map(|answer| answer.parse().map(Generation).map_err(|_| unexpected_answer()));
    numbers.collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected_answer() -> RedisError {
    RedisError::Redis((redis::ErrorKind::UnexpectedReturnType, "the answer is not what was asked for").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fetched_at: i64, verdict: Option<Verdict>) -> Entry {
        Entry { generation: Generation(3), fetched_at: Timestamp(fetched_at), verdict }
    }

    fn known() -> Verdict {
        Verdict::Known(Arc::new(Profile { name: "Asha \"Yak\"\nRai".into(), avatar_url: None }))
    }

    #[test]
    fn a_profile_is_current_for_a_day_and_stale_from_then_on_r11_1_r11_2() {
        let (now, day_ms) = (Timestamp(1_800_000_000_000), 86_400_000);
        let is_current = |entry: &Entry| entry.current(now).is_some();
        assert!(is_current(&entry(now.0 - day_ms + 1, Some(known()))));
        assert!(!is_current(&entry(now.0 - day_ms, Some(known()))));
        assert!(!is_current(&entry(0, Some(known()))), "it has changed since");
        assert!(!is_current(&entry(now.0 + day_ms, Some(known()))), "by a clock that is wrong");
        assert!(is_current(&entry(now.0 - 299_999, Some(Verdict::Unknown))));
        assert!(!is_current(&entry(now.0 - 300_000, Some(Verdict::Unknown))));
        assert!(matches!(entry(0, Some(known())).last_resort(), View::Stale(_)));
        assert_eq!(entry(0, Some(Verdict::Unknown)).last_resort(), View::Unavailable);
        assert_eq!(entry(0, None).last_resort(), View::Unavailable);
    }

    #[test]
    fn values_are_read_as_they_were_written_and_nonsense_is_none() {
        let Verdict::Known(profile) = known() else { unreachable!() };
        let read = |text: String| Entry::read(Some(text.as_bytes()));
        assert_eq!(read(format!("3 17 {}", written(&profile))), entry(17, Some(known())));
        assert_eq!(read("3 17 null".to_owned()), entry(17, Some(Verdict::Unknown)));
        assert_eq!(read("3 17 ".to_owned()), entry(17, None));
        assert_eq!(read("3 17 {\"n\":7}".to_owned()), entry(17, None), "the generation counts all the same");
        for wrong in ["", "3", "3 17", "x 17 null", "3 x null", "-1 17 null"] {
            assert_eq!(read(wrong.to_owned()), Entry::default(), "{wrong:?}");
        }
        assert_eq!(Entry::read(None), Entry::default());
        assert_eq!(Entry::read(Some(&[0xff, 0xfe])), Entry::default());
    }
}
