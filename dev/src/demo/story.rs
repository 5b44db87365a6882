//! The order of the scenes, and what comes of them.

use std::{path::Path, time::Instant};

use anyhow::Result;
use serde::Serialize;

use super::{
    accidents,
    audit::{self, Figures},
    cases,
    narrator::{Narrator, Promise},
    outages, rules, scenes,
    stage::Stage,
};
use crate::fleet::Fleet;

/// The counts of a story: the last line that is printed.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Messages that gateways accepted.
    pub accepted: usize,
    /// What the audits found.
    #[serde(flatten)]
    pub figures: Figures,
    /// What was broken on purpose.
    pub faults_injected: u32,
    /// Messages that were sent again on purpose.
    pub repeats_sent: u32,
    /// Requests of a stranger, all refused.
    pub strangers_refused: u32,
    /// Checks of promises.
    pub promises_checked: u32,
    /// Checks that found a promise broken.
    pub broken: usize,
    /// What chose the words.
    pub seed: u64,
    /// How long it took, without building and starting.
    pub seconds: u64,
}

/// Plays the whole story on a fleet that was just started, and stops it.
///
/// # Errors
/// Only if there is no stage to play on. A broken promise is no error; it is counted.
pub async fn play(fleet: Fleet, seed: u64) -> Result<Outcome> {
    let began = Instant::now();
    let told = Narrator::new();
    let logs = fleet.dir().to_path_buf();
    told.title("Three people, two gateways, and everything that can die", &format!("seed {seed}"));
    let mut stage = Stage::new(fleet, seed)?;
    quiet(&mut stage, &told).await;
    loud(&mut stage, &told).await;
    let figures = audits(&mut stage, &told, &logs).await;
    let (promises_checked, broken) = told.counts();
    let outcome = Outcome {
        accepted: stage.ledger.count(),
        figures,
        faults_injected: told.faults(),
        repeats_sent: stage.repeats,
        strangers_refused: stage.refusals,
        promises_checked,
        broken: broken.len(),
        seed,
        seconds: began.elapsed().as_secs(),
    };
    told.end(&format!(
        "{} messages accepted, {} in Postgres, {} times shown; {} faults, in {} seconds.",
        outcome.accepted,
        outcome.figures.in_postgres,
        outcome.figures.delivered,
        outcome.faults_injected,
        outcome.seconds,
    ));
    Ok(outcome)
}

/// Plays a scene; if it breaks off, what it left broken is put in order for the next.
macro_rules! scene {
    ($stage:ident, $told:ident, $about:ident, $heading:literal, $scene:path) => {
        if !$told.scene($heading, Promise::$about, $scene($stage, $told)).await {
            let repaired = $stage.repair().await.map(|()| "everything runs again");
            if repaired.is_err() {
                $told.check(Promise::$about, repaired);
            }
        }
    };
}

async fn quiet(stage: &mut Stage, told: &Narrator) {
    scene!(stage, told, OneOrder, "Two people write to each other, at two gateways", scenes::two_people);
    scene!(stage, told, HistoryNeverLags, "A third joins a group and reads its history", scenes::a_third_joins);
    scene!(stage, told, NotYours, "One leaves the group and comes back", rules::leaves_and_returns);
    scene!(stage, told, NotYours, "One blocks another", rules::a_block);
    scene!(stage, told, ResumeIsComplete, "One goes away and comes back at the other gateway", scenes::away_and_back);
    scene!(stage, told, OneIdOneMessage, "The same message twice", scenes::the_same_twice);
    scene!(stage, told, OneNotification, "One reads on another device", rules::reads_elsewhere);
    scene!(stage, told, NotYours, "A stranger at the door", scenes::a_stranger);
    scene!(stage, told, CasesGoOn, "A customer asks a business, whose agent is cut off", cases::changes_hands);
}

async fn loud(stage: &mut Stage, told: &Narrator) {
    scene!(stage, told, HistoryNeverLags, "The persister dies", accidents::persister);
    scene!(stage, told, ResumeIsComplete, "A gateway dies", accidents::gateway);
    scene!(stage, told, LosingAHelper, "The notifier dies", accidents::notifier);
    scene!(stage, told, ResumeIsComplete, "Redis forgets everything", outages::redis_flushed);
    scene!(stage, told, LosingAHelper, "Postgres goes away for ten seconds", outages::postgres_stopped);
    scene!(stage, told, AcceptedMeansKept, "NATS dies and comes back", outages::nats_restarted);
}

async fn audits(stage: &mut Stage, told: &Narrator, logs: &Path) -> Figures {
    let mut figures = Figures::default();
    told.scene("Audit: what lies in files", Promise::Ciphertext, async {
        stage.chandra.leave().await?;
        let group = stage.group()?;
        told.tell("Chandra is away, so that her inbox in Redis holds something");
        stage.say(told, &stage.asha, group, "Good night, everybody.").await?;
        stage.say(told, &stage.bikram, group, "Good night!").await?;
        stage.until_shown().await?;
        audit::files(stage, told, &mut figures).await
    })
    .await;
    told.scene("Audit: what people were shown", Promise::ShownOnce, audit::people(stage, told, &mut figures)).await;
    told.scene("Audit: what Postgres has", Promise::AcceptedMeansKept, audit::postgres(stage, told, &mut figures))
        .await;
    told.scene("Audit: what the logs say", Promise::MaskedIds, async {
        for person in [&mut stage.asha, &mut stage.bikram, &mut stage.chandra] {
            person.leave().await?;
        }
        let stopped = stage.fleet.stop().await.map(|()| "5 of 5 services and 3 of 3 servers stop cleanly");
        told.check(Promise::NoPanic, stopped);
        audit::logs(logs, told, &mut figures)
    })
    .await;
    figures
}
