//! The report of a call: put together, written to files, printed, and summed up in a last line of JSON.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use chat_load::{
    floors,
    report::{self, Aim, Comparison, Floors, Report, Run},
};
use serde_json::{Value, json};

use super::{machine, run::Measured};
use crate::{paths, terminal};

/// Collects what was measured.
#[derive(Debug)]
pub struct Outcome(Report);

impl Outcome {
    /// Of a scenario, with what was chosen.
    pub fn begin(scenario: &str, settings: BTreeMap<String, Value>) -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Ok(Self(Report {
            scenario: scenario.to_owned(),
            command: format!("cargo dev {}", arguments.join(" ")),
            machine: machine::machine()?,
            settings,
            ..Report::default()
        }))
    }

    /// What the machine's parts do by themselves.
    pub fn floors(&mut self, floors: Option<Floors>) {
        self.0.floors = floors;
    }

    /// More programs that take part.
    pub fn versions(&mut self, versions: BTreeMap<String, String>) {
        self.0.versions.extend(versions);
    }

    /// A load whose problems and failures are problems of the report. What else is known of it can be changed until then.
    pub fn add<R>(&mut self, mut measured: Measured<R>) {
        measured.problems.append(&mut measured.failures);
        self.add_compared(measured);
    }

    /// A load on a peer that is compared by what it loses and repeats: its failures are figures and no problems.
    pub fn add_compared<R>(&mut self, measured: Measured<R>) {
        let name = format!("{} {}", measured.run.target, measured.run.name);
        self.0.problems.extend(measured.problems.iter().map(|problem| format!("{name}: {problem}")));
        self.put(measured.run);
    }

    /// A load that was meant to find out whether it is too much. Even so nothing may be lost.
    pub fn add_step(&mut self, run: Run) {
        let lost = run.proof.map_or(0, |proof| proof.lost);
        if lost > 0 {
            self.0.problems.push(format!("{} {}: {lost} lost", run.target, run.name));
        }
        self.put(run);
    }

    fn put(&mut self, mut run: Run) {
        if let Some(floors) = &self.0.floors
            && run.target == "chat"
        {
            run.figures.extend(floors::figures(floors, &run));
        }
        self.0.runs.push(run);
    }

    /// Something to be reached, and whether it was.
    pub fn aim(&mut self, what: &str, aim: &str, measured: String, is_met: bool) {
        self.0.aims.push(Aim { what: what.to_owned(), aim: aim.to_owned(), measured, is_met });
    }

    /// How little more than it must accepting takes, in the last run of this backend.
    pub fn accept_aim(&mut self) {
        let run = self.0.runs.iter().rev().find(|run| run.target == "chat");
        if let (Some(floors), Some(run)) = (&self.0.floors, run) {
            self.0.aims.extend(floors::accept_aim(floors, run));
        }
    }

    /// One quantity here and at a peer.
    pub fn compare(&mut self, what: &str, peer: &str, ours: f64, theirs: f64) {
        let ratio = (theirs > 0.0).then(|| ours / theirs);
        let comparison = Comparison { what: what.to_owned(), ours, theirs, peer: peer.to_owned(), ratio };
        self.0.comparisons.push(comparison);
    }

    /// Something that makes the figures useless.
    pub fn problem(&mut self, problem: String) {
        self.0.problems.push(problem);
    }

    /// Writes and prints everything. Success if the report is valid.
    pub fn finish(mut self) -> Result<ExitCode> {
        self.0.is_valid = self.0.problems.is_empty();
        let directory = paths::state_dir()?.join("load");
        std::fs::create_dir_all(&directory)?;
        let file = |ending: &str| directory.join(format!("{}.{ending}", self.0.scenario));
        let (data, page) = (file("json"), file("html"));
        write(&data, serde_json::to_vec_pretty(&self.0)?)?;
        write(&page, report::page(&self.0).into_bytes())?;
        println!("{}", report::text(&self.0));
        terminal::progress(&format!("plots: {}", page.display()));
        terminal::progress(&format!("data: {}", data.display()));
        println!("{}", serde_json::to_string(&last_line(&self.0, &data))?);
        Ok(if self.0.is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn write(file: &PathBuf, bytes: Vec<u8>) -> Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// For machines that read the last line of output.
fn last_line(report: &Report, data: &std::path::Path) -> Value {
    let run = |run: &Run| {
        let figures: BTreeMap<&str, f64> =
            run.figures.iter().map(|(name, figure)| (name.as_str(), rounded(figure.value))).collect();
        json!({
            "target": run.target,
            "name": run.name,
            "offered_per_second": rounded(run.offered_per_second),
            "accepted_per_second": rounded(run.accepted_per_second),
            "delivered_per_second": rounded(run.delivered_per_second),
            "accept_p50_ms": rounded(run.accept.p50_ms),
            "accept_p99_ms": rounded(run.accept.p99_ms),
            "deliver_p50_ms": rounded(run.deliver.p50_ms),
            "deliver_p99_ms": rounded(run.deliver.p99_ms),
            "cpu_seconds_per_1000": rounded(run.cpu_seconds_per_1000),
            "accepted": run.proof.map(|proof| proof.accepted),
            "lost": run.proof.map(|proof| proof.lost),
            "figures": figures,
        })
    };
    json!({
        "scenario": report.scenario,
        "is_valid": report.is_valid,
        "problems": report.problems,
        "runs": report.runs.iter().map(run).collect::<Vec<_>>(),
        "comparisons": report.comparisons,
        "aims_met": report.aims.iter().filter(|aim| aim.is_met).count(),
        "aims": report.aims.len(),
        "report": data,
    })
}

/// Three decimals are enough for a line.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
