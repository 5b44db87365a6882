//! Logins that have ended: whose tokens are taken no longer, though they haven't expired.
//!
//! **Invariant:** what was revoked before a request began is refused by every gateway within a second; no request asks
//! Redis for it. A gateway that didn't hear of it reads it from Redis, and one that did writes it there if it is missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chat_shared::{
    clock::Timestamp,
    delivery::{Delivery, Revocation, all_gateways_subject},
    ids::{LoginId, UserId},
    redis::{Redis, RedisError, bounded},
    wire::CloseCode,
};
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::{Identity, revoked::Revoked};
use crate::{
    connection::Registry,
    delivery::{self, Gateways},
    refusal::Refusal,
    state::AppState,
    telemetry,
};

/// How often a gateway reads what it may not have heard of.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How soon it looks again after it has started, or Redis was out of reach or lacked something.
const LOOK_SOON: Duration = Duration::from_secs(2);
/// How far back it reads beyond the last time: clocks of gateways differ, and writing takes its time.
const LOOK_BACK: Duration = Duration::from_mins(2);
/// How far ahead of this gateway's clock the moment of a revocation may be. One that is further ahead would lock its user out
/// until then.
const AHEAD_MAX: Duration = Duration::from_mins(1);
/// How much longer than tokens live their revocation is remembered.
const MARGIN: Duration = Duration::from_mins(1);
/// Revocations that are remembered. Beyond it the oldest go.
const REVOCATIONS_MAX: usize = 500_000;
/// Of them, how many are read or written at once.
const PAGE: usize = 2_000;

/// Revoked logins, as this gateway knows them.
#[derive(Clone)]
pub struct Revocations {
    redis: Redis,
    remembered_for: Duration,
    known: Arc<RwLock<Revoked>>,
    wanted: Arc<Notify>,
    /// From when on Redis is read the next time.
    unread_from: Arc<AtomicI64>,
}

impl Revocations {
    /// None known yet. Tokens live for `lifetime_max` at the most, so that is how long a revocation matters.
    pub fn new(redis: Redis, lifetime_max: Duration) -> Self {
        Self {
            redis,
            remembered_for: lifetime_max + MARGIN,
            known: Arc::default(),
            wanted: Arc::default(),
            unread_from: Arc::default(),
        }
    }

