//! Numbers of messages in runs: a user's own messages beyond the read mark, which are not unread.

use serde::{Deserialize, Serialize};

use crate::{limits, position::Seq};

/// Runs of consecutive numbers, ascending and apart from each other; of more than [`limits::OWN_RUNS_MAX`] the last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Runs(Vec<(Seq, Seq)>);

impl Runs {
    /// The runs with these first and last numbers.
    pub fn of(runs: impl IntoIterator<Item = (Seq, Seq)>) -> Self {
        let mut all = Self::default();
        for (first, last) in runs {
            all.insert(first, last);
        }
        all
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the numbers from `first` to `last`.
    pub fn insert(&mut self, first: Seq, last: Seq) {
        if first > last {
            return;
        }
        // Runs before this one end more than one number before `first`.
        let from = self.0.partition_point(|run| run.1.0.saturating_add(1) < first.0);
        let to = self.0.partition_point(|run| run.0.0 <= last.0.saturating_add(1)).max(from);
        let joined =
            self.0[from..to].iter().fold((first, last), |joined, run| (joined.0.min(run.0), joined.1.max(run.1)));
        self.0.splice(from..to, [joined]);
        let beyond = self.0.len().saturating_sub(limits::OWN_RUNS_MAX);
        self.0.drain(..beyond);
    }

    /// Adds all numbers of other runs.
    pub fn extend(&mut self, other: &Self) {
        for (first, last) in &other.0 {
            self.insert(*first, *last);
        }
    }

    /// Removes the numbers up to `read`. Returns the end of the run that follows `read` at once, which it removes too, else
    /// `read`.
    pub fn settle(&mut self, read: Seq) -> Seq {
        self.0.retain_mut(|run| {
            run.0 = run.0.max(read.next());
            run.0 <= run.1
        });
        if self.0.first().is_some_and(|run| run.0 == read.next()) { self.0.remove(0).1 } else { read }
    }

    /// How many numbers are larger than `seq`.
    pub fn count_after(&self, seq: Seq) -> u64 {
        let after = |run: &(Seq, Seq)| (run.1.0.saturating_add(1)).saturating_sub(run.0.0.max(seq.0.saturating_add(1)));
        self.0.iter().map(after).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(runs: &Runs) -> Vec<u64> {
        runs.0.iter().flat_map(|run| run.0.0..=run.1.0).collect()
    }

    #[test]
    fn runs_that_touch_become_one_and_the_last_ones_are_kept() {
        let mut runs = Runs::of([(Seq(5), Seq(6)), (Seq(9), Seq(9)), (Seq(7), Seq(8)), (Seq(2), Seq(1))]);
        assert_eq!(runs, Runs::of([(Seq(5), Seq(9))]));
        assert_eq!((runs.count_after(Seq(6)), runs.count_after(Seq(9)), runs.count_after(Seq(0))), (3, 0, 5));
        assert_eq!((runs.settle(Seq(3)), runs.settle(Seq(4)), runs.is_empty()), (Seq(3), Seq(9), true));
        let many = Runs::of((1..=100).map(|number| (Seq(2 * number), Seq(2 * number))));
        assert_eq!(many.count_after(Seq::ZERO), limits::OWN_RUNS_MAX as u64);
        assert_eq!(many.count_after(Seq(199)), 1);
        let wide = Runs::of([(Seq(1), Seq(u64::MAX)), (Seq(u64::MAX), Seq(u64::MAX))]);
        assert!(wide.count_after(Seq(1)) > u64::MAX - 3, "numbers that no gateway gives are no panic");
    }

    proptest! {
        #[test]
        fn runs_are_a_set_of_numbers(inserts in proptest::collection::vec((1..30_u64, 0..4_u64), 0..12), read in 0..30_u64) {
            let mut set = BTreeSet::new();
            let mut runs = Runs::default();
            for (first, more) in inserts {
                set.extend(first..=first + more);
                runs.insert(Seq(first), Seq(first + more));
                prop_assert_eq!(numbers(&runs), set.iter().copied().collect::<Vec<_>>());
                prop_assert!(runs.0.windows(2).all(|pair| pair[0].1.0 + 1 < pair[1].0.0), "{:?}", runs);
            }
            prop_assert_eq!(runs.count_after(Seq(read)), set.range(read + 1..).count() as u64);
            let settled = runs.settle(Seq(read));
            let expected = (read..100).find(|number| !set.contains(&(number + 1))).unwrap();
            prop_assert_eq!(settled, Seq(expected));
            prop_assert_eq!(numbers(&runs), set.range(expected + 1..).copied().collect::<Vec<_>>());
        }
    }
}
