//! The notifier's settings.

use std::time::Duration;

use chat_shared::settings::{NamespaceSettings, NatsSettings, RedisSettings, TelemetrySettings};
use clap::Parser;

/// Delivers the log's events to inboxes and live gateways. Run two or more: each takes a part of the work, and the
/// others take over when one goes.
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
    /// Logs and metrics.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    /// How long a stop may take. What is not delivered by then is delivered by another instance, after a pause of
    /// some seconds.
    #[arg(long, env = "CHAT_DRAIN_MAX_MS", default_value = "10000", value_parser = milliseconds)]
    pub drain_max: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}
