//! The secrets of a fleet, made once and kept in its directory.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::Rng;

/// Files that each hold 32 random bytes in base64.
#[derive(Debug)]
pub struct Keys {
    /// Wraps the content keys that are kept in Postgres.
    pub master: PathBuf,
    /// Masks ids in logs, so that lines of several processes can be correlated.
    pub mask: PathBuf,
}

impl Keys {
    /// Makes those which are not there yet.
    pub fn ensure(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { master: ensure_key(directory.join("master.key"))?, mask: ensure_key(directory.join("mask.key"))? })
    }
}

fn ensure_key(file: PathBuf) -> Result<PathBuf> {
    if file.is_file() {
        return Ok(file);
    }
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut out| writeln!(out, "{}", STANDARD.encode(key)))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
