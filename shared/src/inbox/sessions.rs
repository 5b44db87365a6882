//! Registers and removes sessions, and records what devices have confirmed.

use std::{sync::LazyLock, time::Duration};

use redis::{Script, Value, from_redis_value};

use super::{DEVICES_MAX, InboxError, Inboxes, bounded, millis};
use crate::{
    clock::Timestamp,
    ids::{DeviceId, Epoch, GatewayId, SessionId, UserId},
    limits,
    position::Cursor,
    wire::Resume,
};

static REGISTER: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("scripts/enter.lua"), include_str!("scripts/register.lua"))));
static UNREGISTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/unregister.lua")));
static CONFIRM: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("scripts/enter.lua"), include_str!("scripts/confirm.lua"))));

/// So much longer than it must an inbox is kept, so that its end is put off twice a day and not with each sign of life.
const KEPT_LONGER: Duration = Duration::from_hours(12);

/// A connection as Redis knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its id, new for each connection.
    pub session_id: SessionId,
    /// The gateway that holds it.
    pub gateway_id: GatewayId,
    /// The device that it belongs to.
    pub device_id: DeviceId,
}

/// Where a registered session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The inbox' epoch.
    pub epoch: Epoch,
    /// The last entry's cursor.
    pub head: Cursor,
    /// Where to read on: what the device has if it resumes, else the head.
    pub cursor: Cursor,
    /// Whether everything after the cursor asked for is there.
    pub is_resumed: bool,
    /// Older sessions of the same device, which this one replaces.
    pub replaced: Vec<Replaced>,
    /// Its place among the changes of the user's presence.
    pub at: Timestamp,
    /// What the device had confirmed before; what is before the oldest entry if that is later, or nothing is known.
    pub confirmed: Cursor,
}

/// Which sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This one.
    Session(SessionId),
    /// All that a gateway left behind.
    Gateway(GatewayId),
}

/// What ending sessions came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Sessions that were removed; others may have removed them before.
    pub removed: usize,
    /// Sessions of the user that are left, those on dead gateways included.
    pub left: usize,
    /// When, by the clock of Redis.
    pub now: Timestamp,
    /// Its place among the changes of the user's presence.
    pub at: Timestamp,
    /// What no device has confirmed of what came in while the sessions lasted.
    pub unconfirmed: Option<Unconfirmed>,
}

/// Entries of an inbox that may not have reached any device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The inbox' epoch.
    pub epoch: Epoch,
    /// They begin after this one,
    pub after: Cursor,
    /// and end with this one.
    pub up_to: Cursor,
}

/// A session that is no longer registered because its device connected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The session.
    pub session_id: SessionId,
    /// The gateway that may still hold its connection.
    pub gateway_id: GatewayId,
}

impl Inboxes {
    /// Registers a session of a device that has just connected, in place of its others; makes the inbox if the user has none.
    pub async fn register(
        &self,
        user_id: UserId,
        session: Session,
        resume: Option<Resume>,
    ) -> Result<Registration, InboxError> {
        self.register_as(user_id, session, resume, true, true).await
    }

    /// Registers a session that Redis may have lost. Others of its device stay: they may be newer. Its place counts as
    /// confirmed only if `is_confirmed`.
    pub async fn register_again(
        &self,
        user_id: UserId,
        session: Session,
        resume: Option<Resume>,
        is_confirmed: bool,
    ) -> Result<Registration, InboxError> {
        self.register_as(user_id, session, resume, false, is_confirmed).await
    }

    async fn register_as(
        &self,
        user_id: UserId,
        session: Session,
        resume: Option<Resume>,
        replaces: bool,
        is_confirmed: bool,
    ) -> Result<Registration, InboxError> {
        let keys = self.keys(user_id);
        let mut redis = self.redis.link().await?;
        let mut register = REGISTER.prepare_invoke();
        register
            .key(keys.meta)
            .key(keys.entries)
            .key(keys.sessions)
            .key(keys.devices)
            .key(keys.delivered)
            .arg(redis.run())
            .arg(session.session_id.as_uuid().to_string())
            .arg(session.gateway_id.as_uuid().to_string())
            .arg(session.device_id.as_uuid().to_string())
            .arg(Epoch::random().as_uuid().to_string())
            .arg(millis(limits::INBOX_IDLE_MAX))
            .arg(DEVICES_MAX)
            .arg(resume.map(|resume| resume.epoch.as_uuid().to_string()).unwrap_or_default())
            .arg(resume.map_or(0, |resume| resume.cursor.0))
            .arg(millis(limits::INBOX_IDLE_MAX + KEPT_LONGER))
            .arg(u8::from(replaces))
            .arg(u8::from(is_confirmed));
        let answer: Vec<Value> = bounded(register.invoke_async(&mut redis)).await?;
        registration(answer, resume).ok_or_else(super::unexpected_answer)
    }

