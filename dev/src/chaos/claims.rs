//! Notifications that a notifier has claimed and not settled, read from Redis directly: when it dies, those are on their way
//! to providers, and it stays unknown whether they were taken.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use chat_client::ids::{DeviceId, MessageId, UserId};
use futures_util::StreamExt;
use redis::AsyncCommands;
use uuid::Uuid;

use super::ground::Ground;

/// A notification of a message for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimed {
    user_id: UserId,
    /// Message and device, as they stand in Redis.
    mixed: u128,
}

impl Claimed {
    pub fn of(user_id: UserId, message_id: MessageId, device_id: DeviceId) -> Self {
        Self { user_id, mixed: message_id.as_uuid().as_u128() ^ device_id.as_uuid().as_u128() }
    }

    /// The message, if the claim is of this device. Of another device of the user it is an id that no message has.
    pub fn message_for(&self, user_id: UserId, device_id: DeviceId) -> Option<MessageId> {
        let message_id = Uuid::from_u128(self.mixed ^ device_id.as_uuid().as_u128());
        message_id.try_into().ok().filter(|_| self.user_id == user_id)
    }
}

/// All that are on their way.
pub async fn on_their_way(ground: &Ground) -> Result<BTreeSet<Claimed>> {
    let mut redis = ground.redis().await?;
    let pattern = format!("{}:*:notified", ground.fleet.namespace());
    let keys: Vec<String> = {
        let found = redis.scan_match::<_, String>(pattern).await?;
        found.filter_map(|key| async { key.ok() }).collect().await
    };
    let mut claimed = BTreeSet::new();
    for key in keys {
        let claims: Vec<(Vec<u8>, u64)> = redis.zrange_withscores(&key, 0, -1).await?;
        let user_id = owner(&key).with_context(|| format!("{key} is no key of claims"))?;
        for (mixed, _) in claims.into_iter().filter(|(_, score)| score % 2 == 0) {
            // Claims of other occasions are longer.
            let Ok(mixed) = mixed.try_into() else { continue };
            claimed.insert(Claimed { user_id, mixed: u128::from_be_bytes(mixed) });
        }
    }
    Ok(claimed)
}

/// From `<namespace>:{<user>}:notified`.
fn owner(key: &str) -> Option<UserId> {
    let (_, rest) = key.split_once(":{")?;
    UserId::from_key(rest.strip_suffix("}:notified")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_the_owner_of_its_claims() {
        let user_id = UserId::random();
        let key = format!("chat:{{{}}}:notified", user_id.as_uuid().simple());
        assert_eq!(owner(&key), Some(user_id));
        assert_eq!(owner("chat:{x}:meta"), None);
    }

    #[test]
    fn a_claim_names_its_message_to_its_device() {
        let (user_id, message_id, device_id) = (UserId::random(), MessageId::random(), DeviceId::random());
        let claimed = Claimed::of(user_id, message_id, device_id);
        assert_eq!(claimed.message_for(user_id, device_id), Some(message_id));
        assert_ne!(claimed.message_for(user_id, DeviceId::random()), Some(message_id));
        assert_eq!(claimed.message_for(UserId::random(), device_id), None);
    }
}
