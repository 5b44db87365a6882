//! The library that shows a process another time than the machine's.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use jsonwebtoken::get_current_timestamp;

use super::{account::Account, wheels};
use crate::{fleet::ServiceEnv, paths};

/// Where Debian's package `libfaketime` puts it.
const INSTALLED: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// How far a process may be off when it is tried out.
const TRIAL_LEEWAY_S: u64 = 60;

/// A library that works on this machine.
#[derive(Debug, Clone)]
pub struct Faketime(PathBuf);

impl Faketime {
    /// Uses the installed one, else fetches the pinned version, and tries it.
    ///
    /// # Errors
    /// If there is none that works here; the message says what to install.
    pub async fn find_or_fetch() -> Result<Self> {
        tokio::task::spawn_blocking(|| {
            let installed = INSTALLED.iter().map(PathBuf::from).find(|library| library.is_file());
            let library = match installed {
                Some(library) => library,
                None => fetched().context(
                    "libfaketime is not installed and could not be fetched; on Debian: apt-get install libfaketime",
                )?,
            };
            let faketime = Self(library);
            faketime.try_out()?;
            Ok(faketime)
        })
        .await?
    }

    /// What shows a service a time that is `ahead_s` seconds ahead. Durations stay as they are.
    pub fn env(&self, service: &str, ahead_s: u64) -> [ServiceEnv; 3] {
        self.variables(ahead_s.cast_signed()).map(|(name, value)| ServiceEnv {
            service: service.to_owned(),
            name: name.to_owned(),
            value,
        })
    }

    /// The variables that show a process a time so many seconds ahead, or behind if negative.
    pub fn variables(&self, ahead_s: i64) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", self.0.display().to_string()),
            ("FAKETIME", format!("{ahead_s:+}")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn try_out(&self) -> Result<()> {
        let ahead_s = 3600_u64;
        let variables = self.variables(ahead_s.cast_signed());
        let output = Command::new("date").arg("+%s").envs(variables).output()?;
        let shown: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default();
        let off_s = shown.abs_diff(get_current_timestamp() + ahead_s);
        ensure!(off_s < TRIAL_LEEWAY_S, "{} does not work on this machine", self.0.display());
        Ok(())
    }
}

fn fetched() -> Result<PathBuf> {
    let account = Account::unprivileged()?;
    let cache = paths::cache_dir(account.as_ref())?;
    Ok(wheels::FAKETIME.programs(&cache)?.join("libfaketime.so.1"))
}
