//! What is counted while a plan runs.

use std::collections::BTreeMap;

use crate::{
    histogram::Histogram,
    plan::{Crowd, Done, Phase, PhaseDone, Plan, Second},
};

/// Kinds of errors, at the most; a server that never says the same twice must not fill the memory.
const ERROR_KINDS_MAX: usize = 100;

/// All counts of a process but those that each client keeps.
#[derive(Debug)]
pub struct Stats {
    phases: Vec<Phase>,
    second: Second,
    /// Becomes what is said at the end.
    pub done: Done,
}

impl Stats {
    /// Nothing yet.
    pub fn new(plan: &Plan) -> Self {
        let mut done = Done::default();
        for _ in &plan.crowds {
            let mut crowd = crate::plan::CrowdDone::default();
            crowd.phases.resize_with(plan.phases.len(), PhaseDone::default);
            done.crowds.push(crowd);
        }
        Self { phases: plan.phases.clone(), second: Second::default(), done }
    }

    /// A message was due. All moments are microseconds after the start.
    pub fn offered(&mut self, crowd: usize, due_us: u64) {
        self.at(crowd, due_us, |phase| phase.offered += 1);
    }

    /// An answer came.
    pub fn accepted(&mut self, crowd: usize, due_us: u64, now_us: u64) {
        let wait = now_us.saturating_sub(due_us);
        self.at(crowd, now_us, |phase| phase.accepted += 1);
        self.at(crowd, due_us, |phase| phase.accept.record(wait));
        self.second.accepted += 1;
        self.second.accept.record(wait);
    }

    /// A message was shown to somebody else.
    pub fn delivered(&mut self, crowd: usize, due_us: u64, now_us: u64) {
        let wait = now_us.saturating_sub(due_us);
        self.at(crowd, now_us, |phase| phase.delivered += 1);
        self.at(crowd, due_us, |phase| phase.deliver.record(wait));
        self.second.delivered += 1;
        self.second.deliver.record(wait);
    }

    /// Something went wrong.
    pub fn error(&mut self, kind: &str) {
        count(&mut self.done.errors, kind);
    }

    /// What happened since the last call.
    pub fn take_second(&mut self, at: u64, connected: u64) -> Second {
        let next = Second { accept: Histogram::default(), deliver: Histogram::default(), ..Second::default() };
        Second { at, connected, ..std::mem::replace(&mut self.second, next) }
    }

    fn at(&mut self, crowd: usize, us: u64, note: impl Fn(&mut PhaseDone)) {
        let phases = &mut self.done.crowds[crowd].phases;
        for (phase, done) in self.phases.iter().zip(phases) {
            if (phase.from_us..phase.until_us).contains(&us) {
                note(done);
            }
        }
    }
}

fn count(errors: &mut BTreeMap<String, u64>, kind: &str) {
    if let Some(count) = errors.get_mut(kind) {
        *count += 1;
    } else {
        let kind = if errors.len() < ERROR_KINDS_MAX { kind } else { "of many other kinds" };
        *errors.entry(kind.to_owned()).or_default() += 1;
    }
}

/// When the last thing that is planned happens, in microseconds after the start.
pub fn end_us(plan: &Plan) -> u64 {
    let phases = plan.phases.iter().map(|phase| phase.until_us);
    let sends = plan.crowds.iter().filter_map(|crowd| crowd.sends).map(|sends| sends.until_us);
    let absences = plan.crowds.iter().filter_map(Crowd::present_again_us);
    phases.chain(sends).chain(absences).max().unwrap_or(0)
}