    /// Removes sessions of a user, and says what they leave unsettled.
    pub async fn unregister(&self, user_id: UserId, ended: Ended) -> Result<Departure, InboxError> {
        let keys = self.keys(user_id);
        let (session, gateway) = match ended {
            Ended::Session(session_id) => (session_id.as_uuid().to_string(), String::new()),
            Ended::Gateway(gateway_id) => (String::new(), gateway_id.as_uuid().to_string()),
        };
        let mut redis = self.redis.link().await?;
        let mut unregister = UNREGISTER.prepare_invoke();
        unregister.key(keys.meta).key(keys.entries).key(keys.sessions).key(keys.devices);
        unregister.arg(redis.run()).arg(session).arg(gateway);
        let answer: Vec<Value> = bounded(unregister.invoke_async(&mut redis)).await?;
        departure(answer).ok_or_else(super::unexpected_answer)
    }

    /// Records that a device has everything up to `cursor`, if it has confirmed one, drops what every device has, and keeps
    /// the inbox from being dropped as idle. False if the inbox is another one now.
    pub async fn confirm(
        &self,
        user_id: UserId,
        epoch: Epoch,
        device_id: DeviceId,
        cursor: impl Into<Option<Cursor>>,
    ) -> Result<bool, InboxError> {
        let keys = self.keys(user_id);
        let mut redis = self.redis.link().await?;
        let mut confirm = CONFIRM.prepare_invoke();
        confirm
            .key(keys.meta)
            .key(keys.entries)
            .key(keys.sessions)
            .key(keys.devices)
            .key(keys.delivered)
            .arg(redis.run())
            .arg(epoch.as_uuid().to_string())
            .arg(device_id.as_uuid().to_string())
            .arg(cursor.into().map_or_else(|| "-1".to_owned(), |cursor| cursor.0.to_string()))
            .arg(millis(limits::INBOX_IDLE_MAX))
            .arg(DEVICES_MAX)
            .arg(millis(limits::INBOX_IDLE_MAX + KEPT_LONGER));
        bounded(confirm.invoke_async(&mut redis)).await
    }
}

fn registration(answer: Vec<Value>, resume: Option<Resume>) -> Option<Registration> {
    let mut values = answer.into_iter();
    let epoch: String = from_redis_value(values.next()?).ok()?;
    let head = Cursor(from_redis_value(values.next()?).ok()?);
    let is_resumed: bool = from_redis_value(values.next()?).ok()?;
    let at = Timestamp(from_redis_value(values.next()?).ok()?);
    let confirmed = Cursor(from_redis_value(values.next()?).ok()?);
    let mut replaced = Vec::new();
    while let Some(session) = values.next() {
        let session: String = from_redis_value(session).ok()?;
        let gateway: String = from_redis_value(values.next()?).ok()?;
        replaced.push(Replaced { session_id: session.parse().ok()?, gateway_id: gateway.parse().ok()? });
    }
    let cursor = resume.filter(|_| is_resumed).map_or(head, |resume| resume.cursor);
    Some(Registration { epoch: epoch.parse().ok()?, head, cursor, is_resumed, replaced, at, confirmed })
}

fn departure(answer: Vec<Value>) -> Option<Departure> {
    let mut values = answer.into_iter();
    let removed = from_redis_value(values.next()?).ok()?;
    let left = from_redis_value(values.next()?).ok()?;
    let now = Timestamp(from_redis_value(values.next()?).ok()?);
    let at = Timestamp(from_redis_value(values.next()?).ok()?);
    let unconfirmed = match values.next() {
        None => None,
        Some(epoch) => {
            let epoch: String = from_redis_value(epoch).ok()?;
            let up_to = Cursor(from_redis_value(values.next()?).ok()?);
            let after = Cursor(from_redis_value(values.next()?).ok()?);
            (removed > 0 && after < up_to).then_some(Unconfirmed { epoch: epoch.parse().ok()?, after, up_to })
        }
    };
    Some(Departure { removed, left, now, at, unconfirmed })
}
