//! What a process says about itself: logs, metrics, and whether it is alive and ready.

mod health;
mod lines;
mod scrub;
mod server;

pub use health::{Health, Latch};
pub(crate) use lines::flush;
pub(crate) use scrub::scrub;

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::{
    lifecycle::Tasks,
    mask,
    settings::{LogFormat, TelemetrySettings},
};

/// Which log lines are written.
pub(crate) fn filter(settings: &TelemetrySettings) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(&settings.log).context("CHAT_LOG is written like `info,chat_gateway=debug`")?;
    // The pool returns the same errors to its callers, which log an outage once. As errors they would be faults of ours.
    Ok(filter.add_directive("sqlx_core::pool::inner=off".parse()?))
}

/// Starts logs and metrics, and serves /metrics, /livez and /readyz. Call it first, once.
pub async fn start(settings: &TelemetrySettings, tasks: &Tasks) -> anyhow::Result<Health> {
    if let Some(key) = settings.mask_key()? {
        mask::set_key(key.expose().as_bytes());
    }
    let filter = filter(settings)?;
    let (output, dropped) = lines::start(scrub::ScrubbedStdout);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(output);
    match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Pretty => lines.with_ansi(std::io::stdout().is_terminal()).with_target(false).try_init(),
    }
    .map_err(anyhow::Error::from_boxed)
    .context("starting the log")?;
    // The message of a panic may quote content, so the log has only its place.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!("panicked at {location}");
    }));
    let health = Health::default();
    server::start(settings.metrics_listen, health.clone(), dropped, tasks).await?;
    Ok(health)
}
