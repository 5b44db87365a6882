//! What the program is told: commands, options and environment variables.

use chat_shared::settings::{CheckSettings, NamespaceSettings, NatsSettings, PostgresSettings, TelemetrySettings};
use clap::{Args, Parser, Subcommand};

/// Copies the log into PostgreSQL, in batches. Any number of persisters share the work.
///
/// Every setting is an option and an environment variable. Without a command it runs as a service.
#[derive(Debug, Parser)]
#[command(name = "chat-persister", version, max_term_width = 100, disable_help_subcommand = true)]
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
    /// Try to store the dead letters again. Those that now can be stored leave the table; the others stay.
    Replay(ReplaySettings),
    /// Accept that the log was lost or exchanged, so that the services start again with the one there is.
    ///
    /// Messages that had been accepted but not stored stay lost, and their numbers are given to new messages: clients that
    /// saw the lost ones must reload. Stop all gateways and persisters first, and restore the stream instead if you can.
    ForgetLog(ForgetLogSettings),
    /// Accept that entries are lost that neither PostgreSQL, restored from a backup, nor the log has any more.
    ///
    /// Until then they are named in a log line, counted by `chat_persister_gap_lost_events`, and an alert.
    AcceptLoss(ForgetLogSettings),
}

/// Settings of the service.
#[derive(Debug, Args)]
pub struct RunSettings {
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    #[command(flatten)]
    pub nats: NatsSettings,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

/// Settings of `replay`.
#[derive(Debug, Args)]
pub struct ReplaySettings {
    #[command(flatten)]
    pub postgres: PostgresSettings,
}

/// Settings of `forget-log` and `accept-loss`.
#[derive(Debug, Args)]
pub struct ForgetLogSettings {
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// Really do it. Without it the command only tells what it would do.
    #[arg(long)]
    pub yes: bool,
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
        let parsed = Arguments::try_parse_from(["chat-persister", "--namespace", "x"]).unwrap();
        assert!(parsed.command.is_none() && parsed.run.namespace.namespace == "x" && !parsed.check.check_config);
    }

    #[test]
    fn repairs_have_settings_of_their_own() {
        let command = |arguments: &[&str]| {
            Arguments::try_parse_from(["chat-persister"].iter().chain(arguments)).unwrap().command.unwrap()
        };
        assert!(matches!(command(&["replay", "--postgres-url", "x"]), Command::Replay(_)));
        let forget = command(&["forget-log", "--postgres-url", "x"]);
        assert!(matches!(forget, Command::ForgetLog(settings) if !settings.yes));
    }
}
