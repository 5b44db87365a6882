//! Node and the packages of the Socket.IO peer, fetched by npm as the lock file says, into `.dev`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{paths, terminal};

/// What the packages need.
const NODE_MAJOR_MIN: u32 = 20;
const HOW_TO_GET_NODE: &str =
    "Node 20 or later with npm is needed for this peer: see https://nodejs.org/en/download, and have both on PATH";
/// What is copied beside the packages, since Node looks for them from where the program is.
const FILES: [&str; 4] = ["package.json", "package-lock.json", "server.js", "store.js"];
/// A copy of the lock file that was installed; written last.
const INSTALLED: &str = "installed.json";
/// Packages whose versions stand beside the figures.
const NAMED: [&str; 4] = ["socket.io", "@socket.io/redis-adapter", "ioredis", "pg"];

/// Where everything is.
#[derive(Debug)]
pub struct Packages {
    node: PathBuf,
    node_version: String,
    source: PathBuf,
    directory: PathBuf,
}

impl Packages {
    /// Uses what was fetched last time if it is what the lock file says.
    ///
    /// # Errors
    /// If Node is missing or too old, or npm fails.
    pub fn find_or_fetch() -> Result<Self> {
        let node = paths::on_path("node").context(HOW_TO_GET_NODE)?;
        let node_version = version_of(&node)?;
        let directory = paths::state_dir()?.join("peers/socket-io");
        let source = paths::workspace_root()?.join("load/peers/socket-io");
        let packages = Self { node, node_version, source, directory };
        packages.copy()?;
        if !packages.are_installed()? {
            packages.install()?;
        }
        Ok(packages)
    }

    /// The program of Node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// What it runs.
    pub fn program(&self) -> PathBuf {
        self.directory.join("server.js")
    }

    /// What the database is made from.
    pub fn schema(&self) -> PathBuf {
        self.source.join("schema.sql")
    }

    /// Of Node and of the packages that matter.
    pub fn versions(&self) -> Result<BTreeMap<String, String>> {
        let lock: Value = serde_json::from_slice(&std::fs::read(self.directory.join(INSTALLED))?)?;
        let package = |name: &&str| {
            let version = lock["packages"][format!("node_modules/{name}")]["version"].as_str();
            Some(((*name).to_owned(), version?.to_owned()))
        };
        let node = ("node".to_owned(), self.node_version.clone());
        Ok(NAMED.iter().filter_map(package).chain([node]).collect())
    }

    fn copy(&self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        for file in FILES {
            let from = self.source.join(file);
            std::fs::copy(&from, self.directory.join(file))
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    fn are_installed(&self) -> Result<bool> {
        let wanted = std::fs::read(self.directory.join("package-lock.json"))?;
        Ok(std::fs::read(self.directory.join(INSTALLED)).is_ok_and(|installed| installed == wanted))
    }

    /// No package's scripts are run: the one that has some comes compiled too.
    fn install(&self) -> Result<()> {
        terminal::progress("fetching the packages of the Socket.IO peer with npm");
        let npm = paths::on_path("npm").context(HOW_TO_GET_NODE)?;
        let output = Command::new(npm)
            .args(["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&self.directory)
            .output()
            .context("cannot run npm")?;
        if !output.status.success() {
            bail!("npm could not fetch the packages: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        std::fs::copy(self.directory.join("package-lock.json"), self.directory.join(INSTALLED))?;
        Ok(())
    }
}

/// As in `v20.20.2`, without the letter.
fn version_of(node: &Path) -> Result<String> {
    let output = Command::new(node).arg("--version").output().context(HOW_TO_GET_NODE)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().trim_start_matches('v');
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    ensure!(major.is_some_and(|major| major >= NODE_MAJOR_MIN), "Node {version} is too old. {HOW_TO_GET_NODE}");
    Ok(version.to_owned())
}
