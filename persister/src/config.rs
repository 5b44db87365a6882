//! What the program is told: commands, options and environment variables.

use chat_shared::{
    command_line::or_run,
    settings::{NamespaceSettings, NatsSettings, PostgresSettings, TelemetrySettings},
};
use clap::{Args, Parser};

/// Copies the log into PostgreSQL. Without a command it runs as a service.
#[derive(Debug, Parser)]
#[command(name = "chat-persister", version, disable_help_subcommand = true)]
pub enum Command {
    /// Run as a service. Any number of instances may run; they share the work.
    Run(RunSettings),
    /// Try to store the dead letters again. Those that now can be stored leave the table; the others stay.
    Replay(ReplaySettings),
    /// Accept that the log was lost or exchanged, so that the services start again with the one there is.
    ///
    /// Messages that had been accepted but not stored stay lost, and their numbers are given to new messages: clients that
    /// saw the lost ones must reload. Stop all gateways and persisters first, and restore the stream instead if you can.
    ForgetLog(ForgetLogSettings),
}

/// Settings of the service.
#[derive(Debug, Args)]
pub struct RunSettings {
    /// Whose log it reads.
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    /// Where the log is.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// Where it stores to.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// What it says about itself.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of `replay`.
#[derive(Debug, Args)]
pub struct ReplaySettings {
    /// Where the dead letters are.
    #[command(flatten)]
    pub postgres: PostgresSettings,
}

/// Settings of `forget-log`.
#[derive(Debug, Args)]
pub struct ForgetLogSettings {
    /// Whose log is forgotten.
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    /// Where the checkpoint is.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// Really do it. Without it the command only tells what it would do.
    #[arg(long)]
    pub yes: bool,
}

impl Command {
    /// The command that the process was started with. Ends the process if it can't be understood.
    pub fn from_arguments() -> Self {
        Self::parse_from(or_run(std::env::args_os().collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, clap::Error> {
        let arguments = ["chat-persister"].iter().chain(arguments).map(OsString::from).collect();
        Command::try_parse_from(or_run(arguments))
    }

    #[test]
    fn the_settings_are_well_formed() {
        Command::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_runs() {
        let settings = ["--postgres-url", "postgres://localhost/chat", "--nats-url", "nats://localhost"];
        assert!(matches!(parsed(&settings), Ok(Command::Run(_))));
    }

    #[test]
    fn repairs_need_only_the_database() {
        assert!(matches!(parsed(&["replay", "--postgres-url", "x"]), Ok(Command::Replay(_))));
        let forget = parsed(&["forget-log", "--postgres-url", "x"]);
        assert!(matches!(forget, Ok(Command::ForgetLog(settings)) if !settings.yes));
    }
}
