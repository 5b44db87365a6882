//! What came of one run of a scenario.

use std::time::Duration;

use serde::Serialize;

use super::{scenario::Scenario, trial::Bite};
use crate::audit::Finding;

/// Whether the promises held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All of them, every check had something to look at, and the faults were felt.
    Held,
    /// A fault was not felt, or a check had nothing to look at, so nothing is proven.
    Void,
    /// One was broken, or the run could not be finished.
    Broken,
}

/// A run, from its faults to its audit.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    #[serde(rename = "scenario", serialize_with = "as_name")]
    pub scenario: Scenario,
    pub seed: u64,
    pub verdict: Verdict,
    pub seconds: u64,
    /// Messages that were accepted.
    pub accepted: usize,
    /// Messages whose outcome was unknown until they were sent again.
    pub learned: u64,
    /// Messages that gateways pushed to devices …
    pub pushed: u64,
    /// … and those among them that the same device had been pushed before, which clients filter.
    pub pushed_again: u64,
    pub bites: Vec<Bite>,
    pub findings: Vec<Finding>,
    /// Why the run could not be finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Outcome {
    /// Of a run that did not come to its audit.
    pub fn failed(scenario: Scenario, seed: u64, took: Duration, failure: &anyhow::Error) -> Self {
        Self {
            scenario,
            seed,
            verdict: Verdict::Broken,
            seconds: took.as_secs(),
            accepted: 0,
            learned: 0,
            pushed: 0,
            pushed_again: 0,
            bites: Vec::new(),
            findings: Vec::new(),
            failure: Some(format!("{failure:#}")),
        }
    }

    /// The verdict on what was found.
    pub fn judge(&self) -> Verdict {
        if self.failure.is_some() || self.findings.iter().any(|finding| !finding.is_held()) {
            Verdict::Broken
        } else if self.accepted == 0 || !self.is_felt() || self.findings.iter().any(Finding::is_void) {
            Verdict::Void
        } else {
            Verdict::Held
        }
    }

    fn is_felt(&self) -> bool {
        !self.bites.is_empty() && self.bites.iter().all(|bite| bite.is_felt)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn as_name<S: serde::Serializer>(scenario: &Scenario, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scenario.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Check;

    fn outcome() -> Outcome {
        let mut outcome = Outcome::failed(Scenario::Storm, 1, Duration::ZERO, &anyhow::anyhow!("nothing"));
        outcome.failure = None;
        outcome.accepted = 1;
        outcome.bites.push(Bite { evidence: "seen".to_owned(), is_felt: true });
        outcome.findings.push(Finding { of: 1, ..Finding::new(Check::NotStored) });
        outcome
    }

    #[test]
    fn a_run_without_a_felt_fault_proves_nothing() {
        assert_eq!(outcome().judge(), Verdict::Held);
        let mut unfelt = outcome();
        unfelt.bites.push(Bite { evidence: "nothing happened".to_owned(), is_felt: false });
        assert_eq!(unfelt.judge(), Verdict::Void);
        assert_eq!(Outcome { bites: Vec::new(), ..outcome() }.judge(), Verdict::Void);
        assert_eq!(Outcome { accepted: 0, ..outcome() }.judge(), Verdict::Void);
    }

    #[test]
    fn a_check_without_anything_to_look_at_proves_nothing() {
        let mut blind = outcome();
        blind.findings.push(Finding::new(Check::Unsettled));
        assert_eq!(blind.judge(), Verdict::Void);
    }

    #[test]
    fn a_broken_promise_is_broken_whatever_was_felt() {
        let mut broken = outcome();
        broken.findings[0].violate("number 1".to_owned());
        assert_eq!(broken.judge(), Verdict::Broken);
        broken.bites.clear();
        assert_eq!(broken.judge(), Verdict::Broken);
        assert_eq!(Outcome { failure: Some("did not start".to_owned()), ..outcome() }.judge(), Verdict::Broken);
    }
}
