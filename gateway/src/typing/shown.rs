//! Who is shown as writing to connections of this gateway, and until when. No I/O.

use std::collections::HashMap;

use chat_shared::{
    ids::{ConversationId, UserId},
    limits,
};
use tokio::time::Instant;

use crate::deadlines::Deadlines;

/// Who is shown as writing at once. Over it nobody new is.
const SHOWN_MAX: usize = 50_000;

/// Somebody who writes, and where.
pub type Writer = (ConversationId, UserId);

/// Whom it is shown to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The other participants, as far as they are connected here.
    pub user_ids: Vec<UserId>,
    /// The version of the participants that they are of.
    pub version: u64,
}

/// Everybody who is shown as writing.
#[derive(Default)]
pub struct Shown {
    until: Deadlines<Writer>,
    told: HashMap<Writer, Told>,
}

impl Shown {
    /// Shows somebody as writing, from now on for a while, to these users. False if there are too many already.
    pub fn show(&mut self, writer: Writer, to: Told, now: Instant) -> bool {
        if self.until.len() >= SHOWN_MAX && !self.until.contains(writer) {
            return false;
        }
        self.until.set(writer, now + limits::TYPING_EXPIRY);
        self.told.insert(writer, to);
        true
    }

    /// Ends what is shown of somebody: to whom it was.
    pub fn end(&mut self, writer: Writer) -> Option<Told> {
        self.until.remove(writer);
        self.told.remove(&writer)
    }

    /// Ends what has been shown for long enough.
    pub fn expire(&mut self, now: Instant) -> Option<(Writer, Told)> {
        let writer = self.until.take_due(now)?;
        Some((writer, self.told.remove(&writer).unwrap_or_default()))
    }

    /// When the next is to end.
    pub fn next(&self) -> Option<Instant> {
        self.until.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        (ConversationId::random(), UserId::random())
    }

    fn told(user_id: UserId) -> Told {
        Told { user_ids: vec![user_id], version: 1 }
    }

    #[test]
    fn whoever_does_not_say_it_again_is_shown_no_longer_r8_4() {
        let (mut shown, now, [quiet, busy], ben) =
            (Shown::default(), Instant::now(), [writer(), writer()], told(UserId::random()));
        assert!(shown.show(quiet, ben.clone(), now));
        assert!(shown.show(busy, ben.clone(), now));
        let again = now + limits::TYPING_EXPIRY / 2;
        assert!(shown.show(busy, ben.clone(), again));
        let over = now + limits::TYPING_EXPIRY;
        assert_eq!(shown.expire(again), None);
        assert_eq!(shown.expire(over), Some((quiet, ben.clone())));
        assert_eq!(shown.expire(over), None);
        assert_eq!(shown.next(), Some(again + limits::TYPING_EXPIRY));
        assert_eq!((shown.end(busy), shown.end(busy), shown.next()), (Some(ben.clone()), None, None));
        assert!(shown.told.is_empty());
    }

    #[test]
    fn over_the_bound_nobody_new_is_shown() {
        let (mut shown, now, first) = (Shown::default(), Instant::now(), writer());
        assert!(shown.show(first, Told::default(), now));
        for _ in 1..SHOWN_MAX {
            assert!(shown.show(writer(), Told::default(), now));
        }
        assert!(!shown.show(writer(), Told::default(), now));
        assert!(shown.show(first, Told::default(), now));
    }
}
