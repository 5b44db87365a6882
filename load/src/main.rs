//! The client process of `cargo dev load`: does what a plan says, and tells on standard output what came of it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

fn main() -> Result<ExitCode> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("give the file of a plan; `cargo dev load` writes them and starts this program")?;
    let plan = serde_json::from_slice(&std::fs::read(&file)?).context("the plan can't be read")?;
    chat_load::worker::run(plan)?;
    Ok(ExitCode::SUCCESS)
}
