//! One run of a scenario: people and load, faults, healing, draining, audit.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::{
    crowd::Crowd,
    ground::Ground,
    load::Load,
    old_texts::OldTexts,
    outcome::{Outcome, Verdict},
    past::Past,
    scenario::Scenario,
    settle,
    told::Told,
    trial::{Bite, Scale, Trial},
};
use crate::{
    audit::{Check, Finding, audit, audit_ageing, audit_cold, search::logs_in, stored},
    fleet::READY_DEADLINE,
};

/// Messages that are accepted before anything breaks.
const WARM_UP: usize = 30;
/// Conversations in which one message is sent and nothing after it.
const WHISPERS_FULL: usize = 150;
const WHISPERS_QUICK: usize = 40;
/// Conversations of strangers with messages of days that are due, where days age out. Enough for several batches of floors.
const STRANGERS_FULL: usize = 2500;
const STRANGERS_QUICK: usize = 250;
/// How long clients repeat a message. Longer than any fault lasts.
const SEND_WAIT_FULL: u64 = 240;
const SEND_WAIT_QUICK: u64 = 90;
/// How much longer than that a send may take to end.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Plays a scenario and audits it.
///
/// A failure on the way is an outcome too: a broken one.
pub async fn play(ground: &Ground, scenario: Scenario, scale: Scale, seed: u64, told: Told) -> Outcome {
    let began = Instant::now();
    told.line(&format!("{} (seed {seed})", scenario.about()));
    let outcome = match Box::pin(try_play(ground, scenario, scale, seed, told.clone())).await {
        Ok(mut outcome) => {
            outcome.seconds = began.elapsed().as_secs();
            outcome.verdict = outcome.judge();
            outcome
        }
        Err(error) => Outcome::failed(scenario, seed, began.elapsed(), &error),
    };
    tell(&told, &outcome);
    outcome
}

async fn try_play(ground: &Ground, scenario: Scenario, scale: Scale, seed: u64, told: Told) -> Result<Outcome> {
    let send_wait_max = scale.seconds(SEND_WAIT_FULL, SEND_WAIT_QUICK);
    let panics_before = panics(ground.fleet.dir())?.violations;
    let letters_before = stored::dead_letters(&mut ground.postgres().await?).await?;
    let mut past = match scenario {
        Scenario::Retire => Some(Past::prepare(ground).await.context("making days of the past")?),
        _ => None,
    };
    let mut old_texts = match scenario {
        Scenario::Cold => Some(OldTexts::prepare(ground).await.context("making old texts")?),
        _ => None,
    };
    let strangers = scale.of(STRANGERS_FULL, STRANGERS_QUICK);
    let whispers = scale.of(WHISPERS_FULL, WHISPERS_QUICK);
    let mut crowd = Crowd::gather(&ground.fleet, send_wait_max, whispers, past.as_mut().map(|past| (past, strangers)))
        .await
        .context("gathering people")?;
    let mut load = Load::start(&ground.fleet, &crowd, seed)?;
    load.ledger.until_count(WARM_UP).await?;
    load.until_changed().await?;

    let mut trial = Trial {
        ground,
        crowd: &crowd,
        load: &load,
        scale,
        rng: StdRng::seed_from_u64(seed),
        told: told.clone(),
        past: past.as_mut(),
        old_texts: old_texts.as_mut(),
        bites: Vec::new(),
        findings: Vec::new(),
        dead_letters_expected: 0,
        claimed: BTreeSet::new(),
        loss: None,
    };
    let played = scenario.play(&mut trial).await.context("the scenario could not be played to its end");
    let Trial { bites, mut findings, dead_letters_expected, claimed, loss, .. } = trial;

    findings.push(ended(ground));
    ground.repair().await?;
    ground.until_ready(READY_DEADLINE).await?;
    told.line("everything runs; waiting until all that was accepted is stored and shown");
    load.stop(send_wait_max + STOP_MARGIN).await;
    let mut learned = settle::learn_outcomes(&crowd.readers()?, &load.ledger).await;
    if loss.is_some() {
        told.line("all devices throw away what they have, and people write on");
        write_on_anew(ground, &mut crowd, &mut load, seed).await.context("writing on after the loss of all servers")?;
        load.stop(send_wait_max + STOP_MARGIN).await;
        learned += settle::learn_outcomes(&crowd.readers()?, &load.ledger).await;
    }
    findings.push(settle::drain_outbox(ground).await);
    findings.push(settle::drain(ground, &crowd, &load.ledger).await);
    findings.push(settle::drain_queue(ground).await);
    let mut evidence = settle::evidence(ground, &crowd, &load, letters_before, &claimed).await?;
    evidence.dead_letters_expected = dead_letters_expected;
    if let Some(loss) = &loss {
        loss.excuse(&mut evidence.away);
    }
    if let Some(past) = &past {
        evidence.attempts.extend(past.attempts());
        findings.extend(audit_ageing(&past.evidence(ground, &crowd.readers()?, &evidence).await?));
    }
    if let Some(texts) = &old_texts {
        findings.extend(audit_cold(&texts.evidence(ground).await?));
    }
    findings.splice(0..0, audit(&evidence));
    findings.push(refused(&load));
    findings.push(ended(ground));
    let mut panics = panics(ground.fleet.dir())?;
    panics.violations = panics.violations.saturating_sub(panics_before);
    if panics.is_held() {
        panics.first = None;
    }
    findings.push(panics);
    let findings = merged(findings);
    let (pushed, pushed_again) = crowd.raw_counts();
    crowd.leave().await?;
    Ok(Outcome {
        scenario,
        seed,
        verdict: Verdict::Held,
        seconds: 0,
        accepted: load.ledger.count(),
        learned,
        pushed,
        pushed_again,
        bites,
        findings,
        failure: played.err().map(|error| format!("{error:#}")),
    })
}

