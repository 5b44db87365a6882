//! The notifier: the only process that delivers. It puts the log's events in inboxes, sends them to live gateways, and
//! notifies users who are away.

mod app;
mod beacon;
mod config;
mod deliverer;
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

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    chat_shared::command_line::conclude(app::run(config::Settings::parse()).await)
}
