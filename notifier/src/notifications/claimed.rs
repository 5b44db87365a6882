//! Notifications that this process has claimed: a Redis that comes back with older data may have lost their claims.

use std::time::{Duration, Instant};

use chat_shared::{
    ids::{DeviceId, UserId},
    inbox::{Notice, Occasion},
};
use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

/// Claims that are remembered. One more drops the oldest, whose notification may be sent again if Redis loses the claim.
const CLAIMED_MAX: u64 = 50_000;

/// How much sooner than by Redis a claim is forgotten here, so that one that has ended there is not taken for a lost one.
const FORGOTTEN_BEFORE: Duration = Duration::from_mins(1);

/// The claims of this process, for about as long as Redis keeps them.
pub struct Claimed(Cache<Key, ()>);

type Key = (UserId, DeviceId, Occasion);

struct AsInRedis;

impl Expiry<Key, ()> for AsInRedis {
    fn expire_after_create(&self, (_, _, occasion): &Key, (): &(), _: Instant) -> Option<Duration> {
        Some(occasion.claim_kept().saturating_sub(FORGOTTEN_BEFORE))
    }
}

impl Default for Claimed {
    fn default() -> Self {
        let claims = Cache::builder().max_capacity(CLAIMED_MAX).expire_after(AsInRedis);
        Self(claims.eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Claimed {
    /// Remembers a claim; false if it is remembered already.
    pub fn add(&self, notice: Notice) -> bool {
        self.0.entry(key(notice)).or_insert(()).is_fresh()
    }

    /// Forgets a claim whose notification was surely not sent.
    pub fn forget(&self, notice: Notice) {
        self.0.invalidate(&key(notice));
    }
}

const fn key(notice: Notice) -> Key {
    (notice.user_id, notice.device_id, notice.occasion)
}

#[cfg(test)]
mod tests {
    use chat_shared::{clock::Timestamp, ids::MessageId};

    use super::*;

    #[test]
    fn promise_7_a_claim_is_new_once_until_it_is_forgotten() {
        let claimed = Claimed::default();
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let occasion = Occasion::Message(MessageId::random());
        let notice = Notice { user_id, device_id, occasion, sent_at: Timestamp(1) };
        let other = Notice { device_id: DeviceId::random(), ..notice };
        assert!(claimed.add(notice) && claimed.add(other) && !claimed.add(notice));
        claimed.forget(notice);
        assert!(claimed.add(notice) && !claimed.add(other));
    }
}