/// Everybody throws away what their clients have, as the documents say, and writes on.
async fn write_on_anew(ground: &Ground, crowd: &mut Crowd, load: &mut Load, seed: u64) -> Result<()> {
    load.actions.lose_marks();
    crowd.begin_anew().await?;
    let accepted = load.ledger.count();
    load.begin(&ground.fleet, crowd, seed)?;
    load.ledger.until_count(accepted + WARM_UP).await?;
    load.until_changed().await
}

/// Whatever the scenario killed it has started again, so what does not run ended by itself.
fn ended(ground: &Ground) -> Finding {
    let ended = ground.ended();
    Finding {
        check: Check::Ended,
        violations: ended.len() as u64,
        of: ground.fleet.processes().count() as u64,
        first: ended.first().map(|name| (*name).to_owned()),
    }
}

/// Clients repeat what was refused for now; what is refused for good is a fault.
fn refused(load: &Load) -> Finding {
    let (refusals, first) = load.samples.refusals();
    let (wrong, attempts) = load.probe.wrong_answers();
    let first_status = wrong.first().map(|status| format!("status {status}"));
    Finding {
        check: Check::Refused,
        violations: refusals + wrong.len() as u64,
        of: (load.ledger.count() + attempts) as u64,
        first: first.or(first_status),
    }
}

/// What was looked at in two places is one finding.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        match merged.iter_mut().find(|other| other.check == finding.check) {
            Some(other) => {
                other.violations += finding.violations;
                other.of += finding.of;
                other.first = other.first.take().or(finding.first);
            }
            None => merged.push(finding),
        }
    }
    merged
}

fn panics(dir: &Path) -> Result<Finding> {
    let logs = logs_in(dir)?;
    Ok(Finding {
        check: Check::Panics,
        violations: logs.panics.len() as u64,
        of: logs.lines as u64,
        first: logs.panics.first().cloned(),
    })
}

fn tell(told: &Told, outcome: &Outcome) {
    for Bite { evidence, is_felt } in &outcome.bites {
        if *is_felt {
            told.line(&format!("felt: {evidence}"));
        } else {
            told.bad(&format!("not felt: {evidence}"));
        }
    }
    if let Some(failure) = &outcome.failure {
        told.bad(failure);
    }
    for finding in outcome.findings.iter().filter(|finding| !finding.is_held() || finding.is_void()) {
        told.bad(&finding.to_string());
    }
    let looks: u64 = outcome.findings.iter().map(|finding| finding.of).sum();
    told.line(&format!("{} checks looked at {looks} things", outcome.findings.len()));
    told.line(&format!(
        "{} messages accepted, {} of them only after they were sent again; {} pushes to devices, {} of them repeats that \
         clients filtered",
        outcome.accepted, outcome.learned, outcome.pushed, outcome.pushed_again
    ));
    let summary = format!("{} s, seed {}", outcome.seconds, outcome.seed);
    match outcome.verdict {
        Verdict::Held => told.good(&format!("every promise held; {summary}")),
        Verdict::Void => told.bad(&format!("void: a fault was not felt, or a check saw nothing; {summary}")),
        Verdict::Broken => told.bad(&format!("broken; {summary}")),
    }
}
