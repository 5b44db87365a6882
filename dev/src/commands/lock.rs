//! At most one `cargo dev up` per checkout.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};

/// Held for as long as `up` runs. The system lets go of it when the process
/// ends in whatever way, so there are no stale ones.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// If another process holds it.
    pub fn take(state_dir: &Path) -> Result<Self> {
        let mut file = open(state_dir)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read(&mut file).map_or_else(String::new, |pid| format!(" (process {pid})"));
                bail!("cargo dev up runs already in this checkout{pid}; stop it with: cargo dev down");
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock .dev/up.lock"),
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }

    /// The process that holds it, if one does.
    pub fn holder(state_dir: &Path) -> Result<Option<i32>> {
        if !state_dir.is_dir() {
            return Ok(None);
        }
        let mut file = open(state_dir)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(_) => read(&mut file).map(Some).context("cargo dev up is just starting"),
        }
    }
}

fn open(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("up.lock");
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn read(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
