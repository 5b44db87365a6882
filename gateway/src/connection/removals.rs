//! Who takes part in which conversation no longer, as this gateway has heard: nothing of it that is older than the removal
//! reaches them any more, also if it was accepted before.

use std::time::Duration;

use chat_shared::ids::{ConversationId, UserId};
use moka::{policy::EvictionPolicy, sync::Cache};

/// Removals that are remembered. One more takes the place of the one that was heard of or minded longest ago.
const REMEMBERED_MAX: u64 = 100_000;
/// How long one is remembered: longer than notifiers are behind. After it only an inbox that is read tells of it.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);

/// The removals that this gateway knows of, and the versions of the conversations since.
pub struct Removals(Cache<(UserId, ConversationId), u64>);

impl Default for Removals {
    fn default() -> Self {
        let removals = Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR);
        Self(removals.eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Removals {
    /// Notes that a user takes part no longer as of a version.
    pub fn note(&self, user_id: UserId, conversation_id: ConversationId, version: u64) {
        let known = self.0.entry((user_id, conversation_id));
        known.and_upsert_with(|known| known.map_or(version, |known| known.into_value().max(version)));
    }

    /// Whether what happened in a conversation while its participants were of a version is the user's business no more.
    /// The removal itself is, and so is everything since they were added again.
    pub fn covers(&self, user_id: UserId, conversation_id: ConversationId, version: u64) -> bool {
        self.0.get(&(user_id, conversation_id)).is_some_and(|removed_at| version < removed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_last_removal_is_covered_and_nothing_else_r6_4() {
        let removals = Removals::default();
        let ([ana, ben], id) = ([UserId::random(), UserId::random()], ConversationId::random());
        for version in [5, 3] {
            removals.note(ana, id, version);
        }
        let covered = [1, 4, 5, 6].map(|version| removals.covers(ana, id, version));
        assert_eq!(covered, [true, true, false, false]);
        assert!(!removals.covers(ben, id, 1) && !removals.covers(ana, ConversationId::random(), 1));
    }
}