    /// Whether the token that this identity comes from is taken no longer.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.known.read().concerns(identity)
    }

    /// Takes in what was revoked, none of it far ahead of `now`, and closes the connections it concerns.
    pub fn learn(&self, connections: &Registry, revocations: &[Revocation], now: Timestamp) {
        {
            let mut known = self.known.write();
            for revocation in revocations {
                known.add(&Revocation { at: revocation.at.min(now.after(AHEAD_MAX)), ..*revocation });
            }
            let dropped = known.bound(REVOCATIONS_MAX);
            if dropped > 0 {
                tracing::error!(
                    dropped,
                    "too many logouts to remember: the oldest are forgotten before their tokens expire"
                );
                metrics::counter!(telemetry::REVOCATIONS_DROPPED_TOTAL)
                    .increment(u64::try_from(dropped).unwrap_or(u64::MAX));
            }
            metrics::gauge!(telemetry::REVOCATIONS).set(u32::try_from(known.len()).unwrap_or(u32::MAX));
        }
        // They were noted first: a connection that comes after this finds them.
        for connection in revocations.iter().flat_map(|revocation| connections.of(revocation.user_id)) {
            if self.is_revoked(&connection.identity()) {
                connection.close(CloseCode::LoggedOut);
            }
        }
    }

    /// Revokes a login, or all of a user's, on every gateway. All of it is tried, whatever fails; whoever asked repeats it then.
    pub async fn revoke(&self, state: &AppState, user_id: UserId, login: Option<LoginId>) -> Result<(), Refusal> {
        let now = state.clock.now();
        let revocations = [Revocation { user_id, login, at: now }];
        self.learn(&state.connections, &revocations, now);
        let told = Delivery::Revoked(revocations.to_vec());
        let gateways = Gateways::new(state.nats.clone(), state.namespace.clone(), state.inboxes.clone());
        let (is_heard, kept) = tokio::join!(gateways.tell(&told), self.keep(&revocations, now));
        // Again, for a gateway that has started since it was said and has looked before it was kept.
        delivery::publish(state, all_gateways_subject(&state.namespace), &told).await;
        if login.is_none() {
            state.devices.remove_all(user_id).await?;
        }
        kept.map_err(|error| Refusal::unavailable("Redis", &error))?;
        if is_heard { Ok(()) } else { Err(Refusal::unavailable("another gateway", &Unheard)) }
    }

    /// Has Redis read soon: something may have been lost on the way to this gateway.
    pub fn look_soon(&self) {
        self.wanted.notify_one();
    }

    /// Reads from Redis what this gateway may not have heard of, and forgets what is over; whether Redis knew as much.
    pub async fn look(&self, connections: &Registry, now: Timestamp) -> Result<bool, RedisError> {
        let (earliest, latest) = (self.earliest(now), now.after(AHEAD_MAX));
        let mut from = Timestamp(self.unread_from.load(Ordering::Relaxed)).max(earliest);
        let known = {
            let mut known = self.known.write();
            known.forget_before(earliest);
            known.len()
        };
        let mut passed_over = 0;
        loop {
            let page = self.read(from, latest, passed_over).await?;
            let Some(last) = page.last().map(|(_, at)| *at) else { break };
            let of_last = page.iter().filter(|(_, at)| *at == last).count();
            (from, passed_over) = (last, if last == from { passed_over + of_last } else { of_last });
            let revocations: Vec<_> = page.iter().filter_map(|(member, at)| parse(member, *at)).collect();
            self.learn(connections, &revocations, now);
            if page.len() < PAGE {
                break;
            }
        }
        self.unread_from.store(now.before(LOOK_BACK).0, Ordering::Relaxed);
        let count = redis::cmd("ZCOUNT").arg(self.key()).arg(earliest.0).arg(latest.0).to_owned();
        let mut connection = self.redis.link().await?;
        let kept: usize = bounded(count.query_async(&mut connection)).await?;
        if kept > self.known.read().len() {
            // Another gateway wrote again what Redis had lost, also from before this look.
            self.unread_from.store(0, Ordering::Relaxed);
        }
        Ok(kept >= known.min(REVOCATIONS_MAX))
    }

    /// Reads what was revoked before this gateway started, and keeps it up to date from then on. If Redis is out of reach the
    /// gateway starts all the same, and looks again and again.
    pub async fn start(&self, state: &AppState) {
        if let Err(error) = self.look(&state.connections, state.clock.now()).await {
            tracing::warn!(%error, "logouts from before can't be read yet: their tokens are taken until they can");
        }
        state.tasks.best_effort("revocations", self.clone().watch(state.clone()));
    }

    /// Keeps this gateway, and Redis after it has lost something, up to date until the gateway drains.
    async fn watch(self, state: AppState) {
        let draining = state.tasks.draining();
        let (mut pause, mut is_lacking) = (LOOK_SOON, false);
        // Cancel safe: a signal that is lost with the wait is made up for by the look that follows.
        while draining.run_until_cancelled(tokio::time::timeout(pause, self.wanted.notified())).await.is_some() {
            let looked = self.look(&state.connections, state.clock.now()).await;
            // Once may be a logout that is just being kept by whoever told of it.
            let outcome = match looked {
                Ok(false) if is_lacking => self.keep_all(state.clock.now()).await,
                Ok(is_complete) => {
                    is_lacking = !is_complete;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = &outcome {
                tracing::warn!(%error, "logouts could not be read or written, trying again");
            }
            pause = if outcome.is_err() || is_lacking { LOOK_SOON } else { LOOK_INTERVAL };
        }
    }

    /// Writes to Redis all that this gateway knows.
    async fn keep_all(&self, now: Timestamp) -> Result<(), RedisError> {
        let all = self.known.read().all();
        tracing::warn!(revocations = all.len(), "Redis has lost logouts: they are written again");
        for page in all.chunks(PAGE) {
            self.keep(page, now).await?;
        }
        Ok(())
    }

    async fn keep(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), RedisError> {
        let (key, mut pipe) = (self.key(), redis::pipe());
        // First, since what is further ahead would keep the true moment of the same login out.
        let ahead = format!("({}", now.after(AHEAD_MAX).0);
        pipe.atomic().cmd("ZREMRANGEBYSCORE").arg(&key).arg(ahead).arg("+inf").ignore();
        pipe.cmd("ZADD").arg(&key).arg("GT");
        for revocation in revocations {
            pipe.arg(revocation.at.0).arg(member(revocation));
        }
        pipe.ignore();
        let over = format!("({}", self.earliest(now).0);
        pipe.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(over).ignore();
        pipe.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(format!("-{}", REVOCATIONS_MAX + 1)).ignore();
        let life_ms = u64::try_from(self.remembered_for.as_millis()).unwrap_or(u64::MAX);
        pipe.cmd("PEXPIRE").arg(&key).arg(life_ms).ignore();
        let mut connection = self.redis.link().await?;
        bounded(pipe.exec_async(&mut connection)).await
    }

    /// A page of what is kept from `from` until `latest`, in order, with the moment of each.
    async fn read(
        &self,
        from: Timestamp,
        latest: Timestamp,
        passed_over: usize,
    ) -> Result<Vec<(String, Timestamp)>, RedisError> {
        let mut read = redis::cmd("ZRANGE");
        read.arg(self.key()).arg(from.0).arg(latest.0).arg("BYSCORE");
        read.arg("LIMIT").arg(passed_over).arg(PAGE).arg("WITHSCORES");
        let mut connection = self.redis.link().await?;
        let page: Vec<(String, i64)> = bounded(read.query_async(&mut connection)).await?;
        Ok(page.into_iter().map(|(member, at)| (member, Timestamp(at))).collect())
    }

    /// What was revoked earlier concerns no token that hasn't expired.
    fn earliest(&self, now: Timestamp) -> Timestamp {
        now.before(self.remembered_for)
    }

    /// A sorted set: who, at which moment.
    fn key(&self) -> String {
        format!("{}:revoked", self.redis.namespace())
    }
}

/// NATS is away, or a gateway is that has not been gone for long.
#[derive(Debug, thiserror::Error)]
#[error("not every gateway has said that it heard")]
struct Unheard;

/// How a revocation is written in Redis, beside its moment.
fn member(Revocation { user_id, login, .. }: &Revocation) -> String {
    let user_id = user_id.as_uuid().simple();
    login.map_or_else(|| user_id.to_string(), |login| format!("{user_id}:{login}"))
}

fn parse(member: &str, at: Timestamp) -> Option<Revocation> {
    let (user_id, login) = match member.split_once(':') {
        Some((user_id, login)) => (user_id, Some(login.parse().ok()?)),
        None => (member, None),
    };
    Some(Revocation { user_id: UserId::from_key(user_id)?, login, at })
}
