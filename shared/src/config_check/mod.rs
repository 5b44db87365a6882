//! `--check-config`: reads what a service would read, tries what it would connect to, and says what is wrong.
//!
//! **Invariant:** it changes nothing, and shows no secret and no whole id.

mod keys;
mod rights;
mod servers;

pub use keys::{content_keys, master_key};
pub use rights::rights;
pub use servers::{log_and_database, nats, postgres, redis};

use std::{fmt::Display, process::ExitCode};

use crate::{
    command_line::say,
    settings::TelemetrySettings,
    telemetry::{self, scrub},
};

/// The lines so far. Each is printed as soon as it is known.
#[derive(Debug, Default)]
pub struct Report {
    wrong: usize,
}

impl Report {
    /// It is as it should be.
    pub fn ok(&self, line: impl Display) {
        print("ok", line);
    }

    /// It works, but may not be what is meant.
    pub fn note(&self, line: impl Display) {
        print("note", line);
    }

    /// It has to be changed.
    pub fn wrong(&mut self, line: impl Display) {
        self.wrong += 1;
        print("wrong", line);
    }

    /// Says whether a part of the settings can be understood; what it is then.
    pub fn part<T>(&mut self, what: &str, outcome: Result<T, impl Display>) -> Option<T> {
        match outcome {
            Ok(part) => {
                self.ok(what);
                Some(part)
            }
            Err(error) => {
                // With its causes, if it has any to show.
                self.wrong(format_args!("{what}: {error:#}"));
                None
            }
        }
    }

    /// Looks at the settings of logs and metrics.
    pub fn telemetry(&mut self, settings: &TelemetrySettings) {
        self.part("log filter", telemetry::filter(settings));
        match settings.mask_key() {
            Ok(Some(_)) => self.ok("mask key"),
            Ok(None) => self.note("mask key: none, so masked ids in the logs of different services can't be compared"),
            Err(error) => self.wrong(format_args!("mask key: {error}")),
        }
    }

    /// How the check ends.
    pub fn conclude(self) -> ExitCode {
        if self.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What comes from outside may hold ids, and line breaks.
fn print(verdict: &str, line: impl Display) {
    let line = line.to_string().replace(['\n', '\r'], " ");
    let line = scrub(format!("{verdict:<8}{line}").as_bytes());
    say(String::from_utf8_lossy(&line));
}
