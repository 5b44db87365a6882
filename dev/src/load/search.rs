//! The search for the highest rate that is still served well: doubles until it isn't, halves the interval, and then
//! tries longer what was found, since a short step may have been lucky.

/// It is near enough when what failed is at most so much above what passed.
const PRECISION: f64 = 1.07;
/// Below this nothing is looked for.
const RATE_MIN: f64 = 10.0;
/// How much lower it is tried when what was found doesn't hold.
const RETREAT: f64 = 0.93;
/// How often what was found is tried.
const CONFIRMATIONS_MAX: u32 = 8;

/// What is to be tried next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// A short step at this rate.
    Try(f64),
    /// A longer one, which is the result if it passes.
    Confirm(f64),
    /// Nothing: the result stands, or there is none.
    End(Option<f64>),
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    passed: Option<f64>,
    failed: Option<f64>,
    step: Step,
    confirmations: u32,
}

impl Search {
    /// Begins with a rate that should be easy.
    pub fn from(rate: f64) -> Self {
        Self { passed: None, failed: None, step: Step::Try(rate.max(RATE_MIN)), confirmations: 0 }
    }

    /// What to do next.
    pub fn step(&self) -> Step {
        self.step
    }

    /// How that went.
    pub fn report(&mut self, is_good: bool) {
        self.step = match (self.step, is_good) {
            (Step::Try(rate), true) => {
                self.passed = Some(rate);
                self.narrow()
            }
            (Step::Try(rate), false) => {
                self.failed = Some(rate);
                self.narrow()
            }
            (Step::Confirm(rate), true) => Step::End(Some(rate)),
            (Step::Confirm(rate), false) if self.confirmations < CONFIRMATIONS_MAX => self.confirm(rate * RETREAT),
            (Step::Confirm(_), false) => Step::End(None),
            (end @ Step::End(_), _) => end,
        };
    }

    fn narrow(&mut self) -> Step {
        match (self.passed, self.failed) {
            (Some(passed), Some(failed)) if failed / passed <= PRECISION => self.confirm(passed),
            (Some(passed), Some(failed)) => Step::Try(rounded(f64::midpoint(passed, failed))),
            (Some(passed), None) => Step::Try(passed * 2.0),
            (None, Some(failed)) if failed / 2.0 >= RATE_MIN => Step::Try(failed / 2.0),
            (None, _) => Step::End(None),
        }
    }

    fn confirm(&mut self, rate: f64) -> Step {
        self.confirmations += 1;
        Step::Confirm(rounded(rate))
    }
}

/// Rates that are easy to read; finer than the precision.
fn rounded(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor()) / 50.0;
    (rate / unit).floor() * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that serves short steps up to one rate, and long ones up to another.
    fn find(short: f64, long: f64) -> (Option<f64>, usize) {
        let mut search = Search::from(1000.0);
        for steps in 0..40 {
            match search.step() {
                Step::Try(rate) => search.report(rate <= short),
                Step::Confirm(rate) => search.report(rate <= long),
                Step::End(found) => return (found, steps),
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn it_finds_what_holds_in_few_steps() {
        for limit in [37.0, 333.0, 1_450.0, 5_200.0, 24_000.0] {
            let (found, steps) = find(limit, limit);
            let found = found.unwrap();
            assert!(found <= limit && found > limit * 0.85, "{found} of {limit}");
            assert!(steps <= 14, "{steps} steps to {limit}");
        }
    }

    #[test]
    fn what_holds_only_for_a_moment_is_not_the_result() {
        let (found, _) = find(5_000.0, 4_500.0);
        assert!(found.unwrap() <= 4_500.0);
        assert_eq!(find(5_000.0, 1_000.0).0, None);
        assert_eq!(find(1.0, 1.0).0, None);
    }
}
