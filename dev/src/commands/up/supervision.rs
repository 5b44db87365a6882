//! Starts a process of the fleet again when it dies, as production would.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time::interval;

use crate::{
    fleet::Fleet,
    fleet_file::FleetFile,
    process::{Process, last_lines},
    terminal,
};

/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(250);

/// A process that dies more often than this within [`WINDOW`] is not started again.
const DEATHS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_mins(1);

/// Lines shown of its log.
const LAST_LINES: usize = 15;

/// Watches until something can't be kept alive. Cancel safe: what is cut off
/// is at worst the start of a process, which the fleet then stops.
///
/// # Errors
/// Always, if it returns: a process kept dying, or did not get ready again.
pub async fn watch(fleet: &Fleet, file: &Path) -> Result<()> {
    let mut deaths: HashMap<String, Vec<Instant>> = HashMap::new();
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        let Some(process) = fleet.processes().find(|process| !process.is_running()) else {
            continue;
        };
        report(process).await;
        let recent = deaths.entry(process.name().to_owned()).or_default();
        recent.retain(|death| death.elapsed() < WINDOW);
        recent.push(Instant::now());
        if recent.len() > DEATHS_MAX {
            bail!("{} died {} times within {WINDOW:?}", process.name(), recent.len());
        }
        if let Err(error) = fleet.start_again(process.name()).await {
            if process.is_running() {
                return Err(error);
            }
            // Its next death is counted by the next look.
            continue;
        }
        FleetFile::describe(fleet)?.write(file)?;
        terminal::progress(&format!("{} is back", process.name()));
    }
}

async fn report(process: &Process) {
    let status = match process.exited().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    terminal::progress(&format!(
        "{} died ({status}) and is started again; its last lines:\n{}",
        process.name(),
        last_lines(process.log(), LAST_LINES)
    ));
}
