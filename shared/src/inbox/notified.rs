//! What is known of a user's notifications: which were sent, what their badge shows, whether there is any device, and what
//! a device has confirmed.
//!
//! **Invariant:** a notification is claimed before it is sent, and a claim whose outcome is unknown is never given back.

use std::{sync::LazyLock, time::Duration};

use redis::{AsyncCommands, Script};

use super::{InboxError, Inboxes, Unconfirmed, bounded, millis};
use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, DeviceId, Epoch, MessageId, UserId},
    jobs::ReadUpTo,
    limits,
    position::{Cursor, Seq},
    redis::Link,
};

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));
static NOTE_READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/note_read.lua")));
static NOTE_DEVICES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/note_devices.lua")));

/// How long a claim is kept after its message: for as long as that is notified of, and an hour more for one attempt and
/// differences between clocks.
const CLAIM_KEPT: Duration = limits::NOTIFICATION_TTL.saturating_add(Duration::from_hours(1));
/// Conversations of a user whose notifications are noted: as many as Redis keeps packed. One more drops all, and what is
/// shown of them stays until their app or the user takes it down.
const SHOWN_MAX: usize = 128;
/// How long it is known how far a user has read, so that their badge is right while the persister is behind.
const READ_KEPT: Duration = Duration::from_hours(1);
/// Conversations of a user of which that is known. One more drops all others.
const READ_MAX: usize = 128;
/// Claims of a user: of all messages that an inbox holds, for all devices. One more drops the oldest.
const CLAIMS_MAX: usize = limits::INBOX_ENTRIES_MAX * limits::NOTIFICATION_DEVICES_MAX;

/// What a notification is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A message.
    Message(MessageId),
    /// An assignment of a case.
    Assignment {
        /// The business conversation.
        conversation_id: ConversationId,
        /// The version of its participants that begins with the assignment.
        version: u64,
    },
    /// Customers of a business that wait while no agent is there. The same each time: a claim of it keeps the device from
    /// further ones for [`limits::WAITING_NOTIFIED_INTERVAL`].
    Waiting(BusinessId),
}

impl Occasion {
    /// How long a claim is kept after the time of its notice.
    pub const fn claim_kept(self) -> Duration {
        match self {
            Self::Message(_) | Self::Assignment { .. } => CLAIM_KEPT,
            Self::Waiting(_) => limits::WAITING_NOTIFIED_INTERVAL,
        }
    }
}

/// A notification for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Whose device.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// What it is of.
    pub occasion: Occasion,
    /// When that was accepted. If customers wait: now, by the clock of Redis.
    pub sent_at: Timestamp,
}

impl Notice {
    /// The end of its claim.
    fn until(&self) -> Timestamp {
        self.sent_at.after(self.occasion.claim_kept())
    }

    /// Its name among the claims of its user. Those of different occasions differ in length, so that no message has the same
    /// one as another occasion.
    fn member(&self) -> Vec<u8> {
        let (id, rest) = match self.occasion {
            Occasion::Message(message_id) => (message_id.as_uuid(), Vec::new()),
            Occasion::Assignment { conversation_id, version } => {
                (conversation_id.as_uuid(), version.to_be_bytes().into())
            }
            Occasion::Waiting(business_id) => (business_id.as_uuid(), b"w".into()),
        };
        let mut member = (id.as_u128() ^ self.device_id.as_uuid().as_u128()).to_be_bytes().to_vec();
        member.extend(rest);
        member
    }
}

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
    /// What some device of theirs has confirmed; none if none has, or all of them have yet to reload.
    pub confirmed: Option<Cursor>,
    /// When their last session ended, by the clock of Redis; none while they have one.
    pub last_seen_at: Option<Timestamp>,
    /// Now, by the same clock.
    pub now: Timestamp,
}

/// Epoch, last sight and run; confirmed cursors; how many sessions; now in seconds and microseconds.
type StandingAnswer = ((Option<String>, Option<i64>, Option<String>), Vec<u64>, usize, (i64, i64));

impl Inboxes {
    /// Claims a notification for as long as its message may be notified of.
    pub async fn claim(&self, notice: Notice) -> Result<Claim, InboxError> {
        let mut claim = CLAIM.prepare_invoke();
        claim.key(self.claims_key(notice.user_id)).arg(notice.member()).arg(notice.until().0).arg(CLAIMS_MAX);
        let mut redis = self.redis.link().await?;
        let before: String = bounded(claim.invoke_async(&mut redis)).await?;
        Ok(match before.as_str() {
            "" => Claim::Taken,
            "sent" => Claim::Sent,
            _ => Claim::Unknown,
        })
    }

