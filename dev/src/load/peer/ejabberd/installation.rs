//! Where the distribution's package put ejabberd.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::paths;

const HOW_TO_GET_IT: &str = "ejabberd with its PostgreSQL driver is needed for this peer; on Debian: \
    sudo apt-get install ejabberd erlang-p1-pgsql. The package starts a service of its own, which is not needed: \
    sudo systemctl disable --now ejabberd";
/// Where libraries of the system are, but for one level named for the machine.
const LIBRARIES: &str = "/usr/lib";
/// Comes with the package, so it fits its version.
const SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";
/// Erlang's own answer to what it is.
const ASK_VERSION: &str = "io:put_chars(erlang:system_info(otp_release)), halt().";
/// Erlang's own answer to whether the driver is there.
const ASK_DRIVER: &str = "io:put_chars(atom_to_list(code:which(pgsql) =/= non_existing)), halt().";

/// Its parts.
#[derive(Debug)]
pub struct Installation {
    /// The program that runs it.
    pub erl: PathBuf,
    /// The directory that has ejabberd's code in a directory of its own.
    pub libraries: PathBuf,
    /// What its database is made from.
    pub schema: PathBuf,
    version: String,
    erlang: String,
}

impl Installation {
    /// Looks for it.
    ///
    /// # Errors
    /// If something is missing, with how to get it.
    pub fn find() -> Result<Self> {
        let erl = paths::on_path("erl").context(HOW_TO_GET_IT)?;
        let (libraries, application) = application().context(HOW_TO_GET_IT)?;
        let schema = PathBuf::from(SCHEMA);
        ensure!(schema.is_file(), "{SCHEMA} is missing. {HOW_TO_GET_IT}");
        ensure!(ask(&erl, ASK_DRIVER)? == "true", "the PostgreSQL driver of Erlang is missing. {HOW_TO_GET_IT}");
        let text = std::fs::read_to_string(&application)?;
        let version = version(&text).with_context(|| format!("{} names no version", application.display()))?;
        Ok(Self { libraries, schema, version: version.to_owned(), erlang: ask(&erl, ASK_VERSION)?, erl })
    }

    /// Of it and of what runs it.
    pub fn versions(&self) -> BTreeMap<String, String> {
        [("ejabberd", &self.version), ("erlang", &self.erlang)]
            .map(|(name, version)| (name.into(), version.clone()))
            .into()
    }
}

/// The directory of libraries with ejabberd among them, and its description.
fn application() -> Option<(PathBuf, PathBuf)> {
    let directories = children(Path::new(LIBRARIES)).into_iter().chain([PathBuf::from(LIBRARIES)]);
    directories.into_iter().find_map(|libraries| {
        let mut found = children(&libraries)
            .into_iter()
            .filter(|child| child.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ejabberd-")));
        let application = found.find_map(|home| Some(home.join("ebin/ejabberd.app")).filter(|file| file.is_file()))?;
        Some((libraries, application))
    })
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn ask(erl: &Path, question: &str) -> Result<String> {
    let output = Command::new(erl).args(["-noinput", "-eval", question]).output().context("cannot run erl")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// As in `{vsn,"23.01-1"}`.
fn version(application: &str) -> Option<&str> {
    let (_, rest) = application.split_once("{vsn,")?;
    rest.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_application() {
        let text = "{application,ejabberd,\n   [{description,\"ejabberd\"},\n    {vsn,\"23.01-1\"},\n    {env,[]}]}.";
        assert_eq!(version(text), Some("23.01-1"));
        assert_eq!(version("{application,ejabberd,[]}."), None);
    }
}
