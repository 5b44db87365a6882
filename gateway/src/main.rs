//! The chat gateway. `config` says what can be set, `app` how the parts hang together.

mod app;
mod auth;
mod business;
mod check;
mod config;
mod connection;
mod content;
mod conversations;
mod database;
mod deadlines;
mod delivery;
mod devices;
mod distinct;
mod edge;
mod export;
mod history;
mod internal;
mod kaha;
mod outbox;
mod presence;
mod profiles;
mod quota;
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

use std::process::ExitCode;

use chat_shared::command_line::{self, conclude};

#[tokio::main]
async fn main() -> ExitCode {
    let config: config::Config = match command_line::read() {
        Ok(config) => config,
        Err(ended) => return ended,
    };
    if config.check.check_config {
        return Box::pin(check::run(&config)).await;
    }
    conclude(Box::pin(app::run(config)).await)
}
