//! The users or businesses that the application watches, and which of their states it was handed. No I/O.

use std::{collections::HashMap, hash::Hash};

/// A list of ids `K`, and the last state `V` of each. Bounded by the lists, which are bounded by the protocol.
#[derive(Debug)]
pub(crate) struct Watch<K, V> {
    /// The list that the gateway has agreed to, which is asked for again on each connection.
    watched: Vec<K>,
    /// Whether the gateway of this connection has agreed to it.
    is_standing: bool,
    /// The list that was asked for last and is not answered.
    asked: Vec<K>,
    known: HashMap<K, V>,
    /// Those of the known that the application was not handed, in the order they came.
    changed: Vec<K>,
}

impl<K, V> Default for Watch<K, V> {
    fn default() -> Self {
        Self { watched: Vec::new(), is_standing: false, asked: Vec::new(), known: HashMap::new(), changed: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Clone + PartialEq> Watch<K, V> {
    /// The application asks for these: it is handed the states of all of them.
    pub(crate) fn ask(&mut self, ids: &[K]) {
        self.asked = ids.to_vec();
        self.known.retain(|id, _| !ids.contains(id));
    }

    /// The gateway has agreed to this list.
    pub(crate) fn agreed(&mut self, ids: Vec<K>) {
        self.watched = ids;
        self.is_standing = true;
        self.forget_others();
    }

    /// The gateway has refused the list that was asked for last. The list that it agreed to before stands.
    pub(crate) fn refused(&mut self) {
        self.asked.clear();
        self.forget_others();
    }

    /// The gateway does not agree any more to the list that it had agreed to.
    pub(crate) fn ended(&mut self) {
        self.watched.clear();
        self.forget_others();
    }

    /// The next gateway hasn't agreed to anything.
    pub(crate) const fn connection_lost(&mut self) {
        self.is_standing = false;
    }

    /// The list that the gateway of this connection has to be asked for, because another one had agreed to it.
    pub(crate) fn outstanding(&self) -> Option<Vec<K>> {
        Some(self.watched.clone()).filter(|watched| !self.is_standing && !watched.is_empty())
    }

    /// A gateway pushed a state.
    pub(crate) fn pushed(&mut self, id: K, state: V) {
        let is_watched = self.watched.contains(&id) || self.asked.contains(&id);
        if is_watched && self.known.get(&id) != Some(&state) {
            self.known.insert(id, state);
            if !self.changed.contains(&id) {
                self.changed.push(id);
            }
        }
    }

    /// Whether `pop` would give something.
    pub(crate) const fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The states that the application was not handed.
    pub(crate) fn pop(&mut self) -> Option<Vec<V>> {
        let changed = std::mem::take(&mut self.changed);
        let states: Vec<_> = changed.iter().filter_map(|id| self.known.get(id).cloned()).collect();
        Some(states).filter(|states| !states.is_empty())
    }

    fn forget_others(&mut self) {
        let Self { watched, asked, known, changed, .. } = self;
        known.retain(|id, _| watched.contains(id) || asked.contains(id));
        changed.retain(|id| known.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{ids::UserId, wire::Presence};

    use super::*;

    fn presence(user_id: UserId, is_online: bool) -> Presence {
        Presence { user_id, is_online, last_seen_at: None }
    }

    fn hear(watch: &mut Watch<UserId, Presence>, users: &[Presence]) {
        for presence in users {
            watch.pushed(presence.user_id, *presence);
        }
    }

    /// Two users that are watched, and offline.
    fn watching() -> (Watch<UserId, Presence>, [UserId; 2]) {
        let (mut watch, users) = (Watch::default(), [UserId::random(), UserId::random()]);
        watch.ask(&users);
        hear(&mut watch, &users.map(|user_id| presence(user_id, false)));
        watch.agreed(users.to_vec());
        (watch, users)
    }

    #[test]
    fn r8_1_all_are_told_first_and_then_those_that_changed() {
        let (mut watch, [one, other]) = watching();
        assert_eq!(watch.pop(), Some(vec![presence(one, false), presence(other, false)]));
        hear(&mut watch, &[presence(one, false), presence(other, true)]);
        assert_eq!(watch.pop(), Some(vec![presence(other, true)]));
        hear(&mut watch, &[presence(one, false), presence(other, true), presence(UserId::random(), true)]);
        assert_eq!(watch.pop(), None, "as known, and a stranger");
    }

    #[test]
    fn the_latest_is_told_if_the_application_has_not_looked() {
        let (mut watch, [one, other]) = watching();
        hear(&mut watch, &[presence(one, true)]);
        hear(&mut watch, &[presence(other, true), presence(one, false)]);
        assert_eq!(watch.pop(), Some(vec![presence(one, false), presence(other, true)]));
        assert!(!watch.has_news());
    }

    #[test]
    fn asking_again_tells_all_again_and_a_refusal_leaves_what_was_agreed_to() {
        let (mut watch, [one, other]) = watching();
        watch.pop();
        watch.ask(&[one]);
        hear(&mut watch, &[presence(one, false)]);
        assert_eq!(watch.pop(), Some(vec![presence(one, false)]));
        watch.refused();
        assert_eq!(watch.outstanding(), None);
        watch.connection_lost();
        assert_eq!(watch.outstanding(), Some(vec![one, other]));
        watch.ask(&[one]);
        watch.agreed(vec![one]);
        watch.ended();
        watch.refused();
        hear(&mut watch, &[presence(one, true)]);
        watch.connection_lost();
        assert_eq!((watch.pop(), watch.outstanding()), (None, None));
    }
}
