//! Counts a process' fsyncs from outside, for servers that don't: NATS syncs each write, but tells nobody how many that
//! were. The kernel counts its system calls for `perf`, where that is installed and permitted.

use std::{path::PathBuf, process::Stdio};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::paths;

/// System calls after which something is on the disk.
const EVENTS: &str = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";

/// A count that goes on.
#[derive(Debug)]
pub struct Syncs {
    perf: Child,
    file: PathBuf,
}

impl Syncs {
    /// Begins to count those of a process and of all its threads; none if that can't be done here. `file` is for what
    /// is found.
    pub fn begin(pid: u32, file: PathBuf) -> Option<Self> {
        let perf = Command::new(paths::on_path("perf")?)
            .args(["stat", "-x", ",", "-e", EVENTS, "-p", &pid.to_string(), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        Some(Self { perf, file })
    }

    /// How many there were; none if they couldn't be counted.
    pub async fn end(mut self) -> Result<Option<u64>> {
        let pid = self.perf.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that has ended already found a reason not to count, and says so in its file.
            _ = kill_process(pid, Signal::INT);
        }
        self.perf.wait().await?;
        Ok(std::fs::read_to_string(&self.file).ok().and_then(|text| read(&text)))
    }
}

/// The sum of `count,,event,…` lines; none if an event isn't counted.
fn read(text: &str) -> Option<u64> {
    let lines = text.lines().filter(|line| line.contains("sys_enter_"));
    let counts: Vec<u64> = lines.map(|line| line.split(',').next()?.parse().ok()).collect::<Option<_>>()?;
    (!counts.is_empty()).then(|| counts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_unless_one_is_missing() {
        let counted =
            "# started\n\n50,,syscalls:sys_enter_fsync,84,100.00,,\n2,,syscalls:sys_enter_fdatasync,84,100.00,,\n";
        assert_eq!(read(counted), Some(52));
        assert_eq!(read("<not counted>,,syscalls:sys_enter_fsync,0,0.00,,\n"), None);
        assert_eq!(read("event syntax error"), None);
    }
}
