//! `cargo dev check`: everything that must hold besides the tests.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    deny::{self, Covered},
    prepare::{self, Pass},
    schema::Migrated,
};
use crate::{cargo, manifests, paths, terminal};

/// How a step went, and how long it took.
struct Outcome {
    name: &'static str,
    result: Result<String>,
    took: Duration,
}

/// Runs all steps, also after one has failed, and sums up.
///
/// # Errors
/// Never by itself; a failed step is in the exit status.
pub async fn run() -> Result<ExitCode> {
    let migrated = Migrated::start().await;
    let database = || migrated.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
    let outcomes = [
        step("format", || run_cargo(&["fmt", "--all", "--check"], &[])),
        step("schema.sql", || schema_is_fresh(&database()?.dump()?)),
        // One pass for both: the lints, and every statement against the migrated schema.
        step("clippy and SQL", || metadata_is_fresh(&database()?.url())),
        step("documents", || {
            run_cargo(&["doc", "--quiet", "--no-deps", "--workspace"], &[("RUSTDOCFLAGS", "-D warnings")])
        }),
        step("dependencies", dependencies),
        step("manifests", manifests::check),
    ];
    Ok(sum_up(&outcomes))
}

fn step(name: &'static str, work: impl FnOnce() -> Result<String>) -> Outcome {
    terminal::heading(&format!("── {name}"));
    let start = Instant::now();
    let result = tokio::task::block_in_place(work);
    Outcome { name, result, took: start.elapsed() }
}

fn sum_up(outcomes: &[Outcome]) -> ExitCode {
    terminal::heading("── summary");
    for Outcome { name, result, took } in outcomes {
        let seconds = took.as_secs_f64();
        match result {
            Ok(note) => eprintln!("{} {name:<14} {seconds:>6.1} s  {note}", terminal::paint("32", "ok    ")),
            Err(error) => eprintln!("{} {name:<14} {seconds:>6.1} s  {error:#}", terminal::paint("31", "FAILED")),
        }
    }
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_cargo(arguments: &[&str], env: &[(&str, &str)]) -> Result<String> {
    let status = cargo::command()?.args(arguments).envs(env.iter().copied()).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} complains", arguments[0]);
    Ok(String::new())
}

fn metadata_is_fresh(url: &str) -> Result<String> {
    let wanted = prepare::metadata(url, Pass::Lint)?;
    let found = prepare::read(&paths::workspace_root()?.join(".sqlx"))?;
    if wanted != found {
        let stale = found.iter().filter(|(name, text)| wanted.get(*name) != Some(*text)).count();
        let missing = wanted.keys().filter(|name| !found.contains_key(*name)).count();
        bail!(".sqlx/ is not fresh ({stale} stale, {missing} missing); run: cargo dev prepare");
    }
    Ok(format!("{} statements", found.len()))
}

fn schema_is_fresh(wanted: &str) -> Result<String> {
    let file = prepare::schema_file(&paths::workspace_root()?);
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some((line, (left, right))) =
        found.lines().zip(wanted.lines()).enumerate().find(|(_, (left, right))| left != right)
    {
        bail!(
            "migrations/schema.sql is not fresh; run: cargo dev prepare\n    line {}: {left}\n    should be: {right}",
            line + 1
        );
    }
    ensure!(found == wanted, "migrations/schema.sql is not fresh; run: cargo dev prepare");
    Ok(String::new())
}

fn dependencies() -> Result<String> {
    Ok(match deny::check()? {
        Covered::Everything => String::new(),
        Covered::AllButAdvisories => {
            "advisories were SKIPPED: their database could not be reached from this machine".to_owned()
        }
    })
}
