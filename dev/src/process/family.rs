//! The children of a process, and what state they are in.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

/// The direct children of `parent` at this moment; empty if it is gone.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let raw = parent.as_raw_nonzero();
    match std::fs::read_to_string(format!("/proc/{raw}/task/{raw}/children")) {
        Ok(list) => list.split_whitespace().filter_map(parse).collect(),
        Err(_) => from_process_list(raw.get()),
    }
}

/// How long a process may take to freeze; it is quick unless the disk is stuck.
const FREEZE_DEADLINE: Duration = Duration::from_millis(500);

/// Waits until a process that got SIGSTOP has stopped, or for a moment where that can't be seen.
pub fn wait_frozen(pid: Pid) {
    let end = Instant::now() + FREEZE_DEADLINE;
    while !is_frozen(pid) && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Whether all of its threads stand still: one that still runs may answer a request after the first one has stopped.
fn is_frozen(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return true };
    let states = threads.flatten().filter_map(|thread| state(&thread.path().join("stat")));
    states.into_iter().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// Whether it runs no more. A dead process that nobody has buried is gone too.
pub fn is_gone(pid: Pid) -> bool {
    match state(Path::new(&format!("/proc/{}/stat", pid.as_raw_nonzero()))) {
        Some(state) => matches!(state, 'Z' | 'X'),
        None => rustix::process::test_kill_process(pid).is_err(),
    }
}

/// The letter of its state; `None` if it is gone or the system has no `/proc`.
fn state(stat: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(stat).ok()?;
    // The name before it is in parentheses and may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// For systems without `/proc`.
fn from_process_list(parent: i32) -> Vec<Pid> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok())
        .filter(|[_, of]: &[&str; 2]| of.parse() == Ok(parent))
        .filter_map(|[child, _]| parse(child))
        .collect()
}

fn parse(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}
