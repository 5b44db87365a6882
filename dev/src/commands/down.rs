//! `cargo dev down`: stops the fleet of this checkout.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::lock::Lock;
use crate::{paths, terminal, wait};

/// Every service in turn, then the servers.
const DEADLINE: Duration = Duration::from_mins(3);

/// Asks `up` to stop and waits until it has.
pub async fn run() -> Result<ExitCode> {
    let state_dir = paths::state_dir()?;
    let Some(pid) = Lock::holder(&state_dir)? else {
        terminal::progress("nothing runs in this checkout");
        return Ok(ExitCode::SUCCESS);
    };
    let pid = Pid::from_raw(pid).context("the lock file names no process")?;
    kill_process(pid, Signal::TERM).context("cannot signal cargo dev up")?;
    wait::until("the end of cargo dev up", DEADLINE, || async {
        Ok(Lock::holder(&state_dir)?.is_none().then_some(()))
    })
    .await?;
    terminal::progress("stopped");
    Ok(ExitCode::SUCCESS)
}
