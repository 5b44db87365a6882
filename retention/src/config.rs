//! What the program is told: commands, options and environment variables.

use chat_shared::settings::{CheckSettings, MasterKeySettings, PostgresSettings, TelemetrySettings};
use clap::{Args, Parser, Subcommand};

/// Makes what each day needs, partitions and content keys, ahead of time, and ages old days out. Any number of
/// instances may run.
///
/// Every setting is an option and an environment variable. Without a command it runs as a service: it makes partitions
/// and content keys 14 days ahead, now and every hour; every minute it soft-deletes the messages of days that ended 90
/// days ago, removes those of days that ended 97 days ago for good, and looks whether lists show what is unread.
#[derive(Debug, Parser)]
#[command(name = "chat-retention", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    pub check: CheckSettings,
    #[command(flatten)]
    pub run: RunSettings,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is done instead of running as a service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the schema of the database up to date, and what the services' roles may do in it, then exit. Harmless when
    /// repeated or run twice at once. The database's user must own the tables, or be allowed to make them.
    Migrate(MigrateSettings),
    /// Make the partitions and content keys that are missing now, then exit.
    Prepare(PrepareSettings),
    /// Exchange the master key: wrap all content keys and seal all addresses of devices with the current one, then exit.
    /// Needs the old one too, as every service does before it runs. Harmless when repeated; ends with 1 if a key or an
    /// address opens with neither. The database's user must own the tables.
    Rewrap(PrepareSettings),
}

/// Settings of the service.
#[derive(Debug, Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub prepare: PrepareSettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateSettings {
    #[command(flatten)]
    pub postgres: PostgresSettings,
}

/// Settings of `prepare` and `rewrap`.
#[derive(Debug, Args)]
pub struct PrepareSettings {
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub master_key: MasterKeySettings,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_setting_is_described_with_default_unit_and_consequence() {
        chat_dev::help_page::assert_complete(Arguments::command());
    }

    #[test]
    fn without_a_command_it_runs() {
        let parsed = Arguments::try_parse_from(["chat-retention", "--check-config"]).unwrap();
        assert!(parsed.command.is_none() && parsed.check.check_config);
    }

    #[test]
    fn migrating_needs_no_master_key() {
        let parsed = Arguments::try_parse_from(["chat-retention", "migrate", "--postgres-url", "x"]).unwrap();
        assert!(matches!(parsed.command, Some(Command::Migrate(_))));
        assert!(Arguments::try_parse_from(["chat-retention", "migrate", "--master-key", "x"]).is_err());
    }
}
