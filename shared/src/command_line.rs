//! What the services' command lines have in common: how settings are read, and how programs end.

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::telemetry::{flush, scrub};

/// What the process was started with; or how it ends if it only has to show its help, or can't be started so.
pub fn read<T: Parser>() -> Result<T, ExitCode> {
    parse(std::env::args_os()).map_err(|refused| match refused {
        Refused::Shown(help) => {
            // Whoever closed the terminal doesn't want to read it.
            let _closed = help.print();
            ExitCode::SUCCESS
        }
        Refused::Wrong(line) => {
            complain(&line);
            ExitCode::from(USAGE)
        }
    })
}

/// How a program ends that was called wrongly.
const USAGE: u8 = 2;

enum Refused {
    Shown(Box<clap::Error>),
    Wrong(String),
}

fn parse<T: Parser>(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<T, Refused> {
    T::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refused::Shown(Box::new(error)),
        _ => Refused::Wrong(in_one_line(&error, &T::command())),
    })
}

/// What is wrong, with the variable that it may come from. What --help hides is hidden here too.
fn in_one_line(error: &clap::Error, command: &clap::Command) -> String {
    let text = error.to_string();
    let mut what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if let Some(setting) = setting_of(error, command) {
        if setting.is_hide_env_values_set()
            && let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        {
            what = what.replace(value, "…");
        }
        if let Some(variable) = setting.get_env() {
            what = format!("{}: {what}", variable.to_string_lossy());
        }
    }
    format!("{what}; --help shows all settings")
}

/// The setting that an error is about, if it is about one.
fn setting_of<'a>(error: &clap::Error, command: &'a clap::Command) -> Option<&'a clap::Arg> {
    let ContextValue::String(option) = error.get(ContextKind::InvalidArg)? else { return None };
    let long = option.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
    std::iter::once(command)
        .chain(command.get_subcommands())
        .flat_map(clap::Command::get_arguments)
        .find(|argument| argument.get_long() == Some(long))
}

/// Prints one line on standard output, for the person who runs a one-off command. The services themselves write logs.
pub fn say(line: impl std::fmt::Display) {
    // Whoever closed the terminal doesn't want to read it.
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

/// How a program ends: with its error, if there is one, on one line of standard error, where no whole UUID goes either.
/// The last lines of the log are written first.
pub fn conclude(outcome: anyhow::Result<()>) -> ExitCode {
    flush();
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    complain(&in_words(&error));
    ExitCode::FAILURE
}

/// The error and its causes, each once: many errors have their cause in their own text.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        said => format!("{said}: {cause}"),
    })
}

fn complain(what: &str) {
    let line = format!("error: {}\n", what.replace(['\n', '\r'], " "));
    // If nobody listens the exit code says it.
    let _closed = std::io::stderr().lock().write_all(&scrub(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// A service.
    #[derive(Debug, Parser)]
    #[command(name = "service")]
    struct Settings {
        /// Where.
        #[arg(long, env = "CHAT_TEST_LISTEN", default_value = "127.0.0.1:1")]
        listen: SocketAddr,
        /// How many, but that is a secret.
        #[arg(long, env = "CHAT_TEST_SECRET", hide_env_values = true, default_value = "1")]
        secret: u8,
    }

    fn refusal(arguments: &[&str]) -> String {
        match parse::<Settings>(arguments) {
            Err(Refused::Wrong(line)) => line,
            Err(Refused::Shown(text)) => panic!("it shows {text}"),
            Ok(settings) => panic!("it takes {settings:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_its_variable() {
        for (arguments, words) in [
            (["service", "--listen=nowhere"], ["CHAT_TEST_LISTEN: ", "nowhere", "--help"]),
            (["service", "--listne=127.0.0.1:1"], ["--listne", "unexpected argument", "--help"]),
        ] {
            let line = refusal(&arguments);
            assert!(!line.contains('\n') && words.iter().all(|word| line.contains(word)), "{line}");
        }
    }

    #[test]
    fn what_help_hides_is_hidden_when_it_is_wrong() {
        let line = refusal(&["service", "--secret=hush-hush"]);
        assert!(line.starts_with("CHAT_TEST_SECRET: ") && !line.contains("hush-hush"), "{line}");
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("it is gone").context("reading the file: it is gone").context("starting");
        assert_eq!(in_words(&error), "starting: reading the file: it is gone");
    }

    #[test]
    fn help_is_no_mistake() {
        for argument in ["-h", "--help"] {
            assert!(matches!(parse::<Settings>(["service", argument]), Err(Refused::Shown(_))));
        }
    }
}
