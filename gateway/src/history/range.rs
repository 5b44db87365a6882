//! Which numbers a page shows. Numbers are dense, so a page is a range of them. Pure.

use chat_shared::position::Seq;

/// Where a page begins and in which direction it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Back from the last message.
    Newest,
    /// Back from the message before this one.
    Before(Seq),
    /// Forward from the message after this one.
    After(Seq),
}

/// Numbers from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest.
    pub first: Seq,
    /// The highest; never below `first`.
    pub last: Seq,
}

/// What there is of a conversation: the messages after `floor` up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Messages up to here have been aged out.
    pub floor: Seq,
    /// The last message.
    pub last: Seq,
}

impl Range {
    const fn between(first: u64, last: u64) -> Option<Self> {
        if first <= last { Some(Self { first: Seq(first), last: Seq(last) }) } else { None }
    }

    /// All its numbers, ascending.
    pub fn numbers(self) -> impl DoubleEndedIterator<Item = Seq> {
        (self.first.0..=self.last.0).map(Seq)
    }

    /// Its part up to `last`.
    pub fn up_to(self, last: Seq) -> Option<Self> {
        Self::between(self.first.0, self.last.0.min(last.0))
    }

    /// Whether a number is in it.
    pub const fn contains(self, seq: Seq) -> bool {
        self.first.0 <= seq.0 && seq.0 <= self.last.0
    }

    /// The unbroken part that a page can show without the rest: from its beginning, in its direction.
    pub fn unbroken(self, place: Place, is_there: impl Fn(Seq) -> bool) -> Option<Self> {
        if let Place::After(_) = place {
            let last = self.numbers().take_while(|seq| is_there(*seq)).last()?;
            Some(Self { first: self.first, last })
        } else {
            let first = self.numbers().rev().take_while(|seq| is_there(*seq)).last()?;
            Some(Self { first, last: self.last })
        }
    }
}

impl Extent {
    /// The numbers of a page of at most `limit` messages; none if there is nothing.
    pub fn page(self, place: Place, limit: usize) -> Option<Range> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let lowest = self.floor.0 + 1;
        let back_from = |last: u64| Range::between(lowest.max(last.saturating_sub(limit) + 1), last);
        match place {
            Place::Newest => back_from(self.last.0),
            Place::Before(seq) => back_from(self.last.0.min(seq.0.saturating_sub(1))),
            Place::After(seq) => {
                let first = lowest.max(seq.0.saturating_add(1));
                Range::between(first, self.last.0.min(first.saturating_add(limit - 1)))
            }
        }
    }

    /// Whether there is more in the page's direction when it shows `shown`.
    pub const fn has_more(self, place: Place, shown: Range) -> bool {
        match place {
            Place::Newest | Place::Before(_) => shown.first.0 > self.floor.0 + 1,
            Place::After(_) => shown.last.0 < self.last.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::mutation::numbers;

    fn extents() -> impl Strategy<Value = Extent> {
        (0..300_u64, 0..300_u64).prop_map(|(floor, more)| Extent { floor: Seq(floor), last: Seq(floor + more) })
    }

    fn places() -> impl Strategy<Value = Place> {
        let seqs = prop_oneof![0..700_u64, Just(u64::MAX)];
        (0..3, seqs).prop_map(|(direction, seq)| match direction {
            0 => Place::Newest,
            1 => Place::Before(Seq(seq)),
            _ => Place::After(Seq(seq)),
        })
    }

    proptest! {
        #[test]
        fn a_page_is_within_bounds_and_not_longer_than_asked(extent in extents(), place in places(), limit in 1..120_usize) {
            if let Some(range) = extent.page(place, limit) {
                prop_assert!(range.first <= range.last);
                prop_assert!(range.first > extent.floor && range.last <= extent.last);
                prop_assert!(range.numbers().count() <= limit);
                match place {
                    Place::Newest => prop_assert_eq!(range.last, extent.last),
                    Place::Before(seq) => prop_assert!(range.last < seq),
                    Place::After(seq) => prop_assert!(range.first > seq),
                }
                prop_assert!(range.numbers().count() == limit || !extent.has_more(place, range));
            }
        }

        #[test]
        fn fuzz_no_number_is_too_large_for_a_page(
            floor in numbers(), more in numbers(), seq in numbers(), direction in 0..3_usize, limit in 1..=100_usize
        ) {
            // Numbers in PostgreSQL are below 2^63; what a client names is any number.
            let floor = floor >> 1;
            let extent = Extent { floor: Seq(floor), last: Seq(floor.saturating_add(more).min(u64::MAX >> 1)) };
            let place = [Place::Newest, Place::Before(Seq(seq)), Place::After(Seq(seq))][direction];
            if let Some(range) = extent.page(place, limit) {
                prop_assert!(range.first > extent.floor && range.first <= range.last && range.last <= extent.last);
                prop_assert!(range.numbers().count() <= limit);
                prop_assert_eq!(range.unbroken(place, |_| true), Some(range));
                let _has_more = extent.has_more(place, range);
            }
        }

        #[test]
        fn paging_shows_every_message_once_in_both_directions(extent in extents(), limit in 1..50_usize) {
            let all: Vec<_> = (extent.floor.0 + 1..=extent.last.0).map(Seq).collect();
            let (mut shown, mut place) = (Vec::new(), Place::After(Seq::ZERO));
            while let Some(range) = extent.page(place, limit) {
                shown.extend(range.numbers());
                prop_assert_eq!(extent.has_more(place, range), range.last < extent.last);
                place = Place::After(range.last);
            }
            prop_assert_eq!(&shown, &all);
            let (mut shown, mut place) = (Vec::new(), Place::Newest);
            while let Some(range) = extent.page(place, limit) {
                shown.extend(range.numbers().rev());
                prop_assert_eq!(extent.has_more(place, range), range.first > extent.floor.next());
                place = Place::Before(range.first);
            }
            shown.reverse();
            prop_assert_eq!(&shown, &all);
        }

        #[test]
        fn the_unbroken_part_begins_where_the_page_does(place in places(), missing in 1..40_u64) {
            let range = Range { first: Seq(5), last: Seq(30) };
            let part = range.unbroken(place, |seq| seq.0 != missing);
            match (part, place) {
                (Some(part), Place::After(_)) => prop_assert_eq!(part.first, range.first),
                (Some(part), _) => prop_assert_eq!(part.last, range.last),
                (None, Place::After(_)) => prop_assert_eq!(missing, 5),
                (None, _) => prop_assert_eq!(missing, 30),
            }
            if let Some(part) = part {
                prop_assert!(!part.contains(Seq(missing)));
                prop_assert_eq!(part == range, !range.contains(Seq(missing)));
            }
        }
    }
}
