//! `cargo dev`: everything a developer starts.

use std::process::ExitCode;

use anyhow::{Context, Result};
use chat_dev::{
    commands::{chaos, check, demo, down, load, prepare, test, up},
    terminal,
};
use clap::{Parser, Subcommand};

/// Runs the chat backend on this machine, tests it and checks it.
///
/// Needs Rust, and Python with pip (or NATS, PostgreSQL 18 and Redis installed).
#[derive(Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything: private servers, gateways, workers, stand-ins for kaha-main-v3 and notification services
    Up(up::Options),
    /// Stop what `up --detach` started
    Down,
    /// Run all tests on throw-away servers
    Test(test::Options),
    /// Check format, lints, documents, SQL metadata, schema, dependencies and Kubernetes manifests
    Check,
    /// Play a story in which everything dies once, and check every promise
    Demo(demo::Options),
    /// Break everything at random while people chat, and audit every promise
    Chaos(chaos::Options),
    /// Load a release build, measure it, and prove that nothing was lost
    Load(load::Options),
    /// Write .sqlx/ and migrations/schema.sql anew, after changing SQL or migrations
    Prepare,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        // What a person can act on; where it came from in this tool is of no use to them.
        terminal::failure(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Up(options) => up::run(options).await,
            Command::Down => down::run().await,
            Command::Test(options) => test::run(options).await,
            Command::Check => check::run().await,
            Command::Demo(options) => demo::run(options).await,
            Command::Chaos(options) => chaos::run(options).await,
            Command::Load(options) => load::run(options).await,
            Command::Prepare => prepare::run().await,
        }
    });
    // A build that was interrupted is not waited for.
    runtime.shutdown_background();
    result
}
