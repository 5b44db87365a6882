//! Sets of numbers that come almost in order: kept as ranges, of which there is mostly one.

/// A set of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a number. False if it is there already.
    pub fn insert(&mut self, number: u64) -> bool {
        if let Some(last) = self.0.last_mut()
            && last.1 == number
        {
            last.1 += 1;
            return true;
        }
        // The first range that begins after the number.
        let after = self.0.partition_point(|(first, _)| *first <= number);
        let joins_before = after > 0 && self.0[after - 1].1 >= number;
        if joins_before && self.0[after - 1].1 > number {
            return false;
        }
        let joins_after = self.0.get(after).is_some_and(|(first, _)| *first == number + 1);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 += 1,
            (false, true) => self.0[after].0 = number,
            (false, false) => self.0.insert(after, (number, number + 1)),
        }
        true
    }

    /// How many numbers it holds.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, end)| end - first).sum()
    }

    /// How many numbers both hold.
    pub fn common(&self, other: &Self) -> u64 {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some(&&(first, end)), Some(&&(their_first, their_end))) = (ours.peek(), theirs.peek()) {
            count += end.min(their_end).saturating_sub(first.max(their_first));
            if end <= their_end {
                ours.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// Each with its first number and the one after its last.
    pub fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[u64]) -> Ranges {
        let mut ranges = Ranges::default();
        for number in numbers {
            ranges.insert(*number);
        }
        ranges
    }

    #[test]
    fn numbers_in_order_make_one_range() {
        assert_eq!(of(&[5, 6, 7, 8]).pairs(), [(5, 9)]);
        assert_eq!(of(&[5, 7, 6]).pairs(), [(5, 8)]);
    }

    proptest! {
        #[test]
        fn it_is_a_set(ours in proptest::collection::vec(0_u64..60, 0..80), theirs in proptest::collection::vec(0_u64..60, 0..80)) {
            let (mut set, mut ranges) = (BTreeSet::new(), Ranges::default());
            for number in &ours {
                prop_assert_eq!(ranges.insert(*number), set.insert(*number));
            }
            prop_assert_eq!(ranges.len(), set.len() as u64);
            let listed: Vec<u64> = ranges.pairs().iter().flat_map(|(first, end)| *first..*end).collect();
            prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
            prop_assert!(ranges.pairs().is_sorted_by(|one, other| one.1 < other.0));
            let others: BTreeSet<u64> = theirs.iter().copied().collect();
            prop_assert_eq!(ranges.common(&of(&theirs)), set.intersection(&others).count() as u64);
        }
    }
}
