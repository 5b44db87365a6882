//! Notifications that this process has claimed: a Redis that comes back with older data may have lost their claims.

use chat_shared::{
    ids::{DeviceId, UserId},
    inbox::{Notice, Occasion},
    limits,
};
use moka::{policy::EvictionPolicy, sync::Cache};

/// Claims that are remembered. One more drops the oldest, whose notification may be sent again if Redis loses the claim.
const CLAIMED_MAX: u64 = 50_000;

/// The claims of this process, for as long as their occasions are notified of.
pub struct Claimed(Cache<(UserId, DeviceId, Occasion), ()>);

impl Default for Claimed {
    fn default() -> Self {
        let claims = Cache::builder().max_capacity(CLAIMED_MAX).time_to_live(limits::NOTIFICATION_TTL);
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

const fn key(notice: Notice) -> (UserId, DeviceId, Occasion) {
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
