//! The chat gateway. `config` says what can be set, `app` how the parts hang together.

mod app;
mod auth;
mod config;
mod connection;
mod content;
mod conversations;
mod database;
mod deadlines;
mod delivery;
mod devices;
mod edge;
mod history;
mod internal;
mod outbox;
mod presence;
mod profiles;
mod rate;
mod receipts;
mod refusal;
mod rest;
mod send;
mod state;
mod telemetry;
#[cfg(test)]
mod tests;
mod typing;

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    chat_shared::command_line::conclude(Box::pin(app::run(config::Config::parse())).await)
}
