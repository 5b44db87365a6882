//! The retention service: migrates the schema, makes partitions and content keys ahead of time, ages old days out, moves
//! the bodies of old messages to an object store, and audits what is unread.

mod ageing;
mod app;
mod cold;
mod config;
mod erasure;
mod grants;
mod keys;
mod metrics;
mod migrate;
mod pace;
mod partitions;
mod prepare;
mod rewrap;
mod unread_audit;
mod worker;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use chat_shared::command_line::{self, conclude};

use config::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match command_line::read() {
        Ok(arguments) => arguments,
        Err(ended) => return ended,
    };
    conclude(match arguments.command {
        None if arguments.check.check_config => return app::check(&arguments.run).await,
        None => app::run(arguments.run).await,
        Some(Command::Migrate(settings)) => app::migrate(&settings).await,
        Some(Command::Prepare(settings)) => app::prepare(&settings).await,
        Some(Command::Rewrap(settings)) => app::rewrap(&settings).await,
        Some(Command::Cold(settings)) if settings.check.check_config => return app::check_cold(&settings).await,
        Some(Command::Cold(settings)) => app::cold(*settings).await,
        Some(Command::Verify(settings)) => app::verify(&settings).await,
        Some(Command::Warm(settings)) => app::warm(&settings).await,
    })
}
