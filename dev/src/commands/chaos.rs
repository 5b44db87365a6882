//! `cargo dev chaos`: everything is broken, and every promise checked.

use std::{
    collections::VecDeque,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    chaos::{Means, Outcome, Report, Row, Scale, Scenario, Verdict},
    fleet::Profile,
    paths,
    signals::Ending,
    terminal,
};

/// Rows of short scenarios that are played at the same time.
const ROWS: usize = 3;

/// What can be chosen.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub struct Options {
    /// Everything, but shortly: within five minutes
    #[arg(long)]
    quick: bool,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "soak")]
    only: Vec<String>,
    /// Say what scenarios there are
    #[arg(long)]
    list: bool,
    /// Short scenarios in random order with random seeds, for so long or until Ctrl-C
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Chooses when and what is broken; a new one each time if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Run a release build of the services
    #[arg(long)]
    release: bool,
    /// Keep data and logs even if all went well
    #[arg(long)]
    keep: bool,
    /// Also print the outcome of each scenario as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Plays them. Exit status 0 only if all promises held, every check had something to look at, and every fault was felt.
///
/// # Errors
/// If something does not build, or there is no such scenario.
pub async fn run(options: Options) -> Result<ExitCode> {
    if options.list {
        for scenario in Scenario::ALL {
            println!("{:<17} {}", scenario.name(), scenario.about());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&options.only)?;
    let mut ending = Ending::listen(true)?;
    Box::pin(play(&options, &chosen, &mut ending)).await
}

/// What it gives, or nothing if the end is asked for before. Dropping it ends its fleets.
async fn unless_ended<T>(ending: &mut Ending, work: impl Future<Output = T>) -> Option<T> {
    // Nobody goes on with work that was cancelled.
    tokio::select! {
        done = work => Some(done),
        () = ending.asked() => {
            terminal::progress("interrupted");
            None
        }
    }
}

fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        let (playable, others): (Vec<Scenario>, Vec<Scenario>) =
            Scenario::ALL.iter().partition(|scenario| scenario.is_playable());
        for scenario in others {
            terminal::progress(&format!("{} is left out: only root can play it", scenario.name()));
        }
        return Ok(playable);
    }
    let find = |name: &String| match Scenario::named(name) {
        Some(scenario) => Ok(scenario),
        None => bail!("there is no scenario called {name}; `cargo dev chaos --list` says what there is"),
    };
    names.iter().map(find).collect()
}

async fn play(options: &Options, chosen: &[Scenario], ending: &mut Ending) -> Result<ExitCode> {
    let began = Instant::now();
    let mut scratch = paths::scratch("chaos")?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let prepared = unless_ended(ending, Means::prepare(profile, scratch.path())).await;
    let Some(means) = prepared.transpose()? else { return Ok(ExitCode::FAILURE) };
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    terminal::progress(&format!("seed {seed}; data and logs are in {}", scratch.path().display()));
    // Until all went well: whoever interrupts it may want to look.
    scratch.disable_cleanup(true);
    let outcomes = match options.soak {
        Some(minutes) => Some(soak(&means, Duration::from_secs(minutes * 60), seed, ending).await),
        None => unless_ended(ending, once(&means, options, chosen, seed)).await,
    };
    let Some(outcomes) = outcomes else { return Ok(ExitCode::FAILURE) };
    let report = Report::of(outcomes, began.elapsed());
    let is_held = report.is_held();
    if is_held && !options.keep {
        scratch.disable_cleanup(false);
    } else {
        terminal::progress(&format!("data and logs are kept in {}", scratch.path().display()));
    }
    let quick = if options.quick || options.soak.is_some() { "--quick " } else { "" };
    let release = if options.release { "--release " } else { "" };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    report.print(&format!("{quick}{release}"));
    Ok(if is_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays each of them once.
async fn once(means: &Means, options: &Options, chosen: &[Scenario], seed: u64) -> Vec<Outcome> {
    if options.quick {
        side_by_side(means, chosen, seed).await
    } else {
        Row::new(means, "row", Scale::Full, false, false).play_all(chosen, seed).await
    }
}

/// Short scenarios mostly wait, so several rows of them fit beside each other. When a row has played one it takes the next
/// that suits its fleet, or else the next of all.
async fn side_by_side(means: &Means, chosen: &[Scenario], seed: u64) -> Vec<Outcome> {
    let waiting = Mutex::new(VecDeque::from(Scenario::longest_first(chosen)));
    let next = |row: &Row| {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let suiting = waiting.iter().position(|scenario| row.suits(*scenario));
        waiting.remove(suiting.unwrap_or_default())
    };
    let play = |number: usize| {
        let next = &next;
        async move {
            let mut row = Row::new(means, &format!("row-{number}"), Scale::Quick, true, false);
            let mut outcomes = Vec::new();
            while let Some(scenario) = next(&row) {
                outcomes.push(row.play(scenario, seed).await);
            }
            row.leave();
            outcomes
        }
    };
    join_all((1..=ROWS).map(play)).await.into_iter().flatten().collect()
}

/// The seed chooses which scenario comes when, and the seed of each. Whoever ends it early gets what was found so far.
async fn soak(means: &Means, length: Duration, seed: u64, ending: &mut Ending) -> Vec<Outcome> {
    let began = Instant::now();
    let mut row = Row::new(means, "soak", Scale::Quick, true, true);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut outcomes = Vec::new();
    while began.elapsed() < length {
        let playable: Vec<_> = Scenario::ALL.iter().filter(|scenario| scenario.is_playable()).collect();
        let Some(scenario) = playable.choose(&mut rng).copied() else { break };
        let played = unless_ended(ending, row.play(*scenario, rng.random_range(1..1_000_000))).await;
        let Some(outcome) = played else { break };
        println!("{}", Report::line(&outcome));
        if outcome.verdict != Verdict::Held {
            terminal::progress("its logs are kept; a new fleet is started");
        }
        outcomes.push(outcome);
    }
    row.leave();
    outcomes
}
