//! Who writes: the others, until they stop or are not heard of for a while, and the user themself, so that the gateway is
//! told no more often than it has to be. No I/O.

use std::collections::{HashMap, VecDeque};

use chat_shared::{
    ids::{ConversationId, UserId},
    limits::TYPING_EXPIRY,
    wire::Typing,
};
use tokio::time::Instant;

use crate::limits::{OWN_TYPING_MAX, TYPING_REPEAT, TYPISTS_MAX};

type Key = (ConversationId, UserId);

/// The others that write.
///
/// **Invariant:** the application is told of an end exactly if it was told of the beginning.
#[derive(Debug, Default)]
pub(crate) struct Typists {
    typists: HashMap<Key, Typist>,
    /// Those whose state may be another than was told. Each at most once.
    changed: VecDeque<Key>,
}

#[derive(Debug, Default)]
struct Typist {
    /// They write until this moment if nothing is heard; `None` after they have stopped.
    until: Option<Instant>,
    is_told: bool,
    is_queued: bool,
}

impl Typists {
    /// A gateway said so.
    pub(crate) fn heard(&mut self, typing: Typing, now: Instant) {
        let key = (typing.conversation_id, typing.user_id);
        if !typing.is_typing {
            return self.stopped(key);
        }
        if self.typists.len() >= TYPISTS_MAX && !self.typists.contains_key(&key) {
            return;
        }
        self.typists.entry(key).or_default().until = Some(now + TYPING_EXPIRY);
        self.queue(key);
    }

    /// They have stopped, for instance by sending their message.
    pub(crate) fn stopped(&mut self, key: Key) {
        if let Some(typist) = self.typists.get_mut(&key) {
            typist.until = None;
            self.queue(key);
        }
    }

    /// Ends what has not been heard of for too long.
    pub(crate) fn tick(&mut self, now: Instant) {
        let is_over = |typist: &Typist| typist.until.is_some_and(|until| until <= now);
        let over: Vec<Key> = self.typists.iter().filter(|(_, typist)| is_over(typist)).map(|(key, _)| *key).collect();
        for key in over {
            self.stopped(key);
        }
    }

    /// When `tick` has something to do next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.typists.values().filter_map(|typist| typist.until).min()
    }

    /// Whether `pop` may give something.
    pub(crate) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the application hasn't been told.
    pub(crate) fn pop(&mut self) -> Option<Typing> {
        while let Some(key) = self.changed.pop_front() {
            let Some(typist) = self.typists.get_mut(&key) else { continue };
            typist.is_queued = false;
            let is_typing = typist.until.is_some();
            let is_news = typist.is_told != is_typing;
            typist.is_told = is_typing;
            if !is_typing {
                self.typists.remove(&key);
            }
            if is_news {
                let (conversation_id, user_id) = key;
                return Some(Typing { conversation_id, user_id, is_typing });
            }
        }
        None
    }

    fn queue(&mut self, key: Key) {
        if let Some(typist) = self.typists.get_mut(&key).filter(|typist| !typist.is_queued) {
            typist.is_queued = true;
            self.changed.push_back(key);
        }
    }
}

/// Where the user writes, and when the gateway was last told so.
#[derive(Debug, Default)]
pub(crate) struct OwnTyping(HashMap<ConversationId, Instant>);

impl OwnTyping {
    /// Whether the gateway has to be told. It is told of a beginning, of its going on every few seconds, and of an end.
    pub(crate) fn is_due(&mut self, conversation_id: ConversationId, is_typing: bool, now: Instant) -> bool {
        self.0.retain(|_, told| *told + TYPING_EXPIRY > now);
        let told = self.0.get(&conversation_id).copied();
        if is_typing {
            told.map_or(self.0.len() < OWN_TYPING_MAX, |told| told + TYPING_REPEAT <= now)
        } else {
            told.is_some()
        }
    }

    /// The gateway was told.
    pub(crate) fn told(&mut self, conversation_id: ConversationId, is_typing: bool, now: Instant) {
        if is_typing {
            self.0.insert(conversation_id, now);
        } else {
            self.0.remove(&conversation_id);
        }
    }

    /// What the user wrote is on its way, which ends it.
    pub(crate) fn sent(&mut self, conversation_id: ConversationId) {
        self.0.remove(&conversation_id);
    }

    /// The next gateway has not been told anything.
    pub(crate) fn connection_lost(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn typing(is_typing: bool) -> Typing {
        Typing { conversation_id: ConversationId::random(), user_id: UserId::random(), is_typing }
    }

    #[test]
    fn r8_4_typing_expires_by_itself_and_is_told_once_each_way() {
        let (mut typists, now, begun) = (Typists::default(), Instant::now(), typing(true));
        typists.heard(begun, now);
        assert_eq!(typists.pop(), Some(begun));
        let later = now + Duration::from_secs(3);
        typists.heard(begun, later);
        assert_eq!(typists.pop(), None, "it goes on");
        assert_eq!(typists.next_tick(), Some(later + TYPING_EXPIRY));
        typists.tick(now + TYPING_EXPIRY);
        assert_eq!(typists.pop(), None, "it was heard of since");
        typists.tick(later + TYPING_EXPIRY);
        assert_eq!(typists.pop(), Some(Typing { is_typing: false, ..begun }));
        typists.heard(Typing { is_typing: false, ..begun }, later);
        assert_eq!((typists.pop(), typists.next_tick()), (None, None));
    }

    #[test]
    fn what_began_and_ended_before_the_application_looked_is_not_told() {
        let (mut typists, now, begun) = (Typists::default(), Instant::now(), typing(true));
        typists.heard(begun, now);
        typists.stopped((begun.conversation_id, begun.user_id));
        assert_eq!(typists.pop(), None);
        assert!(typists.typists.is_empty());
    }

    #[test]
    fn those_that_find_no_room_are_passed_over_and_the_others_still_end() {
        let (mut typists, now) = (Typists::default(), Instant::now());
        for _ in 0..TYPISTS_MAX + 5 {
            typists.heard(typing(true), now);
        }
        let told = std::iter::from_fn(|| typists.pop()).count();
        typists.tick(now + TYPING_EXPIRY);
        let ended = std::iter::from_fn(|| typists.pop()).filter(|typing| !typing.is_typing).count();
        assert_eq!((told, ended), (TYPISTS_MAX, TYPISTS_MAX));
    }

    #[test]
    fn the_gateway_is_told_as_often_as_it_has_to_be() {
        let (mut own, now, conversation) = (OwnTyping::default(), Instant::now(), ConversationId::random());
        assert!(!own.is_due(conversation, false, now), "nothing has begun");
        assert!(own.is_due(conversation, true, now));
        own.told(conversation, true, now);
        assert!(!own.is_due(conversation, true, now + Duration::from_secs(2)));
        assert!(own.is_due(conversation, true, now + TYPING_REPEAT));
        assert!(own.is_due(conversation, false, now + Duration::from_secs(2)));
        assert!(!own.is_due(conversation, false, now + TYPING_EXPIRY), "it has ended by itself");
        own.told(conversation, true, now);
        own.sent(conversation);
        assert!(own.is_due(conversation, true, now), "the next message");
    }
}
