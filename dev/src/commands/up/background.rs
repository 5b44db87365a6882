//! `up --detach`: the same program again, in the background.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Options, file_in, remove};
use crate::{commands::lock::Lock, fleet_file::FleetFile, process::last_lines, terminal, wait};

/// Long enough to compile everything on a slow machine.
const DEADLINE: Duration = Duration::from_hours(1);

/// Lines shown when it fails.
const LAST_LINES: usize = 30;

/// Starts it and waits until it has described its fleet.
///
/// # Errors
/// If it ends before that, with the end of its output.
pub async fn start(state_dir: &Path, options: &Options) -> Result<FleetFile> {
    // Says so if another one runs; the child takes it for itself.
    drop(Lock::take(state_dir)?);
    let file = file_in(state_dir);
    remove(&file)?;
    let output = state_dir.join("up.log");
    let log = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["up", "--in-background", "--gateways", &options.gateways.to_string()]);
    command.args(["--replicas", &options.replicas.to_string()]);
    if options.fresh {
        command.arg("--fresh");
    }
    // Its own process group, so that Ctrl-C here does not reach it.
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let child = command.spawn().context("cannot start the background process")?;
    terminal::progress(&format!("starting in the background; its output is in {}", output.display()));
    let pid = child.id();
    let child = Mutex::new(child);
    wait::until("the start of the fleet", DEADLINE, || async {
        if let Some(status) = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()? {
            bail!("the background process ended ({status}):\n{}", last_lines(&output, LAST_LINES));
        }
        Ok(FleetFile::read(&file).ok().filter(|described| described.pid == pid))
    })
    .await
}
