//! `cargo dev test`: all tests, on servers that are thrown away afterwards.

mod suite;
mod tally;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Result, ensure};
use clap::Args;

use self::suite::Suite;
use super::schema;
use crate::{
    cargo::{self, Artifacts},
    fleet::Programs,
    paths,
    ports::Ports,
    servers::{Binaries, Durability, NatsServers, Seaweedfs, Servers},
    signals::Ending,
    terminal,
    test_servers::{TestServers, VARIABLE},
};

/// Each end-to-end test runs a fleet of its own, so more at once in one executable only slow each other down.
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

/// Runs them. Exit status 0 only if at least one ran and all passed.
///
/// # Errors
/// If the servers or the services can't be had, or no test has such a name.
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
    let packages = options.package.clone();
    let built = tokio::task::spawn_blocking(move || build(&packages));
    let (binaries, (programs, artifacts)) = tokio::try_join!(Binaries::find_or_fetch(), async { built.await? })?;
    let suite = Suite::choose(artifacts, &options.filters, &options.runner).await?;
    ensure!(!suite.is_empty(), "no test has a name with this in it: {}", options.filters.join(", "));
    let scratch = paths::scratch("test")?;
    terminal::progress("starting throw-away servers");
    let ports = Ports::fresh();
    let store = Seaweedfs::prepare(&binaries, scratch.path(), &ports)?;
    let run = async {
        let servers =
            Servers::start(&binaries, scratch.path(), Durability::ThrowAway, NatsServers::One, &ports).await?;
        schema::migrate(&servers.postgres).await?;
        let described = TestServers {
            postgres_url: servers.postgres.url(),
            postgres_template: schema::TEMPLATE.to_owned(),
            nats_url: servers.nats.url(),
            redis_url: servers.redis.url(),
            store_url: store.url(),
            programs,
            binaries: binaries.clone(),
            scratch: scratch.path().to_path_buf(),
        };
        let is_passed = suite.run(&environment(&described)?, scratch.path()).await?;
        servers.stop().await?;
        Ok(is_passed)
    };
    // It takes longest to start, so only tests that use it wait for it.
    let (is_passed, ()) = tokio::try_join!(run, store.start())?;
    store.stop().await?;
    Ok(if is_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the services, and the tests of these packages or of all.
fn build(packages: &[String]) -> Result<(Programs, Artifacts)> {
    terminal::progress("building the services and the tests");
    if packages.is_empty() {
        let mut all = cargo::build(cargo::ALL_TARGETS)?;
        let programs = Programs::among(&all.executables)?;
        all.executables.retain(|executable| executable.is_test);
        return Ok((programs, all));
    }
    let programs = Programs::among(&cargo::build(cargo::ALL_PROGRAMS)?.executables)?;
    let selection = packages.iter().flat_map(|package| ["--package", package]);
    let mut chosen = cargo::build(["test", "--no-run"].into_iter().chain(selection))?;
    chosen.executables.retain(|executable| executable.is_test);
    chosen.documented.retain(|package| packages.contains(package));
    Ok((programs, chosen))
}

/// What tests are given beside what cargo gives them.
fn environment(servers: &TestServers) -> Result<Vec<(&'static str, String)>> {
    let mut environment = vec![(VARIABLE, serde_json::to_string(servers)?)];
    if paths::environment("RUST_TEST_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        environment.push(("RUST_TEST_THREADS", processors.clamp(2, THREADS_MAX).to_string()));
    }
    Ok(environment)
}
