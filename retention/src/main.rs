//! The retention service: migrates the schema, makes partitions and content keys ahead of time, and audits what is unread.

mod app;
mod config;
mod keys;
mod metrics;
mod migrate;
mod partitions;
mod prepare;
mod unread_audit;
mod worker;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use chat_shared::command_line::conclude;

use config::Command;

#[tokio::main]
async fn main() -> ExitCode {
    conclude(match Command::from_arguments() {
        Command::Run(settings) => app::run(settings).await,
        Command::Migrate(settings) => app::migrate(&settings).await,
        Command::Prepare(settings) => app::prepare(&settings).await,
    })
}
