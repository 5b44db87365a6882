//! What the stand-ins for other people's services have in common: a server that can be down, tokens that are checked,
//! state behind a lock, and secrets in files.

pub mod json_web_token;
pub mod server;

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};

/// A mutex whose holder panicked still guards whole entries.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file so that only the owner can read it, and a reader sees all of it or nothing.
pub fn write_secret(file: &Path, content: &[u8]) -> Result<()> {
    let draft = file.with_extension("draft");
    _ = std::fs::remove_file(&draft);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| out.write_all(content))
        .and_then(|()| std::fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}
