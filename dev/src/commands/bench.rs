//! `cargo dev bench`: figures, from a release build of everything, the load included.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use tokio::process::Command;

use crate::{
    bench::{self, Sizes},
    fleet::programs,
    signals::Ending,
    terminal,
};

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    /// How long each load is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many idle connections
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    connections: usize,
    /// Set for the process that holds idle connections: what it is told
    #[arg(long, hide = true)]
    hold: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// If something does not build or start, or answers wrongly.
pub async fn run(options: Options) -> Result<ExitCode> {
    if let Some(file) = options.hold {
        bench::hold(&file).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut ending = Ending::listen(true)?;
    tokio::select! {
        // Dropping it ends the fleet, or the release build that runs it.
        measured = measure(&options) => measured,
        () = ending.asked() => {
            terminal::progress("interrupted");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn measure(options: &Options) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        return again_in_release(options).await;
    }
    bench::run(&Sizes { load: Duration::from_secs(options.seconds), connections: options.connections }).await?;
    Ok(ExitCode::SUCCESS)
}

/// A load from a debug build would measure itself.
async fn again_in_release(options: &Options) -> Result<ExitCode> {
    terminal::progress("building the load");
    let mut command = Command::from(programs::cargo()?);
    command.args(["run", "--quiet", "--release", "--package", "chat-dev", "--bin", "dev", "--", "bench"]);
    command.args(["--seconds", &options.seconds.to_string(), "--connections", &options.connections.to_string()]);
    let status = command.kill_on_drop(true).status().await.context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
