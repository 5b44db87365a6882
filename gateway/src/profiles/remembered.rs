//! What this gateway remembers of profiles: a minute of it, so that one that was told of a change too late, or not at all,
//! is right again soon.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use moka::sync::Cache;

use super::record::{ProfileId, Verdict};

/// How long a profile is remembered.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Bytes of what is remembered. Over it those that were asked for least go.
const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What a profile takes beside its name and its picture's address.
const ENTRY_BYTES: usize = 160;
/// Ids share counters of what was forgotten: one that shares another's is looked up once more than it had to be.
const COUNTERS: usize = 4096;

/// Profiles that were seen lately.
pub(super) struct Remembered {
    profiles: Cache<ProfileId, Verdict>,
    forgotten: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// The moment before something was looked up: what was forgotten since isn't remembered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before(u64);

impl Default for Remembered {
    fn default() -> Self {
        let bytes = |_: &ProfileId, verdict: &Verdict| {
            let text = match verdict {
                Verdict::Known(profile) => profile.name.len() + profile.avatar_url.as_ref().map_or(0, |url| url.len()),
                Verdict::Unknown => 0,
            };
            u32::try_from(ENTRY_BYTES + text).unwrap_or(u32::MAX)
        };
        Self {
            profiles: Cache::builder().max_capacity(BYTES_MAX).weigher(bytes).time_to_live(REMEMBERED).build(),
            forgotten: std::iter::repeat_with(AtomicU64::default).take(COUNTERS).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Remembered {
    /// What is remembered of an id.
    pub fn get(&self, id: ProfileId) -> Option<Verdict> {
        self.profiles.get(&id)
    }

    /// To be called before an id is looked up elsewhere.
    pub fn before(&self, id: ProfileId) -> Before {
        Before(self.counter(id).load(Ordering::SeqCst))
    }

    /// Remembers what was looked up, unless it has been forgotten since.
    pub fn put(&self, id: ProfileId, verdict: Verdict, before: Before) {
        self.profiles.insert(id, verdict);
        // Whoever forgets counts first and removes then. So either it removes this, or this sees that it has counted.
        if self.before(id) != before {
            self.profiles.invalidate(&id);
        }
    }

    /// Forgets an id.
    pub fn forget(&self, id: ProfileId) {
        self.counter(id).fetch_add(1, Ordering::SeqCst);
        self.profiles.invalidate(&id);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        for counter in &self.forgotten {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        self.profiles.invalidate_all();
    }

    fn counter(&self, id: ProfileId) -> &AtomicU64 {
        let place = self.hasher.hash_one(id) % COUNTERS as u64;
        // The remainder is smaller than the number of counters.
        &self.forgotten[usize::try_from(place).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::ids::UserId;

    use super::*;

    #[test]
    fn what_was_forgotten_while_it_was_looked_up_is_not_remembered_r10_2() {
        let remembered = Remembered::default();
        let [changed, other] = [ProfileId::User(UserId::random()), ProfileId::User(UserId::random())];
        let before = [remembered.before(changed), remembered.before(other)];
        remembered.forget(changed);
        remembered.put(changed, Verdict::Unknown, before[0]);
        assert_eq!(remembered.get(changed), None);
        if remembered.before(other) == before[1] {
            remembered.put(other, Verdict::Unknown, before[1]);
            assert_eq!(remembered.get(other), Some(Verdict::Unknown));
        }
        remembered.put(changed, Verdict::Unknown, remembered.before(changed));
        assert_eq!(remembered.get(changed), Some(Verdict::Unknown));
        let before = remembered.before(changed);
        remembered.forget_all();
        assert_eq!(remembered.get(changed), None);
        remembered.put(changed, Verdict::Unknown, before);
        assert_eq!(remembered.get(changed), None);
    }
}
