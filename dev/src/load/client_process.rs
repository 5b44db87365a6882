//! Starts a process of the load generator with its plan.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::process::{Child, Command};

/// Starts `program` to do `command` by `plan`, which is written to `directory` under `name`. Its input and output are
/// pipes; dropping the child kills it.
///
/// # Errors
/// If the plan can't be written, or the program does not start.
pub fn spawn(program: &Path, command: &str, directory: &Path, name: &str, plan: &impl Serialize) -> Result<Child> {
    let file = directory.join(name).with_extension("json");
    std::fs::write(&file, serde_json::to_vec(plan)?)?;
    Command::new(program)
        .arg(command)
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
