//! Free ports of the loopback address.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, sync::Mutex};

use anyhow::{Context, Result};
use rand::RngExt;

/// Below the range from which systems take ports for outgoing connections, so
/// that a process which is started again finds its port still free.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports are tried before giving up.
const ATTEMPTS_MAX: usize = 200;

/// Ports handed out by this process, so that two parts of it never get the same.
static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

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
    let is_free = !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok();
    if is_free {
        taken.push(port);
    }
    is_free
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
