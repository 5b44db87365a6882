//! Notifications that a notifier has claimed and not settled, read in Redis behind its back: as it dies, those are on
//! their way to providers, and nobody will ever know whether they were taken.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use chat_client::ids::{DeviceId, MessageId, UserId};
use futures_util::StreamExt;
use redis::AsyncCommands;

use super::ground::Ground;

/// What a claim says until it is settled.
const ON_ITS_WAY: &str = "sending";

/// A notification of a message for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::struct_field_names, reason = "they are called so everywhere")]
pub struct Claimed {
    pub user_id: UserId,
    pub message_id: MessageId,
    pub device_id: DeviceId,
}

/// All that are on their way.
pub async fn on_their_way(ground: &Ground) -> Result<BTreeSet<Claimed>> {
    let mut redis = ground.redis().await?;
    let pattern = format!("{}:*:notified:*", ground.fleet.namespace());
    let keys: Vec<String> = {
        let found = redis.scan_match::<_, String>(pattern).await?;
        found.filter_map(|key| async { key.ok() }).collect().await
    };
    let mut claimed = BTreeSet::new();
    for key in keys {
        let claims: Vec<(String, String)> = redis.hgetall(&key).await?;
        let (user_id, message_id) = owner(&key).with_context(|| format!("{key} is no key of claims"))?;
        for (device_id, _) in claims.iter().filter(|(_, state)| state == ON_ITS_WAY) {
            claimed.insert(Claimed { user_id, message_id, device_id: device_id.parse()? });
        }
    }
    Ok(claimed)
}

/// From `<namespace>:{<user>}:notified:<message>`.
fn owner(key: &str) -> Option<(UserId, MessageId)> {
    let (_, rest) = key.split_once(":{")?;
    let (user_id, message_id) = rest.split_once("}:notified:")?;
    Some((user_id.parse().ok()?, message_id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_claims_they_are_stands_in_the_key() {
        let (user_id, message_id) = (UserId::random(), MessageId::random());
        let key = format!("chat:{{{}}}:notified:{}", user_id.as_uuid().simple(), message_id.as_uuid().simple());
        assert_eq!(owner(&key), Some((user_id, message_id)));
        assert_eq!(owner("chat:{x}:meta"), None);
    }
}
