//! Registers and removes sessions, and records what devices have confirmed.

use std::sync::LazyLock;

use redis::{AsyncCommands, Script, Value, from_redis_value};

use super::{DEVICES_MAX, InboxError, Inboxes, bounded, millis};
use crate::{
    ids::{DeviceId, Epoch, GatewayId, SessionId, UserId},
    limits,
    position::Cursor,
    wire::Resume,
};

static REGISTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/register.lua")));
static CONFIRM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/confirm.lua")));

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
    /// Registers a session; makes the inbox if the user has none.
    pub async fn register(
        &self,
        user_id: UserId,
        session: Session,
        resume: Option<Resume>,
    ) -> Result<Registration, InboxError> {
        let keys = self.keys(user_id);
        let mut register = REGISTER.prepare_invoke();
        register
            .key(keys.meta)
            .key(keys.entries)
            .key(keys.sessions)
            .key(keys.devices)
            .arg(session.session_id.as_uuid().to_string())
            .arg(session.gateway_id.as_uuid().to_string())
            .arg(session.device_id.as_uuid().to_string())
            .arg(Epoch::random().as_uuid().to_string())
            .arg(millis(limits::INBOX_IDLE_MAX))
            .arg(DEVICES_MAX)
            .arg(resume.map(|resume| resume.epoch.as_uuid().to_string()).unwrap_or_default())
            .arg(resume.map_or(0, |resume| resume.cursor.0));
        let mut redis = self.redis.clone();
        let answer: Vec<Value> = bounded(register.invoke_async(&mut redis)).await?;
        registration(answer, resume).ok_or_else(super::unexpected_answer)
    }

    /// Removes a session.
    pub async fn unregister(&self, user_id: UserId, session_id: SessionId) -> Result<(), InboxError> {
        let mut redis = self.redis.clone();
        bounded(redis.hdel(self.keys(user_id).sessions, session_id.as_uuid().to_string())).await
    }

    /// Records that a device has everything up to `cursor`, drops what every device has, and keeps the inbox from being
    /// dropped as idle. False if the inbox is another one now.
    pub async fn confirm(
        &self,
        user_id: UserId,
        epoch: Epoch,
        device_id: DeviceId,
        cursor: Cursor,
    ) -> Result<bool, InboxError> {
        let keys = self.keys(user_id);
        let mut confirm = CONFIRM.prepare_invoke();
        confirm
            .key(keys.meta)
            .key(keys.entries)
            .key(keys.sessions)
            .key(keys.devices)
            .arg(epoch.as_uuid().to_string())
            .arg(device_id.as_uuid().to_string())
            .arg(cursor.0)
            .arg(millis(limits::INBOX_IDLE_MAX))
            .arg(DEVICES_MAX);
        let mut redis = self.redis.clone();
        bounded(confirm.invoke_async(&mut redis)).await
    }
}

fn registration(answer: Vec<Value>, resume: Option<Resume>) -> Option<Registration> {
    let mut values = answer.into_iter();
    let epoch: String = from_redis_value(values.next()?).ok()?;
    let head = Cursor(from_redis_value(values.next()?).ok()?);
    let is_resumed: bool = from_redis_value(values.next()?).ok()?;
    let mut replaced = Vec::new();
    while let Some(session) = values.next() {
        let session: String = from_redis_value(session).ok()?;
        let gateway: String = from_redis_value(values.next()?).ok()?;
        replaced.push(Replaced { session_id: session.parse().ok()?, gateway_id: gateway.parse().ok()? });
    }
    let cursor = resume.filter(|_| is_resumed).map_or(head, |resume| resume.cursor);
    Some(Registration { epoch: epoch.parse().ok()?, head, cursor, is_resumed, replaced })
}
