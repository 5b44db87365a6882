//! The end of a run: a table, and the same as JSON on request.

use std::time::Duration;

use serde::Serialize;

use super::{
    outcome::{Outcome, Verdict},
    told::paint,
};

/// Columns of a line before it goes on in the next.
const WIDTH: usize = 110;

/// Everything that was played.
#[derive(Debug, Serialize)]
pub struct Report {
    held: usize,
    void: usize,
    broken: usize,
    seconds: u64,
    scenarios: Vec<Outcome>,
}

impl Report {
    /// Of these runs.
    pub fn of(scenarios: Vec<Outcome>, took: Duration) -> Self {
        let count = |wanted| scenarios.iter().filter(|outcome| outcome.verdict == wanted).count();
        Self {
            held: count(Verdict::Held),
            void: count(Verdict::Void),
            broken: count(Verdict::Broken),
            seconds: took.as_secs(),
            scenarios,
        }
    }

    /// Whether all promises held, in runs that prove it.
    pub const fn is_held(&self) -> bool {
        self.void == 0 && self.broken == 0 && self.held > 0
    }

    /// Prints the table, with the scenarios that did not hold at its end. `mode` are the options that make each scenario as
    /// long as it was.
    pub fn print(&self, mode: &str) {
        println!();
        let (held, others): (Vec<_>, Vec<_>) =
            self.scenarios.iter().partition(|outcome| outcome.verdict == Verdict::Held);
        for outcome in held.into_iter().chain(others) {
            print_one(outcome);
        }
        let Self { held, void, broken, seconds, .. } = self;
        let summary = format!("{held} held, {broken} broken, {void} void, in {seconds} s");
        println!("\n  {}", paint(if self.is_held() { "1;32" } else { "1;31" }, &summary));
        for outcome in self.scenarios.iter().filter(|outcome| outcome.verdict != Verdict::Held) {
            let (name, seed) = (outcome.scenario.name(), outcome.seed);
            println!("  repeat with: cargo dev chaos {mode}--only {name} --seed {seed}");
        }
    }

    /// One line about a run.
    pub fn line(outcome: &Outcome) -> String {
        let Outcome { scenario, seed, verdict, seconds, accepted, .. } = outcome;
        format!("{} {:<16} seed {seed:<8} {seconds:>4} s {accepted:>7} accepted", mark(*verdict), scenario.name())
    }
}

fn print_one(outcome: &Outcome) {
    println!("  {}", Report::line(outcome));
    let mut evidence: Vec<String> = outcome.bites.iter().map(|bite| bite.evidence.clone()).collect();
    // Rounds that were felt in the same way are one line.
    evidence.dedup();
    print_wrapped("felt", &evidence);
    let checks: Vec<String> = outcome
        .findings
        .iter()
        .map(|finding| {
            let text = format!("{} {} of {}", finding.check.label(), finding.violations, finding.of);
            match (finding.is_held(), finding.is_void()) {
                (false, _) => paint("1;31", &text),
                (true, true) => paint("1;33", &text),
                (true, false) => text,
            }
        })
        .collect();
    print_wrapped("audit", &checks);
    for finding in outcome.findings.iter().filter(|finding| !finding.is_held()) {
        let example = finding.first.as_deref().unwrap_or("no example");
        println!("      {}", paint("1;31", &format!("{}: {example}", finding.check.label())));
    }
    if let Some(failure) = &outcome.failure {
        println!("      {}", paint("1;31", failure));
    }
}

fn print_wrapped(label: &str, parts: &[String]) {
    let (mut line, mut label) = (String::new(), label);
    for part in parts {
        if !line.is_empty() && line.len() + part.len() > WIDTH {
            println!("      {label:<6} {line}");
            line.clear();
            label = "";
        }
        if !line.is_empty() {
            line.push_str(" · ");
        }
        line.push_str(part);
    }
    if !line.is_empty() {
        println!("      {label:<6} {line}");
    }
}

fn mark(verdict: Verdict) -> String {
    match verdict {
        Verdict::Held => paint("32", "✓ held  "),
        Verdict::Void => paint("1;33", "○ void  "),
        Verdict::Broken => paint("1;31", "✗ broken"),
    }
}
