//! Which message is due when, and who sends it. It depends on nothing that happens.

use crate::plan::{Sends, Writers};

/// The messages of a crowd, one after the other.
#[derive(Debug)]
pub struct Schedule {
    sends: Sends,
    conversations: u64,
    size: u64,
    next: u64,
}

/// A message that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Microseconds after the start.
    pub at_us: u64,
    /// The place of the sender among the crowd's seats.
    pub seat: usize,
}

impl Schedule {
    /// For a crowd of so many seats, `size` in a conversation.
    pub fn new(sends: Sends, seats: usize, size: usize) -> Self {
        Self { sends, conversations: (seats / size.max(1)) as u64, size: size as u64, next: 0 }
    }

    /// The next one; none if there is no other.
    pub fn peek(&self) -> Option<Due> {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let after = (self.next as f64 * 1e6 / self.sends.per_second) as u64;
        let at_us = self.sends.from_us + after;
        let seat = match self.sends.writers {
            Writers::First => 0,
            Writers::All => self.next.checked_div(self.conversations)? % self.size,
        };
        let first = self.next.checked_rem(self.conversations)? * self.size;
        let seat = usize::try_from(first + seat).ok()?;
        (at_us < self.sends.until_us).then_some(Due { at_us, seat })
    }

    /// The next one, if it is so, and goes on to the one after.
    pub fn next_if(&mut self, is_due: impl Fn(&Due) -> bool) -> Option<Due> {
        let due = self.peek().filter(is_due)?;
        self.next += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(sends: Sends, seats: usize, size: usize) -> Vec<Due> {
        let mut schedule = Schedule::new(sends, seats, size);
        std::iter::from_fn(|| schedule.next_if(|_| true)).collect()
    }

    const SENDS: Sends = Sends { per_second: 4.0, from_us: 100_000, until_us: 2_100_000, writers: Writers::All };

    #[test]
    fn the_rate_holds_from_the_beginning_to_the_end() {
        let all = all(SENDS, 6, 2);
        assert_eq!(all.len(), 8);
        assert_eq!(all[0].at_us, 100_000);
        assert_eq!(all[7].at_us, 1_850_000);
    }

    #[test]
    fn conversations_take_turns_and_then_their_writers() {
        let seats = |writers, size| -> Vec<usize> {
            all(Sends { writers, ..SENDS }, 6, size).into_iter().map(|due| due.seat).collect()
        };
        assert_eq!(seats(Writers::All, 2), [0, 2, 4, 1, 3, 5, 0, 2]);
        assert_eq!(seats(Writers::First, 3), [0, 3, 0, 3, 0, 3, 0, 3]);
    }

    #[test]
    fn nobody_sends_nothing() {
        assert_eq!(all(SENDS, 0, 2), []);
    }
}
