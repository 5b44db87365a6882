//! The notifier's settings.

use std::time::Duration;

use chat_shared::settings::{
    MasterKeySettings, NamespaceSettings, NatsSettings, PostgresSettings, RedisSettings, TelemetrySettings,
};
use clap::{Parser, ValueEnum};

use crate::providers::ProviderSettings;

/// Delivers the log's events to inboxes and live gateways, and notifies those who are away. Run two or more: each takes a
/// part of the work, and the others take over when one goes.
#[derive(Debug, Clone, Parser)]
#[command(name = "chat-notifier", version)]
pub struct Settings {
    /// Which installation this is part of.
    #[command(flatten)]
    pub namespace: NamespaceSettings,
    /// Where the log is.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// Where the inboxes are.
    #[command(flatten)]
    pub redis: RedisSettings,
    /// Where participants and devices are. Only notifications need it: live delivery goes on without.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// Opens the addresses of devices.
    #[command(flatten)]
    pub master_key: MasterKeySettings,
    /// Who brings notifications.
    #[command(flatten)]
    pub providers: ProviderSettings,
    /// What notifications show of a message. What they show passes through the providers: Google, Apple and the makers of
    /// browsers, or your own sender.
    #[arg(long, env = "CHAT_NOTIFICATION_CONTENT", value_enum, default_value_t = NotificationContent::Off)]
    pub notification_content: NotificationContent,
    /// Logs and metrics.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    /// How long a stop may take. What is not delivered by then is delivered by another instance, after a pause of
    /// some seconds.
    #[arg(long, env = "CHAT_DRAIN_MAX_MS", default_value = "10000", value_parser = milliseconds)]
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
