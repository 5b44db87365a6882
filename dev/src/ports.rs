//! Free ports of the loopback address.

use std::{collections::BTreeMap, fs::File, net::TcpListener, path::PathBuf, sync::Mutex};

use anyhow::{Context, Result};
use rand::RngExt;

/// Below the range from which systems take ports for outgoing connections, so
/// that a process which is started again finds its port still free.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports are tried before giving up.
const ATTEMPTS_MAX: usize = 200;

/// Ports handed out by this process, with their reservations, so that two parts of it never get the same.
static TAKEN: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());

/// A TCP port of 127.0.0.1 that nobody listens on and that was not handed out before.
pub fn free() -> Result<u16> {
    let mut rng = rand::rng();
    (0..ATTEMPTS_MAX)
        .map(|_| rng.random_range(RANGE))
        .find(|port| take(*port))
        .context("no free port found on 127.0.0.1 between 20000 and 32000")
}

fn take(port: u16) -> bool {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains_key(&port) {
        return false;
    }
    let Some(reservation) = reserve(port) else { return false };
    let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
    if is_free {
        taken.insert(port, reservation);
    }
    is_free
}

/// Reserves a port among the processes of this user until this one ends, so that no other takes it before its server
/// listens, or while its server is down. None if it is reserved.
fn reserve(port: u16) -> Option<File> {
    let directory = std::env::temp_dir().join(format!("chat-ports-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir_all(&directory).ok()?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(port.to_string())).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Hands out ports by name and, given a file, the same ones as last time when
/// they are still free, so that addresses survive a restart of `cargo dev up`.
#[derive(Debug, Default)]
pub struct Ports {
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<String, u16>>,
}

impl Ports {
    /// Remembers nothing.
    pub fn fresh() -> Self {
        Self::default()
    }

    /// Remembers in `file`. An unreadable file counts as empty.
    pub fn remembered(file: PathBuf) -> Self {
        let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file: Some(file), known: Mutex::new(known) }
    }

    /// The port for `name`.
    pub fn get(&self, name: &str) -> Result<u16> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let port = match known.get(name) {
            Some(port) if take(*port) => *port,
            _ => free()?,
        };
        known.insert(name.to_owned(), port);
        if let Some(file) = &self.file {
            let text = serde_json::to_vec_pretty(&*known)?;
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_process_has_reserved_is_not_taken() {
        let other = (0..ATTEMPTS_MAX).find_map(|_| {
            let port = rand::rng().random_range(RANGE);
            Some((port, reserve(port)?))
        });
        let (port, reservation) = other.unwrap();
        assert!(!take(port));
        drop(reservation);
        assert!(free().is_ok());
    }
}
