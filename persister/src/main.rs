//! The persister: copies the log into PostgreSQL, in batches. The only writer of `messages`.

mod app;
mod batch;
mod config;
mod failure;
mod forget_log;
mod keep;
mod metrics;
mod open;
mod replay;
mod store;
mod watch;
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
        Command::Replay(settings) => app::replay(&settings).await,
        Command::ForgetLog(settings) => app::forget_log(&settings).await,
    })
}
