//! `cargo dev demo`: the story of a few people whose servers keep dying.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{
    demo,
    fleet::{Fleet, FleetOptions, Profile, Programs, ServerSource},
    paths,
    servers::{Binaries, Durability},
    signals::Ending,
    terminal,
};

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    /// Keep the directory with data and logs
    #[arg(long)]
    keep: bool,
    /// Chooses what people say; a new one each time if not given
    #[arg(long)]
    seed: Option<u64>,
}

/// Plays it. Exit status 0 only if every promise held.
///
/// # Errors
/// If the fleet does not start.
pub async fn run(options: Options) -> Result<ExitCode> {
    let mut ending = Ending::listen(true)?;
    tokio::select! {
        // Dropping it ends the fleet.
        played = play(&options) => played,
        () = ending.asked() => {
            terminal::progress("interrupted");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn play(options: &Options) -> Result<ExitCode> {
    let (binaries, programs) = tokio::try_join!(Binaries::find_or_fetch(), Programs::build(Profile::Dev))?;
    let mut scratch = paths::scratch("demo")?;
    scratch.disable_cleanup(options.keep);
    if options.keep {
        terminal::progress(&format!("data and logs are kept in {}", scratch.path().display()));
    }
    terminal::progress("starting servers and services of its own");
    let fleet = Fleet::start(FleetOptions {
        dir: Some(scratch.path().to_path_buf()),
        servers: ServerSource::Own(Durability::Kept),
        binaries: Some(binaries),
        programs: Some(programs),
        ..FleetOptions::default()
    })
    .await?;
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let outcome = Box::pin(demo::play(fleet, seed)).await?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
