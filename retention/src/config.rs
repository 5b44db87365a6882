//! What the program is told: commands, options and environment variables.

use chat_shared::{
    command_line::or_run,
    settings::{MasterKeySettings, PostgresSettings, TelemetrySettings},
};
use clap::{Args, Parser};

/// Makes what each day needs, partitions and content keys, ahead of time. Without a command it runs as a service.
#[derive(Debug, Parser)]
#[command(name = "chat-retention", version, disable_help_subcommand = true)]
pub enum Command {
    /// Run as a service: make partitions (14 days ahead) and content keys (7 days ahead), now and every hour, and look
    /// every minute whether lists show what is unread. Any number of instances may run.
    Run(RunSettings),
    /// Bring the schema of the database up to date, then exit. Harmless when repeated or run twice at once.
    Migrate(MigrateSettings),
    /// Make the partitions and content keys that are missing now, then exit.
    Prepare(PrepareSettings),
}

/// Settings of the service.
#[derive(Debug, Args)]
pub struct RunSettings {
    /// What it prepares, and where.
    #[command(flatten)]
    pub prepare: PrepareSettings,
    /// What it says about itself.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateSettings {
    /// The database to migrate; its user must be allowed to make tables.
    #[command(flatten)]
    pub postgres: PostgresSettings,
}

/// Settings of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareSettings {
    /// The database; its user must own `messages`, because partitions are made in its name.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// What wraps the content keys; the same file as the gateways'.
    #[command(flatten)]
    pub master_key: MasterKeySettings,
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
        let arguments = ["chat-retention"].iter().chain(arguments).map(OsString::from).collect();
        Command::try_parse_from(or_run(arguments))
    }

    #[test]
    fn the_settings_are_well_formed() {
        Command::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_runs() {
        let settings = ["--postgres-url", "postgres://localhost/chat", "--master-key-file", "key"];
        assert!(matches!(parsed(&settings), Ok(Command::Run(_))));
    }

    #[test]
    fn migrating_needs_no_master_key() {
        assert!(matches!(parsed(&["migrate", "--postgres-url", "x"]), Ok(Command::Migrate(_))));
    }

    #[test]
    fn help_is_about_all_commands() {
        let help = parsed(&["--help"]).unwrap_err().to_string();
        assert!(["run", "migrate", "prepare"].iter().all(|command| help.contains(command)), "{help}");
    }
}
