//! What the services' command lines have in common: the default command, and how they end.

use std::{ffi::OsString, io::Write, process::ExitCode};

use crate::telemetry::scrub;

/// Puts `run` in where no command is given, so that a service started with its settings alone does its work.
pub fn or_run(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let is_command =
        first.is_some_and(|first| !first.starts_with('-') || matches!(first, "-h" | "--help" | "-V" | "--version"));
    if !is_command {
        arguments.insert(1.min(arguments.len()), "run".into());
    }
    arguments
}

/// Prints one line on standard output, for the person who runs a one-off command. The services themselves write logs.
pub fn say(line: impl std::fmt::Display) {
    // Whoever closed the terminal doesn't want to read it.
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

/// How a program ends: with its error, if there is one, on one line of standard error, where no whole UUID goes either.
pub fn conclude(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let line = format!("error: {error:#}\n");
    // If nobody listens the exit code says it.
    let _closed = std::io::stderr().lock().write_all(&scrub(line.as_bytes()));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_command_it_runs() {
        let with_default = |arguments: &[&str]| or_run(arguments.iter().map(OsString::from).collect());
        assert_eq!(with_default(&["service"]), ["service", "run"]);
        assert_eq!(with_default(&["service", "--listen", "x"]), ["service", "run", "--listen", "x"]);
        for given in [["service", "migrate"], ["service", "--help"]] {
            assert_eq!(with_default(&given), given);
        }
    }
}
