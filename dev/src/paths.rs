//! Where things are: the checkout, the cache of downloads, scratch directories.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::servers::account::Account;

/// Traversable by the account that Postgres runs under, unreadable to it.
const SCRATCH_MODE: u32 = 0o711;

/// The value of an environment variable of the caller's shell, if set and not empty.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The root of the checkout in which `cargo dev` was called.
///
/// Falls back to where this crate was compiled, for tests run by other means.
pub fn workspace_root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current directory is gone")?;
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .chain(compiled.ancestors())
        .find(|directory| directory.join("Cargo.lock").is_file() && directory.join("dev/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .context("this is not a checkout of the chat backend: no Cargo.lock beside dev/")
}

/// State of `cargo dev up` in this checkout; ignored by git.
pub fn state_dir() -> Result<PathBuf> {
    Ok(workspace_root()?.join(".dev"))
}

/// The directory of downloads, shared by all checkouts of this machine.
///
/// As root it must be one that the unprivileged account of Postgres can reach,
/// which `/root/.cache` usually is not.
pub fn cache_dir(account: Option<&Account>) -> Result<PathBuf> {
    let mut candidates = Vec::new();
    if let Some(base) = environment("XDG_CACHE_HOME") {
        candidates.push(PathBuf::from(base).join("chat-dev"));
    }
    if let Some(home) = environment("HOME") {
        candidates.push(PathBuf::from(home).join(".cache/chat-dev"));
    }
    if account.is_some() {
        candidates.push(PathBuf::from("/var/cache/chat-dev"));
    }
    candidates.push(state_dir()?.join("cache"));
    for candidate in &candidates {
        // Asked before it is made, so that no empty directory stays behind,
        // and after, since the caller's umask may have closed it.
        let is_reachable = || account.is_none_or(|account| account.can_reach(candidate));
        if is_reachable() && std::fs::create_dir_all(candidate).is_ok() && is_reachable() {
            return Ok(candidate.clone());
        }
    }
    bail!("no directory for downloads can be written; tried {candidates:?}")
}

/// A new directory under the system's temporary directory, removed when dropped.
pub fn scratch(purpose: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("chat-{purpose}-"))
        .permissions(std::fs::Permissions::from_mode(SCRATCH_MODE))
        .tempdir()
        .context("cannot make a temporary directory")
}

/// Whether a program of this name is on PATH, and where.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = environment("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| {
        candidate.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}
