//! What the program is told: commands, options and environment variables.

use anyhow::bail;
use chat_cold::store::StoreSettings;
use chat_shared::settings::{CheckSettings, MasterKeySettings, PostgresSettings, TelemetrySettings};
use clap::{Args, Parser, Subcommand};
use time::{Date, format_description::well_known::Iso8601};

/// Settings that a process without a master key must not have.
const MASTER_KEYS: [&str; 4] =
    ["CHAT_MASTER_KEY", "CHAT_MASTER_KEY_FILE", "CHAT_MASTER_KEY_OLD", "CHAT_MASTER_KEY_OLD_FILE"];

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
    /// Run as the cold worker: move the texts of old messages to the object store, day after day. Any number of instances may
    /// run. Refuses to start with a master key, which it must not have.
    Cold(Box<ColdSettings>),
    /// Compare every pack of a day in the object store with what is recorded of it, then exit: with 1 if one is missing or
    /// differs. Changes nothing.
    Verify(DaySettings),
    /// Put the texts of a day back into PostgreSQL, then exit. Harmless when repeated; the day is not moved again.
    Warm(DaySettings),
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

/// Settings of `cold`.
#[derive(Debug, Args)]
pub struct ColdSettings {
    #[command(flatten)]
    pub check: CheckSettings,
    /// Days from the end of a day until its texts move: 9 to 90.
    ///
    /// Repeats of messages are compared by their text for eight days, so that nothing younger moves. A smaller number spares
    /// PostgreSQL more; pages of history beyond it are read from the object store.
    #[arg(long, env = "CHAT_COLD_AFTER_DAYS", default_value_t = 14, value_name = "DAYS")]
    #[arg(value_parser = clap::value_parser!(i32).range(9..=90), help_heading = "Object store")]
    pub cold_after_days: i32,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of `verify` and `warm`.
#[derive(Debug, Args)]
pub struct DaySettings {
    /// The day, in UTC, such as 2026-05-01.
    ///
    /// `cold_packs` lists the days that have packs.
    #[arg(long, value_parser = read_day, value_name = "YYYY-MM-DD", help_heading = "Object store")]
    pub day: Date,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub store: StoreSettings,
}

fn read_day(text: &str) -> Result<Date, String> {
    Date::parse(text, &Iso8601::DATE).map_err(|_| "a day is written like 2026-05-01".to_owned())
}

/// Refuses a process that could open what it moves.
pub fn refuse_master_key() -> anyhow::Result<()> {
    if let Some(variable) = MASTER_KEYS.into_iter().find(|variable| std::env::var_os(variable).is_some()) {
        bail!("{variable} is set: the cold worker moves texts that it must not be able to open; start it without");
    }
    Ok(())
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
