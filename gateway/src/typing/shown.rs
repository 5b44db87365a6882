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

/// Everybody who is shown as writing.
#[derive(Default)]
pub struct Shown {
    until: Deadlines<Writer>,
    told: HashMap<Writer, Vec<UserId>>,
}

impl Shown {
    /// Shows somebody as writing, from now on for a while, to these users. False if there are too many already.
    pub fn show(&mut self, writer: Writer, to: Vec<UserId>, now: Instant) -> bool {
        if self.until.len() >= SHOWN_MAX && !self.until.contains(writer) {
            return false;
        }
        self.until.set(writer, now + limits::TYPING_EXPIRY);
        self.told.insert(writer, to);
        true
    }

    /// Ends what is shown of somebody: to whom it was.
    pub fn end(&mut self, writer: Writer) -> Option<Vec<UserId>> {
        self.until.remove(writer);
        self.told.remove(&writer)
    }

    /// Ends what has been shown for long enough.
    pub fn expire(&mut self, now: Instant) -> Option<(Writer, Vec<UserId>)> {
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

    #[test]
    fn whoever_does_not_say_it_again_is_shown_no_longer_r8_4() {
        let (mut shown, now, [quiet, busy], ben) =
            (Shown::default(), Instant::now(), [writer(), writer()], UserId::random());
        assert!(shown.show(quiet, vec![ben], now));
        assert!(shown.show(busy, vec![ben], now));
        let again = now + limits::TYPING_EXPIRY / 2;
        assert!(shown.show(busy, vec![ben], again));
        let over = now + limits::TYPING_EXPIRY;
        assert_eq!(shown.expire(again), None);
        assert_eq!(shown.expire(over), Some((quiet, vec![ben])));
        assert_eq!(shown.expire(over), None);
        assert_eq!(shown.next(), Some(again + limits::TYPING_EXPIRY));
        assert_eq!((shown.end(busy), shown.end(busy), shown.next()), (Some(vec![ben]), None, None));
        assert!(shown.told.is_empty());
    }

    #[test]
    fn over_the_bound_nobody_new_is_shown() {
        let (mut shown, now, first) = (Shown::default(), Instant::now(), writer());
        assert!(shown.show(first, vec![], now));
        for _ in 1..SHOWN_MAX {
            assert!(shown.show(writer(), vec![], now));
        }
        assert!(!shown.show(writer(), vec![], now));
        assert!(shown.show(first, vec![], now));
    }
}
