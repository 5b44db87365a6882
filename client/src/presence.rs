//! Whose presence the application wants to know, and what it has been told of it. No I/O.

use std::collections::HashMap;

use chat_shared::{ids::UserId, wire::Presence};

/// See the module. Bounded by the lists, which are bounded by the protocol.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What the gateway has agreed to, and is asked for again on each connection.
    watched: Vec<UserId>,
    /// Whether this connection's gateway has.
    is_standing: bool,
    /// What it was asked for last and has not answered.
    asked: Vec<UserId>,
    known: HashMap<UserId, Presence>,
    /// Those of the known that the application hasn't been told, in the order they came.
    changed: Vec<UserId>,
}

impl Watch {
    /// The application asks for these: all of them are told to it, however they are.
    pub(crate) fn ask(&mut self, user_ids: &[UserId]) {
        self.asked = user_ids.to_vec();
        self.known.retain(|user_id, _| !user_ids.contains(user_id));
    }

    /// The gateway has agreed to this list.
    pub(crate) fn agreed(&mut self, user_ids: Vec<UserId>) {
        self.watched = user_ids;
        self.is_standing = true;
        self.forget_others();
    }

    /// The gateway has refused what it was asked for last. What it agreed to before stands.
    pub(crate) fn refused(&mut self) {
        self.asked.clear();
        self.forget_others();
    }

    /// The gateway doesn't agree any more to what it had agreed to.
    pub(crate) fn ended(&mut self) {
        self.watched.clear();
        self.forget_others();
    }

    /// The next gateway hasn't agreed to anything.
    pub(crate) const fn connection_lost(&mut self) {
        self.is_standing = false;
    }

    /// What this connection's gateway has to be asked for, because another one had agreed to it.
    pub(crate) fn outstanding(&self) -> Option<Vec<UserId>> {
        Some(self.watched.clone()).filter(|watched| !self.is_standing && !watched.is_empty())
    }

    /// A gateway said how these are.
    pub(crate) fn heard(&mut self, users: &[Presence]) {
        for presence in users {
            let user_id = presence.user_id;
            let is_watched = self.watched.contains(&user_id) || self.asked.contains(&user_id);
            if is_watched
                && self.known.insert(user_id, *presence) != Some(*presence)
                && !self.changed.contains(&user_id)
            {
                self.changed.push(user_id);
            }
        }
    }

    /// Whether `pop` would give something.
    pub(crate) const fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the application hasn't been told.
    pub(crate) fn pop(&mut self) -> Option<Vec<Presence>> {
        let changed = std::mem::take(&mut self.changed);
        let users: Vec<_> = changed.iter().filter_map(|user_id| self.known.get(user_id).copied()).collect();
        Some(users).filter(|users| !users.is_empty())
    }

    fn forget_others(&mut self) {
        let Self { watched, asked, known, changed, .. } = self;
        known.retain(|user_id, _| watched.contains(user_id) || asked.contains(user_id));
        changed.retain(|user_id| known.contains_key(user_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(user_id: UserId, is_online: bool) -> Presence {
        Presence { user_id, is_online, last_seen_at: None }
    }

    /// Two users that are watched, and offline.
    fn watching() -> (Watch, [UserId; 2]) {
        let (mut watch, users) = (Watch::default(), [UserId::random(), UserId::random()]);
        watch.ask(&users);
        watch.heard(&users.map(|user_id| presence(user_id, false)));
        watch.agreed(users.to_vec());
        (watch, users)
    }

    #[test]
    fn r8_1_all_are_told_first_and_then_those_that_changed() {
        let (mut watch, [one, other]) = watching();
        assert_eq!(watch.pop(), Some(vec![presence(one, false), presence(other, false)]));
        watch.heard(&[presence(one, false), presence(other, true)]);
        assert_eq!(watch.pop(), Some(vec![presence(other, true)]));
        watch.heard(&[presence(one, false), presence(other, true), presence(UserId::random(), true)]);
        assert_eq!(watch.pop(), None, "as known, and a stranger");
    }

    #[test]
    fn the_latest_is_told_if_the_application_has_not_looked() {
        let (mut watch, [one, other]) = watching();
        watch.heard(&[presence(one, true)]);
        watch.heard(&[presence(other, true), presence(one, false)]);
        assert_eq!(watch.pop(), Some(vec![presence(one, false), presence(other, true)]));
        assert!(!watch.has_news());
    }

    #[test]
    fn asking_again_tells_all_again_and_a_refusal_leaves_what_was_agreed_to() {
        let (mut watch, [one, other]) = watching();
        watch.pop();
        watch.ask(&[one]);
        watch.heard(&[presence(one, false)]);
        assert_eq!(watch.pop(), Some(vec![presence(one, false)]));
        watch.refused();
        assert_eq!(watch.outstanding(), None);
        watch.connection_lost();
        assert_eq!(watch.outstanding(), Some(vec![one, other]));
        watch.ask(&[one]);
        watch.agreed(vec![one]);
        watch.ended();
        watch.refused();
        watch.heard(&[presence(one, true)]);
        watch.connection_lost();
        assert_eq!((watch.pop(), watch.outstanding()), (None, None));
    }
}