    /// Records that a claimed notification was sent, or will never be.
    pub async fn conclude_claim(&self, notice: Notice) -> Result<(), InboxError> {
        let mut conclude = redis::cmd("ZADD");
        conclude
            .arg(self.claims_key(notice.user_id))
            .arg("XX")
            .arg(notice.until().0.saturating_mul(2).saturating_add(1))
            .arg(notice.member());
        let mut redis = self.redis.link().await?;
        bounded(conclude.exec_async(&mut redis)).await
    }

    /// Gives a claim back: the notification was surely not sent.
    pub async fn give_claim_back(&self, notice: Notice) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        bounded(redis.zrem(self.claims_key(notice.user_id), notice.member())).await
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
            confirmed: confirmed.into_iter().max().map(Cursor),
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

    /// Notes how far the user has read a conversation; gives all that was noted lately.
    pub async fn note_read(&self, user_id: UserId, read: ReadUpTo) -> Result<Vec<ReadUpTo>, InboxError> {
        let mut note = NOTE_READ.prepare_invoke();
        note.key(self.read_key(user_id)).arg(read.conversation_id.as_uuid().to_string()).arg(read.read_seq.0);
        note.arg(millis(READ_KEPT)).arg(READ_MAX);
        let mut redis = self.redis.link().await?;
        let known: Vec<(String, u64)> = bounded(note.invoke_async(&mut redis)).await?;
        let known = known.into_iter().map(|(conversation_id, read_seq)| {
            let conversation_id = conversation_id.parse().map_err(|_| super::unexpected_answer())?;
            Ok(ReadUpTo { conversation_id, read_seq: Seq(read_seq) })
        });
        known.collect()
    }

    /// Notes that the user's devices were notified of a message.
    pub async fn note_shown(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        seq: Seq,
    ) -> Result<(), InboxError> {
        let key = self.shown_key(user_id);
        let mut pipeline = redis::pipe();
        pipeline.hset(&key, conversation_id.as_uuid().as_bytes().as_slice(), seq.0).ignore();
        pipeline.pexpire(&key, millis(limits::INBOX_IDLE_MAX).cast_signed()).ignore().hlen(&key);
        let mut redis = self.redis.link().await?;
        let (conversations,): (usize,) = bounded(pipeline.query_async(&mut redis)).await?;
        if conversations > SHOWN_MAX {
            bounded(redis.del::<_, ()>(&key)).await?;
        }
        Ok(())
    }

    /// The message of a conversation that the user's devices were last notified of; none if that was read or is not known.
    pub async fn shown(&self, user_id: UserId, conversation_id: ConversationId) -> Result<Option<Seq>, InboxError> {
        let mut redis = self.redis.link().await?;
        let field = conversation_id.as_uuid();
        let shown: Option<u64> = bounded(redis.hget(self.shown_key(user_id), field.as_bytes().as_slice())).await?;
        Ok(shown.map(Seq))
    }

    /// Notes that nothing of a conversation is shown any more.
    pub async fn forget_shown(&self, user_id: UserId, conversation_id: ConversationId) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        let field = conversation_id.as_uuid();
        bounded(redis.hdel(self.shown_key(user_id), field.as_bytes().as_slice())).await
    }

    /// Notes whether the user has devices that are registered for notifications. That there are none counts only while
    /// nothing else is known.
    pub async fn note_devices(&self, user_id: UserId, has_any: bool) -> Result<(), InboxError> {
        let mut note = NOTE_DEVICES.prepare_invoke();
        note.key(self.keys(user_id).meta).arg(u8::from(has_any));
        let mut redis = self.redis.link().await?;
        bounded(note.invoke_async(&mut redis)).await
    }

    /// The keys of this room.
    pub(super) fn notified_keys(&self, user_id: UserId) -> [String; 4] {
        [self.claims_key(user_id), self.shown_key(user_id), self.read_key(user_id), self.badge_key(user_id)]
    }

    fn claims_key(&self, user_id: UserId) -> String {
        format!("{}:{{{}}}:notified", self.redis.namespace(), user_id.as_uuid().simple())
    }

    fn shown_key(&self, user_id: UserId) -> String {
        format!("{}:{{{}}}:shown", self.redis.namespace(), user_id.as_uuid().simple())
    }

    fn read_key(&self, user_id: UserId) -> String {
        format!("{}:{{{}}}:read", self.redis.namespace(), user_id.as_uuid().simple())
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
