//! Scenarios one after the other, on one fleet where they can share it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{
    ground::{Ground, GroundKind, Means},
    outcome::{Outcome, Verdict},
    run,
    scenario::Scenario,
    told::Told,
    trial::Scale,
};

/// Plays scenarios, and remembers on what.
#[derive(Debug)]
pub struct Row<'a> {
    means: &'a Means,
    /// Names its directories.
    name: String,
    scale: Scale,
    /// Whether scenarios that need the same kind of fleet use the same one.
    is_shared: bool,
    is_quiet: bool,
    current: Option<Current>,
    grounds: usize,
}

#[derive(Debug)]
struct Current {
    kind: GroundKind,
    ground: Ground,
    dir: PathBuf,
    /// Nothing went wrong on it.
    is_clean: bool,
}

impl<'a> Row<'a> {
    /// Nothing is started yet.
    pub fn new(means: &'a Means, name: &str, scale: Scale, is_shared: bool, is_quiet: bool) -> Self {
        Self { means, name: name.to_owned(), scale, is_shared, is_quiet, current: None, grounds: 0 }
    }

    /// Plays some, with the same seed.
    pub async fn play_all(&mut self, scenarios: &[Scenario], seed: u64) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(scenarios.len());
        for scenario in scenarios {
            outcomes.push(self.play(*scenario, seed).await);
        }
        self.leave();
        outcomes
    }

    /// Whether the fleet that is there is of the kind that a scenario needs, and has seen nothing go wrong.
    pub fn suits(&self, scenario: Scenario) -> bool {
        self.current.as_ref().is_some_and(|current| current.kind == scenario.ground() && current.is_clean)
    }

    /// Plays one, on a new fleet unless the one there is fits and has seen nothing go wrong.
    pub async fn play(&mut self, scenario: Scenario, seed: u64) -> Outcome {
        let told = Told::new(scenario.name(), self.is_quiet);
        let began = Instant::now();
        if !(self.is_shared && self.suits(scenario)) {
            self.leave();
            if let Err(error) = self.enter(scenario, &told).await {
                let failure = error.context("the fleet did not start");
                told.bad(&format!("{failure:#}"));
                return Outcome::failed(scenario, seed, began.elapsed(), &failure);
            }
        }
        let Some(current) = &mut self.current else { unreachable!("it was entered above") };
        let mut outcome = Box::pin(run::play(&current.ground, scenario, self.scale, seed, told)).await;
        // The start of the fleet is part of it.
        outcome.seconds = began.elapsed().as_secs();
        current.is_clean &= outcome.verdict == Verdict::Held;
        outcome
    }

    async fn enter(&mut self, scenario: Scenario, told: &Told) -> Result<()> {
        self.grounds += 1;
        let name = format!("{}-{}-{}", self.name, self.grounds, scenario.name());
        told.line("starting servers and services");
        let kind = scenario.ground();
        let ground = Box::pin(Ground::start(kind, self.means, &name)).await.context(name.clone())?;
        self.current = Some(Current { kind, ground, dir: self.means.dir.join(name), is_clean: true });
        Ok(())
    }

    /// Ends the fleet, and removes its files if nothing went wrong.
    pub fn leave(&mut self) {
        if let Some(Current { ground, dir, is_clean, .. }) = self.current.take() {
            drop(ground);
            if is_clean {
                // What is left of it goes with the whole directory.
                _ = std::fs::remove_dir_all(dir);
            }
        }
    }
}
