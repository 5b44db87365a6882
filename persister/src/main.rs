//! The persister: copies the log into PostgreSQL, in batches. The only writer of `messages`.

mod accept_loss;
mod app;
mod batch;
mod checkpoint;
mod config;
mod evidence;
mod failure;
mod forget_log;
mod gaps;
mod keep;
mod metrics;
mod open;
mod rebuild;
mod reclaim;
mod repair;
mod replay;
mod source;
mod store;
mod watch;
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
        Some(Command::Replay(settings)) => app::replay(&settings).await,
        Some(Command::ForgetLog(settings)) => app::forget_log(&settings).await,
        Some(Command::AcceptLoss(settings)) => app::accept_loss(&settings).await,
    })
}
