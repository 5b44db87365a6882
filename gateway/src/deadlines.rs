//! Keys that fall due, in the order of their times; what was said of a key last counts.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use tokio::time::Instant;

/// Each key and when it is due.
#[derive(Debug)]
pub struct Deadlines<K> {
    times: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { times: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Deadlines<K> {
    /// Sets when a key is due, instead of what was set before.
    pub fn set(&mut self, key: K, due: Instant) {
        if let Some(before) = self.times.insert(key, due) {
            self.order.remove(&(before, key));
        }
        self.order.insert((due, key));
    }

    /// Forgets a key; whether it was there.
    pub fn remove(&mut self, key: K) -> bool {
        self.times.remove(&key).is_some_and(|due| self.order.remove(&(due, key)))
    }

    /// Whether the key waits.
    pub fn contains(&self, key: K) -> bool {
        self.times.contains_key(&key)
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// When the first is due.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes the first key that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_fall_due_in_order_and_what_was_said_last_counts() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        for (key, seconds) in [('a', 3), ('b', 1), ('c', 2), ('b', 4)] {
            deadlines.set(key, after(seconds));
        }
        assert!(deadlines.remove('c'));
        assert!(!deadlines.remove('c'));
        assert_eq!((deadlines.len(), deadlines.next()), (2, Some(after(3))));
        assert_eq!(deadlines.take_due(after(2)), None);
        assert_eq!(deadlines.take_due(after(9)), Some('a'));
        assert_eq!(deadlines.take_due(after(9)), Some('b'));
        assert_eq!(deadlines.take_due(after(9)), None);
        assert_eq!((deadlines.len(), deadlines.order.len()), (0, 0));
    }
}
