//! The notifier's settings.

use std::time::Duration;

use chat_shared::settings::{
    CheckSettings, MasterKeySettings, NamespaceSettings, NatsSettings, PostgresSettings, RedisSettings,
    TelemetrySettings,
};
use clap::{Parser, ValueEnum};

use crate::providers::ProviderSettings;

/// Delivers the log's events to inboxes and live gateways, and notifies those who are away.
///
/// Run two or more: each takes a part of the work, and the others take over when one goes. Every setting is an option and an
/// environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "chat-notifier", version, max_term_width = 100)]
pub struct Settings {
    #[command(flatten)]
    pub check: CheckSettings,
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    #[command(flatten)]
    pub nats: NatsSettings,
    #[command(flatten)]
    pub redis: RedisSettings,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub master_key: MasterKeySettings,
    #[command(flatten)]
    pub providers: ProviderSettings,
    /// What notifications show of a message.
    ///
    /// What they show passes through the providers: Google, Apple and the makers of browsers, or your own sender.
    #[arg(long, env = "CHAT_NOTIFICATION_CONTENT", value_enum, default_value_t = NotificationContent::Off)]
    #[arg(value_name = "FORMAT", help_heading = "Notifications")]
    pub notification_content: NotificationContent,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    /// Milliseconds that a stop may take.
    ///
    /// What is not delivered by then is delivered by another instance, after a pause of some seconds. Whoever stops the service
    /// has to wait a little longer before killing it.
    #[arg(long = "drain-max-ms", env = "CHAT_DRAIN_MAX_MS", default_value = "10000", value_parser = milliseconds)]
    #[arg(value_name = "MILLISECONDS", help_heading = "Stopping")]
    pub drain_max: Duration,
}

/// What notifications show of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NotificationContent {
    /// That there is one.
    Off,
    /// The beginning of its text.
    Text,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_setting_is_described_with_default_unit_and_consequence() {
        chat_dev::help_page::assert_complete(Settings::command());
    }
}
