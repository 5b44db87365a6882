//! The notifier: the only process that delivers. It puts the log's events in inboxes, sends them to live gateways, and
//! notifies users who are away.

mod app;
mod beacon;
mod config;
mod deliverer;
mod mender;
mod news;
mod notifications;
mod occasionally;
mod plan;
mod providers;
mod publisher;
mod reachable;
mod reaper;
mod telemetry;
mod worker;

use std::process::ExitCode;

use chat_shared::command_line::{self, conclude};

#[tokio::main]
async fn main() -> ExitCode {
    let settings: config::Settings = match command_line::read() {
        Ok(settings) => settings,
        Err(ended) => return ended,
    };
    if settings.check.check_config {
        return app::check(&settings).await;
    }
    conclude(app::run(settings).await)
}
