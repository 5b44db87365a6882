//! NATS, alone, is killed and started again, or its disk is full.

use std::{ops::Range, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::{
    chaos::{disk, ground::Ground, load::ProbeOutcome, trial::Trial},
    wait,
};

/// How long an answer may take from a gateway to its client.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// How long it is dead: gateways wait 5 s for its answer.
const SHORT_MS: Range<u64> = 1000..2500;
const LONG_MS: Range<u64> = 7000..10_000;

/// How long gateways may take to notice that no append is answered: an append waits for 5 s.
const NOTICED_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take until messages are accepted again.
const HEALED_DEADLINE: Duration = Duration::from_secs(30);
/// Attempts, each made after the one before is answered, that gateways have to refuse …
const REFUSED_MIN: usize = 8;
/// … within this time. If each of them waited 5 s for the log, they would take 40 s.
const REFUSED_DEADLINE: Duration = Duration::from_secs(35);

/// Until an operator gives it room and starts NATS again, as the runbook says.
pub async fn disk_full(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, load) = (trial.ground, trial.load);
    let nats = &ground.servers()?.nats;
    trial.pause(300..1500).await;
    disk::fill(nats.data_dir())?;
    trial.fault("the disk of NATS is full");
    let refused = refused_at_once(trial).await;
    disk::clear(nats.data_dir())?;
    nats.stop().await?;
    nats.start().await?;
    trial.told.line("an operator gives the disk room and starts NATS again");
    let since = Instant::now();
    wait::until("an accepted attempt", HEALED_DEADLINE, || async {
        let is_accepted = load.probe.since(since, ProbeOutcome::Accepted).0 > 0;
        Ok((is_accepted && stalled(ground).await? == 0).then_some(()))
    })
    .await?;
    trial.told.line(&format!("messages are accepted {} ms later", since.elapsed().as_millis()));
    let refused = refused?;
    trial.bite(true, format!("{refused} attempts in a row were refused as unavailable, most of them at once"));
    Ok(())
}

/// Waits until gateways know that no append is answered, and then for attempts that they refuse; how many.
async fn refused_at_once(trial: &Trial<'_>) -> Result<usize> {
    let (ground, load) = (trial.ground, trial.load);
    wait::until("gateways that say that the log takes nothing", NOTICED_DEADLINE, || async {
        Ok((stalled(ground).await? == ground.fleet.gateways().len() as u64).then_some(()))
    })
    .await?;
    let noticed = Instant::now();
    wait::until("refused attempts", REFUSED_DEADLINE, || async {
        let (refused, _) = load.probe.since(noticed, ProbeOutcome::Unavailable);
        Ok((refused >= REFUSED_MIN).then_some(()))
    })
    .await?;
    let (refused, attempts) = load.probe.since(noticed, ProbeOutcome::Unavailable);
    ensure!(refused == attempts, "{} attempts were not refused though the disk was full", attempts - refused);
    Ok(refused)
}

/// Gateways that say that the log answers no append.
async fn stalled(ground: &Ground) -> Result<u64> {
    ground.of_gateways("chat_gateway_log_stalled", "").await
}

/// Several times.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(8, 2);
    let nats = &trial.ground.servers()?.nats;
    for round in 1..=rounds {
        trial.pause(300..1500).await;
        let since = Instant::now();
        nats.kill().await?;
        trial.fault("NATS is killed with SIGKILL");
        // Once longer than a gateway waits, so that it has to refuse.
        let is_long = round == rounds;
        trial.pause(if is_long { LONG_MS } else { SHORT_MS }).await;
        let down = Instant::now();
        // What was answered just before may still be on its way to its sender.
        let accepted = trial.load.samples.accepted_between(since + ON_ITS_WAY, down);
        nats.start().await?;
        trial.told.line("NATS is started again");
        trial.pause(1500..2500).await;
        let slowest = trial.load.samples.slowest_since(since);
        let (refused, _) = trial.load.probe.since(since, ProbeOutcome::Unavailable);
        let dead_ms = (down - since).as_millis();
        trial.bite(
            accepted == 0 && (refused > 0 || !is_long) && slowest + ON_ITS_WAY * 2 > down - since,
            format!(
                "{accepted} messages were accepted in the {dead_ms} ms while it was dead, {refused} attempts were refused, \
                 and a client's send took {} ms with its repeats",
                slowest.as_millis()
            ),
        );
    }
    Ok(())
}
