//! What is known of a user's notifications: which were sent, what their badge shows, whether there is any device, and what
//! a device has confirmed.
//!
//! **Invariant:** a notification is claimed before it is sent, and a claim whose outcome is unknown is never given back.

use std::{sync::LazyLock, time::Duration};

use redis::{AsyncCommands, Script};

use super::{InboxError, Inboxes, Unconfirmed, bounded, millis};
use crate::{
    clock::Timestamp,
    ids::{DeviceId, Epoch, MessageId, UserId},
    limits,
    position::Cursor,
    redis::Link,
};

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));
static NOTE_DEVICES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/note_devices.lua")));

/// How long claims are kept after the last attempt at any of them; longer than two attempts are apart.
const CLAIMS_KEPT: Duration = Duration::from_hours(2);

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's to send.
    Taken,
    /// It has been sent.
    Sent,
    /// Somebody claimed it, and nobody knows whether they sent it.
    Unknown,
}

/// Where a user stands who may have to be notified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The inbox' epoch; none if there is no inbox.
    pub epoch: Option<Epoch>,
    /// What some device of theirs has confirmed.
    pub confirmed: Cursor,
    /// When their last session ended, by the clock of Redis; none while they have one.
    pub last_seen_at: Option<Timestamp>,
    /// Now, by the same clock.
    pub now: Timestamp,
}

/// Epoch, last sight and run; confirmed cursors; how many sessions; now in seconds and microseconds.
type StandingAnswer = ((Option<String>, Option<i64>, Option<String>), Vec<u64>, usize, (i64, i64));

impl Inboxes {
    /// Claims the notification of a message for a device.
    pub async fn claim(
        &self,
        user_id: UserId,
        message_id: MessageId,
        device_id: DeviceId,
    ) -> Result<Claim, InboxError> {
        let mut claim = CLAIM.prepare_invoke();
        let (key, device) = self.claim_place(user_id, message_id, device_id);
        claim.key(key).arg(device).arg(millis(CLAIMS_KEPT));
        let mut redis = self.redis.link().await?;
        let before: String = bounded(claim.invoke_async(&mut redis)).await?;
        Ok(match before.as_str() {
            "" => Claim::Taken,
            "sent" => Claim::Sent,
            _ => Claim::Unknown,
        })
    }

