//! Puts events in inboxes: one script for each user of the audience, all of a batch in one round trip.

use std::sync::LazyLock;

use redis::{RedisResult, Script, Value, from_redis_value};
use tokio::time::timeout;

use super::{InboxError, Inboxes, bounded, lsn_min};
use crate::{
    ids::{ConversationId, Epoch, GatewayId, UserId},
    limits,
    position::{Cursor, Lsn, Seq},
};

static ROUTE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/route.lua")));

/// One event for one user.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'a> {
    /// Whose inbox.
    pub user_id: UserId,
    /// The event's bytes.
    pub event: &'a [u8],
    /// Of a delivery: where and up to which message, so that one that is behind is passed over.
    pub delivered: Option<(ConversationId, Seq)>,
    /// Of a change that PostgreSQL's log has up to here: the user's minimum from now on, unless that is higher. A delivery has
    /// none.
    pub lsn: Option<Lsn>,
}

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// The user has never been connected, or their inbox was lost: they reload when they connect. Of a delivery also: a
    /// later one is known.
    NoInbox,
    /// The user's inbox can't be used until it is [reset](Inboxes::reset); it may have a hole now.
    Broken,
    /// It stands in the inbox.
    At {
        /// The inbox' epoch.
        epoch: Epoch,
        /// Its place there.
        cursor: Cursor,
        /// The gateways that hold sessions of the user, each once.
        gateways: Vec<GatewayId>,
        /// Whether the user may have devices that are registered for notifications; false if it is known that none is.
        may_notify: bool,
    },
}

impl Inboxes {
    /// Appends each event to its user's inbox, in the order given. An error means that any of them may or may
    /// not stand there; a repeat puts them there again, which clients pass over. A broken inbox is no error: it concerns
    /// its user only.
    pub async fn route(&self, routings: &[Routing<'_>]) -> Result<Vec<Routed>, InboxError> {
        // Opening a connection included, or it would take longer than a part stays with its notifier.
        timeout(limits::REDIS_WAIT_MAX, self.route_all(routings)).await.unwrap_or(Err(InboxError::TimedOut))
    }

    async fn route_all(&self, routings: &[Routing<'_>]) -> Result<Vec<Routed>, InboxError> {
        let mut redis = self.redis.link().await?;
        let mut pipeline = redis::pipe();
        // Loading it each time costs little and survives a restart of Redis.
        pipeline.ignore_errors().load_script(&ROUTE).ignore();
        for routing in routings {
            let keys = self.keys(routing.user_id);
            pipeline
                .cmd("EVALSHA")
                .arg(ROUTE.get_hash())
                .arg(if routing.lsn.is_some() { 5 } else { 4 })
                .arg(keys.meta)
                .arg(keys.entries)
                .arg(keys.sessions)
                .arg(keys.delivered);
            if routing.lsn.is_some() {
                pipeline.arg(self.lsn_key(routing.user_id.as_uuid()));
            }
            pipeline.arg(redis.run()).arg(routing.event).arg(limits::INBOX_ENTRIES_MAX).arg(limits::INBOX_BYTES_MAX);
            if let Some(lsn) = routing.lsn {
                pipeline.arg(lsn_min::text(lsn)).arg(super::millis(lsn_min::LSN_MIN_AGE_MAX));
            } else if let Some((conversation_id, seq)) = routing.delivered {
                pipeline.arg(conversation_id.as_uuid().simple().to_string()).arg(seq.0);
            }
        }
        let asking = async {
            let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut redis).await?;
            answers.into_iter().map(judged).collect::<RedisResult<Vec<Routed>>>()
        };
        let routed = bounded(asking).await?;
        if routed.len() != routings.len() {
            return Err(super::unexpected_answer());
        }
        Ok(routed)
    }
}

/// One user's answer. An error that is not theirs is the whole batch's.
fn judged(answer: RedisResult<Value>) -> RedisResult<Routed> {
    match answer {
        Ok(answer) => Ok(from_redis_value(answer).ok().and_then(routed).unwrap_or(Routed::Broken)),
        Err(error) if super::broken::is_of_user(&error) => Ok(Routed::Broken),
        Err(error) => Err(error),
    }
}

fn routed(answer: Vec<Value>) -> Option<Routed> {
    let mut values = answer.into_iter().map(from_redis_value::<String>);
    let Some(epoch) = values.next() else { return Some(Routed::NoInbox) };
    let epoch = epoch.ok()?.parse().ok()?;
    let cursor = Cursor(values.next()?.ok()?.parse().ok()?);
    let may_notify = values.next()?.ok()? != "0";
    let gateways = super::presence::gateways(values.map(Result::ok))?;
    Some(Routed::At { epoch, cursor, gateways, may_notify })
}
