//! The notifier: the only process that delivers. It puts the log's events in inboxes and sends them to live gateways.

mod app;
mod beacon;
mod config;
mod deliverer;
mod plan;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing is notified yet"))]
mod providers;
mod publisher;
mod reachable;
mod telemetry;
mod worker;

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    chat_shared::command_line::conclude(app::run(config::Settings::parse()).await)
}
