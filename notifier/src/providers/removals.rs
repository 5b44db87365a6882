//! Holds back the removal of devices when a provider says of too many that they are gone: then rather something is set up
//! wrong. Pure.

use parking_lot::Mutex;

/// Answers that are looked back at.
const ANSWERS: u32 = 50;
/// Those among them that may say that a device is gone: a fifth.
const GONE_MAX: u32 = ANSWERS / 5;

/// What a service's last answers said, the newest in the lowest bit: 1 if the device was gone.
#[derive(Debug, Default)]
pub(super) struct Removals(Mutex<u64>);

impl Removals {
    /// Notes an answer. Whether a device that it says is gone may be removed.
    pub(super) fn permits(&self, is_gone: bool) -> bool {
        let mut answers = self.0.lock();
        *answers = ((*answers << 1) | u64::from(is_gone)) & ((1 << ANSWERS) - 1);
        answers.count_ones() <= GONE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_five_may_be_gone() {
        let removals = Removals::default();
        assert!((0..1000).all(|number| removals.permits(number % 5 == 0)));
        assert!((0..1000).any(|number| !removals.permits(number % 4 == 0)));
    }

    #[test]
    fn the_first_answers_remove_no_more_than_later_ones() {
        let removals = Removals::default();
        assert_eq!((0..100).filter(|_| removals.permits(true)).count(), 10);
    }
}