    /// Says that a claimed notification was sent, or will never be.
    pub async fn conclude_claim(
        &self,
        user_id: UserId,
        message_id: MessageId,
        device_id: DeviceId,
    ) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        let (key, device) = self.claim_place(user_id, message_id, device_id);
        bounded(redis.hset(key, device, "sent")).await
    }

    /// Gives a claim back: the notification was surely not sent.
    pub async fn give_claim_back(
        &self,
        user_id: UserId,
        message_id: MessageId,
        device_id: DeviceId,
    ) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        let (key, device) = self.claim_place(user_id, message_id, device_id);
        bounded(redis.hdel(key, device)).await
    }

    /// What a user's devices have confirmed, and since when they are away.
    pub async fn standing(&self, user_id: UserId) -> Result<Standing, InboxError> {
        let keys = self.keys(user_id);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(&keys.meta).arg("epoch").arg("last_seen").arg("run");
        pipeline.cmd("HVALS").arg(&keys.devices).cmd("HLEN").arg(&keys.sessions).cmd("TIME");
        let mut redis = self.redis.link().await?;
        let ((epoch, last_seen, run), confirmed, sessions, (seconds, micros)): StandingAnswer =
            bounded(pipeline.query_async(&mut redis)).await?;
        let now = Timestamp(seconds * 1000 + micros / 1000);
        if super::is_of_another_run(run.as_deref(), &redis) {
            return Ok(Standing { now, ..Standing::default() });
        }
        Ok(Standing {
            epoch: epoch.and_then(|epoch| epoch.parse().ok()),
            confirmed: Cursor(confirmed.into_iter().max().unwrap_or(0)),
            last_seen_at: last_seen.filter(|_| sessions == 0).map(Timestamp),
            now,
        })
    }

    /// What no device of each user has confirmed, in the order given; none if that is nothing.
    pub async fn unconfirmed(&self, user_ids: &[UserId]) -> Result<Vec<Option<Unconfirmed>>, InboxError> {
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for user_id in user_ids {
            let keys = self.keys(*user_id);
            pipeline.cmd("HMGET").arg(&keys.meta).arg("epoch").arg("head").arg("run").cmd("HVALS").arg(&keys.devices);
        }
        let mut redis = self.redis.link().await?;
        let answers: Vec<redis::Value> = bounded(pipeline.query_async(&mut redis)).await?;
        answers.chunks_exact(2).map(|answer| unconfirmed(answer, &redis)).collect()
    }

    /// The badge that the user's devices were last told; none if none was for 14 days.
    pub async fn badge(&self, user_id: UserId) -> Result<Option<u64>, InboxError> {
        let mut redis = self.redis.link().await?;
        bounded(redis.get(self.badge_key(user_id))).await
    }

    /// As [`Inboxes::badge`], of several users at once, in the order given.
    pub async fn badges(&self, user_ids: &[UserId]) -> Result<Vec<Option<u64>>, InboxError> {
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for user_id in user_ids {
            pipeline.get(self.badge_key(*user_id));
        }
        let mut redis = self.redis.link().await?;
        bounded(pipeline.query_async(&mut redis)).await
    }

    /// Notes the badge that the user's devices were told.
    pub async fn note_badge(&self, user_id: UserId, badge: u64) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        bounded(redis.pset_ex(self.badge_key(user_id), badge, millis(limits::INBOX_IDLE_MAX))).await
    }

    /// Notes whether the user has devices that are registered for notifications. That there are none counts only while
    /// nothing else is known.
    pub async fn note_devices(&self, user_id: UserId, has_any: bool) -> Result<(), InboxError> {
        let mut note = NOTE_DEVICES.prepare_invoke();
        note.key(self.keys(user_id).meta).arg(u8::from(has_any));
        let mut redis = self.redis.link().await?;
        bounded(note.invoke_async(&mut redis)).await
    }

    /// The claims of a user's message, and the field of a device there.
    fn claim_place(&self, user_id: UserId, message_id: MessageId, device_id: DeviceId) -> (String, String) {
        let [user, message, device] =
            [user_id.as_uuid(), message_id.as_uuid(), device_id.as_uuid()].map(uuid::Uuid::simple);
        (format!("{}:{{{user}}}:notified:{message}", self.redis.namespace()), device.to_string())
    }

    fn badge_key(&self, user_id: UserId) -> String {
        format!("{}:{{{}}}:badge", self.redis.namespace(), user_id.as_uuid().simple())
    }
}

/// From epoch, head and run, and what the devices have confirmed.
fn unconfirmed(answer: &[redis::Value], link: &Link) -> Result<Option<Unconfirmed>, InboxError> {
    let [meta, devices] = answer else { return Err(super::unexpected_answer()) };
    let read = |_| super::unexpected_answer();
    let (epoch, head, run): (Option<String>, Option<u64>, Option<String>) =
        redis::from_redis_value_ref(meta).map_err(read)?;
    let confirmed: Vec<u64> = redis::from_redis_value_ref(devices).map_err(read)?;
    let is_lost = super::is_of_another_run(run.as_deref(), link);
    let Some((epoch, head)) = epoch.zip(head).filter(|_| !is_lost) else { return Ok(None) };
    let (after, up_to) = (Cursor(confirmed.into_iter().max().unwrap_or(0)), Cursor(head));
    let epoch = epoch.parse().map_err(|_| super::unexpected_answer())?;
    Ok((after < up_to).then_some(Unconfirmed { epoch, after, up_to }))
}
