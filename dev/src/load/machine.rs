//! Which computer this is, and which programs run on it.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use chat_load::report::Machine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::cost::kilobytes;
use crate::{paths, servers::Binaries};

/// Descriptors that a process uses besides those of connections.
const SPARE_FILES: u64 = 1000;

/// This computer.
pub fn machine() -> Result<Machine> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("only Linux is measured")?;
    let name = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kernel = rustix::system::uname();
    Ok(Machine {
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: kilobytes(&memory, "MemTotal")?,
        kernel: format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
        processor: name.trim_start_matches([' ', '\t', ':']).to_owned(),
    })
}

/// Versions of this backend and of its servers.
pub fn versions(binaries: &Binaries) -> BTreeMap<String, String> {
    let programs = [
        ("nats-server", version(&binaries.nats)),
        ("postgres", version(&binaries.postgres.join("postgres"))),
        ("redis-server", version(&binaries.redis)),
        ("rustc", version(Path::new("rustc"))),
    ];
    let commit = paths::workspace_root().ok().and_then(|root| {
        let root = root.display().to_string();
        said(Path::new("git"), &["-C", &root, "describe", "--always", "--dirty"])
    });
    let chat = commit
        .map_or(env!("CARGO_PKG_VERSION").to_owned(), |commit| format!("{} ({commit})", env!("CARGO_PKG_VERSION")));
    let mut versions: BTreeMap<String, String> =
        programs.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))).collect();
    versions.insert("chat".to_owned(), chat);
    versions
}

/// What a program says when asked for its version, without the words around it.
fn version(program: &Path) -> Option<String> {
    number_in(&said(program, &["--version"])?)
}

fn number_in(said: &str) -> Option<String> {
    let mut words = said.split_whitespace().map(|word| word.trim_start_matches("v=").trim_start_matches('v'));
    words.find(|word| word.starts_with(|first: char| first.is_ascii_digit())).map(str::to_owned)
}

/// The first line of what a program prints.
pub fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Raises the soft limit of this process, which those that it starts inherit: one of them may have to hold so
/// many connections.
pub fn allow_connections(connections: usize) -> Result<()> {
    let wanted = connections as u64 + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let most = limit.maximum.unwrap_or(u64::MAX);
        ensure!(most >= wanted, "{wanted} file descriptors are needed; `ulimit -Hn` allows {most}");
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.or(Some(wanted)), maximum: limit.maximum })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_among_words() {
        for (said, version) in [
            ("nats-server: v2.15.1", "2.15.1"),
            ("postgres (PostgreSQL) 18.6", "18.6"),
            ("Redis server v=6.2.5 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64", "6.2.5"),
            ("rustc 1.95.0 (59807616e 2026-04-14)", "1.95.0"),
        ] {
            assert_eq!(number_in(said).as_deref(), Some(version));
        }
        assert_eq!(number_in("none"), None);
    }
}
