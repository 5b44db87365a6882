//! `cargo dev up`: the whole backend on this machine, until Ctrl-C.

mod background;
mod greeting;
mod supervision;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;

use super::lock::Lock;
use crate::{
    fleet::{Fleet, FleetOptions, Profile, Programs, ServerSource},
    fleet_file::FleetFile,
    paths,
    ports::Ports,
    servers::{Binaries, Durability, postgres},
    signals::Ending,
    terminal,
};

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    /// How many gateways
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    gateways: u8,
    /// How many replicas of PostgreSQL, which gateways read from; copied anew at each start
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=4))]
    replicas: u8,
    /// Throw away all data of earlier runs first
    #[arg(long)]
    fresh: bool,
    /// Return as soon as everything is ready; stop with `cargo dev down`
    #[arg(long)]
    detach: bool,
    /// Set by `--detach` for the process that stays
    #[arg(long, hide = true)]
    in_background: bool,
}

/// Runs it.
///
/// # Errors
/// If something is missing or does not start.
pub async fn run(options: Options) -> Result<ExitCode> {
    let state_dir = paths::state_dir()?;
    fs::create_dir_all(&state_dir)?;
    if options.detach {
        let file = background::start(&state_dir, &options).await?;
        greeting::print(&file, &file_in(&state_dir), "cargo dev down");
        return Ok(ExitCode::SUCCESS);
    }
    let mut ending = Ending::listen(!options.in_background)?;
    let _lock = Lock::take(&state_dir)?;
    let file = file_in(&state_dir);
    remove(&file)?;
    let result = tokio::select! {
        // Dropping an unfinished start kills what it started.
        fleet = start(&state_dir, &options) => serve(&fleet?, &file, &mut ending).await,
        () = ending.asked() => Ok(()),
    };
    remove(&file)?;
    result?;
    terminal::progress("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn start(state_dir: &Path, options: &Options) -> Result<Fleet> {
    let data = state_dir.join("data");
    if options.fresh {
        terminal::progress("throwing away the data of earlier runs");
        discard(&postgres::data_dir_for(&data)?)?;
        for part in ["data", "logs", "keys", "kaha", "push-services"] {
            discard(&state_dir.join(part))?;
        }
    }
    let (binaries, programs) = tokio::try_join!(Binaries::find_or_fetch(), Programs::build(Profile::Dev))?;
    terminal::progress("starting servers and services");
    let fleet = Fleet::start(FleetOptions {
        gateways: options.gateways.into(),
        replicas: options.replicas.into(),
        dir: Some(state_dir.to_path_buf()),
        servers: ServerSource::Own(Durability::Kept),
        binaries: Some(binaries),
        programs: Some(programs),
        ports: Ports::remembered(state_dir.join("ports.json")),
        has_cold: true,
        is_on_terminal: true,
        ..FleetOptions::default()
    })
    .await?;
    fleet.kaha().push_business().await?;
    Ok(fleet)
}

async fn serve(fleet: &Fleet, file: &Path, ending: &mut Ending) -> Result<()> {
    let described = FleetFile::describe(fleet)?;
    described.write(file)?;
    greeting::print(&described, file, "Ctrl-C");
    let outcome = tokio::select! {
        outcome = supervision::watch(fleet, file) => outcome,
        () = ending.asked() => Ok(()),
    };
    terminal::progress("stopping; again to stop at once");
    tokio::select! {
        stopped = fleet.stop() => outcome.and(stopped),
        // Dropping the fleet kills what is left.
        () = ending.asked() => outcome,
    }
}

fn file_in(state_dir: &Path) -> PathBuf {
    state_dir.join("fleet.json")
}

fn discard(directory: &Path) -> Result<()> {
    absent_is_fine(fs::remove_dir_all(directory), directory)
}

fn remove(file: &Path) -> Result<()> {
    absent_is_fine(fs::remove_file(file), file)
}

fn absent_is_fine(result: std::io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
