//! `cargo dev test`: all tests, on servers that are thrown away afterwards.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use tokio::process::Command;

use super::schema;
use crate::{
    fleet::{Profile, Programs, programs},
    paths,
    ports::Ports,
    servers::{Binaries, Durability, NatsServers, Servers},
    signals::Ending,
    terminal,
    test_servers::{TestServers, VARIABLE},
};

/// Each end-to-end test runs a fleet of its own, so more at once only slow each other down.
const THREADS_MAX: usize = 4;

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    /// Run only tests whose names contain one of these
    filters: Vec<String>,
    /// Only the tests of this package (may be repeated)
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// For the test runner itself, for example `-- --nocapture`
    #[arg(last = true, value_name = "RUNNER ARGUMENTS")]
    runner: Vec<OsString>,
}

/// Runs them and passes on the runner's exit status.
///
/// # Errors
/// If the servers or the services can't be had.
pub async fn run(options: Options) -> Result<ExitCode> {
    let mut ending = Ending::listen(true)?;
    tokio::select! {
        // Dropping it stops the servers and the tests.
        result = run_on_servers(&options) => result,
        () = ending.asked() => {
            terminal::progress("interrupted");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn run_on_servers(options: &Options) -> Result<ExitCode> {
    let (binaries, programs) = tokio::try_join!(Binaries::find_or_fetch(), Programs::build(Profile::Dev))?;
    let scratch = paths::scratch("test")?;
    terminal::progress("starting throw-away servers");
    let ports = Ports::fresh();
    let servers = Servers::start(&binaries, scratch.path(), Durability::ThrowAway, NatsServers::One, &ports).await?;
    schema::migrate(&servers.postgres).await?;
    let described = TestServers {
        postgres_url: servers.postgres.url(),
        postgres_template: schema::TEMPLATE.to_owned(),
        nats_url: servers.nats.url(),
        redis_url: servers.redis.url(),
        programs,
        binaries,
        scratch: scratch.path().to_path_buf(),
    };
    let status = command(options, &described)?.status().await.context("cannot run cargo test")?;
    servers.stop().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { code_of(status) })
}

fn command(options: &Options, servers: &TestServers) -> Result<Command> {
    let mut command = Command::from(programs::cargo()?);
    command.args(["test", "--no-fail-fast"]).kill_on_drop(true);
    if options.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &options.package {
        command.args(["--package", package]);
    }
    command.arg("--").args(&options.filters).args(&options.runner);
    command.env(VARIABLE, serde_json::to_string(servers)?);
    if paths::environment("RUST_TEST_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("RUST_TEST_THREADS", processors.clamp(2, THREADS_MAX).to_string());
    }
    Ok(command)
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
