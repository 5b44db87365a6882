//! What `cargo dev load` starts as processes of their own: clients that do what a plan says, clients that break the
//! rules, readers of history, and the measurement of what the machine can do by itself. All tell what came of it on
//! standard output, as lines of JSON.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use chat_load::{floors, pages, plan::FloorsPlan, rude, worker};
use serde::de::DeserializeOwned;

const USAGE: &str = "give `clients`, `rude`, `pages` or `floors` and a file; `cargo dev load` writes such files and starts this program";

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().context(USAGE)?;
    let file = PathBuf::from(arguments.next().context(USAGE)?);
    match what.to_str() {
        Some("clients") => worker::run(read(&file)?)?,
        Some("rude") => rude::run(read(&file)?)?,
        Some("pages") => pages::run(&read(&file)?)?,
        Some("floors") => measure_floors(&read(&file)?)?,
        _ => bail!(USAGE),
    }
    Ok(ExitCode::SUCCESS)
}

fn read<T: DeserializeOwned>(file: &PathBuf) -> Result<T> {
    serde_json::from_slice(&std::fs::read(file)?).context("the plan can't be read")
}

fn measure_floors(plan: &FloorsPlan) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let floors = runtime.block_on(floors::measure(&plan.directory, &plan.nats_url, &plan.postgres_url))?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &floors)?;
    Ok(writeln!(out)?)
}
