//! Lists of ids that clients give.

use std::{collections::HashSet, hash::Hash};

/// Each id once, in the order given.
pub fn distinct<T: Copy + Eq + Hash>(mut ids: Vec<T>) -> Vec<T> {
    let mut known = HashSet::with_capacity(ids.len());
    ids.retain(|id| known.insert(*id));
    ids
}
