//! The compiled service programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Role;
use crate::{paths, terminal};

/// How the services are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// For measuring.
    Release,
}

/// Where each service's program is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds all of them with cargo, whose own progress goes to standard error.
    pub async fn build(profile: Profile) -> Result<Self> {
        Self::build_with(profile, &[]).await
    }

    /// The same, and programs of other packages, which are called like them.
    pub async fn build_with(profile: Profile, others: &'static [&str]) -> Result<Self> {
        tokio::task::spawn_blocking(move || build(profile, others)).await?
    }

    /// The program of a package.
    pub fn of_package(&self, package: &str) -> Result<&Path> {
        self.0.get(package).map(PathBuf::as_path).with_context(|| format!("{package} was not built"))
    }

    /// The program of a role.
    ///
    /// # Panics
    /// Never: all are there from the start.
    pub fn of(&self, role: Role) -> &Path {
        self.0.get(role.package()).expect("built or refused together")
    }
}

/// One line of `cargo build --message-format=json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct BuildMessage {
    executable: Option<PathBuf>,
    target: Option<BuildTarget>,
}

#[derive(Debug, Deserialize)]
struct BuildTarget {
    name: String,
}

fn build(profile: Profile, others: &[&str]) -> Result<Programs> {
    terminal::progress("building the services");
    let packages = Role::ALL.iter().map(|role| role.package()).chain(others.iter().copied());
    let mut command = cargo()?;
    command.args(["build", "--bins", "--message-format=json-render-diagnostics"]);
    for package in packages.clone() {
        command.args(["--package", package]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the services do not build");
    let programs: BTreeMap<String, PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<BuildMessage>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect();
    for package in packages {
        ensure!(programs.contains_key(package), "cargo built no {package}");
    }
    Ok(Programs(programs))
}

/// Cargo in this checkout, with the SQL checked against `.sqlx/`.
///
/// Variables that the outer `cargo run` set for us are taken away: build
/// scripts that look at them would run again each time.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(paths::environment("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let is_of_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "LD_LIBRARY_PATH")
        });
        if is_of_package {
            command.env_remove(name);
        }
    }
    command.current_dir(paths::workspace_root()?).env("SQLX_OFFLINE", "true");
    Ok(command)
}
