//! The compiled service programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Role;
use crate::{
    cargo::{self, Executable},
    terminal,
};

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

    /// Those among the executables of a build.
    ///
    /// # Errors
    /// If a service is not among them.
    pub fn among(executables: &[Executable]) -> Result<Self> {
        let programs = executables.iter().filter(|executable| !executable.is_test);
        let programs = Self(programs.map(|program| (program.target.clone(), program.file.clone())).collect());
        for role in Role::ALL {
            programs.of_package(role.package())?;
        }
        Ok(programs)
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

fn build(profile: Profile, others: &[&str]) -> Result<Programs> {
    terminal::progress("building the services");
    let artifacts = match profile {
        Profile::Dev => cargo::build(cargo::ALL_PROGRAMS)?,
        // Without this tool, which nobody needs as a release.
        Profile::Release => {
            let packages = Role::ALL.iter().map(|role| role.package()).chain(others.iter().copied());
            let selection = packages.flat_map(|package| ["--package", package]);
            cargo::build(["build", "--bins", "--release"].into_iter().chain(selection))?
        }
    };
    let programs = Programs::among(&artifacts.executables)?;
    for package in others {
        ensure!(programs.0.contains_key(*package), "cargo built no {package}");
    }
    Ok(programs)
}
