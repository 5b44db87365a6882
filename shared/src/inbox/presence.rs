//! Who is there: users with a session on a gateway whose lease holds.
//!
//! **Invariant:** each change of a user's sessions has a larger number than the one before, whatever the clock of Redis does.
//! The number is in milliseconds of that clock, or one more than the one before.

use super::{InboxError, Inboxes, bounded};
use crate::{
    clock::Timestamp,
    ids::{GatewayId, UserId},
    wire::Presence,
};

/// Whether a user is there, and when that was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How they are.
    pub presence: Presence,
    /// The last change of their sessions that this shows.
    pub at: Timestamp,
    /// When it was read, by the clock of Redis.
    pub now: Timestamp,
}

/// Last sight, run, and number of the last change.
type Meta = (Option<i64>, Option<String>, Option<i64>);

impl Inboxes {
    /// The presence of each user, in the order given.
    pub async fn presence(&self, user_ids: &[UserId]) -> Result<Vec<Seen>, InboxError> {
        let mut pipeline = redis::pipe();
        // At once, so that the number is that of the sessions.
        pipeline.atomic().cmd("TIME");
        for user_id in user_ids {
            let keys = self.keys(*user_id);
            pipeline.cmd("HVALS").arg(keys.sessions);
            pipeline.cmd("HMGET").arg(keys.meta).arg("last_seen").arg("run").arg("presence_at");
        }
        let mut redis = self.redis.link().await?;
        let answers: Vec<redis::Value> = bounded(pipeline.query_async(&mut redis)).await?;
        let mut answers = answers.into_iter();
        let (seconds, micros): (i64, i64) = take(&mut answers)?;
        let now = Timestamp(seconds * 1000 + micros / 1000);
        let mut found = Vec::with_capacity(user_ids.len());
        for user_id in user_ids {
            let mut sessions: Vec<String> = take(&mut answers)?;
            let (mut last_seen, run, mut at): Meta = take(&mut answers)?;
            if super::is_of_another_run(run.as_deref(), &redis) {
                sessions.clear();
                last_seen = None;
                // It may lack changes that were announced before a fail-over, and comes after them.
                at = None;
            }
            let gateways = gateways(sessions.into_iter().map(Some)).ok_or_else(super::unexpected_answer)?;
            // Without a number a change in this millisecond is later.
            let at = Timestamp(at.unwrap_or(now.0 - 1));
            found.push((*user_id, gateways, last_seen, at));
        }
        let live = self.live(found.iter().flat_map(|(_, gateways, ..)| gateways.iter().copied())).await?;
        let seen = |(user_id, gateways, last_seen, at): (UserId, Vec<GatewayId>, Option<i64>, Timestamp)| {
            let is_online = gateways.iter().any(|gateway_id| live.contains(gateway_id));
            let last_seen_at = last_seen.filter(|_| !is_online).map(Timestamp);
            Seen { presence: Presence { user_id, is_online, last_seen_at }, at, now }
        };
        Ok(found.into_iter().map(seen).collect())
    }

    /// The gateways that hold sessions of each user, in the order given; dead ones may be among them.
    pub async fn gateways_of(&self, user_ids: &[UserId]) -> Result<Vec<Vec<GatewayId>>, InboxError> {
        let mut pipeline = redis::pipe();
        for user_id in user_ids {
            pipeline.cmd("HVALS").arg(self.keys(*user_id).sessions);
        }
        let mut redis = self.redis.link().await?;
        let answers: Vec<Vec<String>> = bounded(pipeline.query_async(&mut redis)).await?;
        let parsed = answers.into_iter().map(|sessions| gateways(sessions.into_iter().map(Some)));
        parsed.map(|gateways| gateways.ok_or_else(super::unexpected_answer)).collect()
    }
}

fn take<T: redis::FromRedisValue>(answers: &mut impl Iterator<Item = redis::Value>) -> Result<T, InboxError> {
    let answer = answers.next().ok_or_else(super::unexpected_answer)?;
    redis::from_redis_value(answer).map_err(|_| super::unexpected_answer())
}

/// The gateways in the values of sessions, each once.
pub(super) fn gateways(sessions: impl Iterator<Item = Option<String>>) -> Option<Vec<GatewayId>> {
    let mut gateways =
        sessions.map(|session| session?.split_once(' ')?.0.parse().ok()).collect::<Option<Vec<GatewayId>>>()?;
    gateways.sort_unstable();
    gateways.dedup();
    Some(gateways)
}
