//! Finds the children of a process.

use std::process::Command;

use rustix::process::Pid;

/// The direct children of `parent` at this moment; empty if it is gone.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let raw = parent.as_raw_nonzero();
    match std::fs::read_to_string(format!("/proc/{raw}/task/{raw}/children")) {
        Ok(list) => list.split_whitespace().filter_map(parse).collect(),
        Err(_) => from_process_list(raw.get()),
    }
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
