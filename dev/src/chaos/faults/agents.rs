//! Agents of businesses vanish while customers wait for them, and everything behind them is killed, stopped or emptied.

use anyhow::{Context, Result};
use chat_client::wire::ReleaseReason;
use rand::{RngExt, seq::SliceRandom};

use super::{
    postgres::{Outage, stop_for},
    services::kill_and_start,
};
use crate::{
    audit::Lease,
    chaos::{
        desk::{Desk, fault_lines},
        trial::Trial,
    },
    fleet::{READY_DEADLINE, Role},
};

/// Messages of customers and agents before anything breaks.
const WARM_UP: usize = 40;
/// Agents that vanish at a time.
const VANISHING: usize = 2;

/// What is broken, in any order.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill(usize),
    FlushRedis,
    RestartNats,
    StopPostgres,
}

/// All of it, several times.
pub async fn served(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let (_, faults_before) = fault_lines(ground.fleet.dir())?;
    let mut desk = Desk::open(&ground.fleet).await.context("opening the businesses")?;
    desk.work(trial.rng.random())?;
    desk.ledger.until_count(WARM_UP).await?;
    for _ in 0..trial.scale.of(3, 1) {
        let vanished = desk.vanish(VANISHING, &mut trial.rng);
        trial.fault(&format!("{} agents vanish without a word; their connections stay open", vanished.len()));
        let kills = ground.fleet.services().enumerate().filter(|(_, service)| service.role() != Role::Retention);
        let mut blows: Vec<_> = kills.map(|(number, _)| Blow::Kill(number)).collect();
        blows.extend([Blow::FlushRedis, Blow::RestartNats, Blow::StopPostgres]);
        blows.shuffle(&mut trial.rng);
        for blow in blows {
            trial.pause(500..2500).await;
            strike(trial, blow).await?;
        }
        Desk::come_back(&ground.fleet, &vanished);
        trial.told.line("the agents can connect again");
        // Long enough for clocks of agents to end.
        trial.last(trial.scale.seconds(30, 20)).await;
    }
    ground.repair().await?;
    ground.until_ready(READY_DEADLINE).await?;
    trial.told.line("everything runs; customers and agents stop");
    desk.end().await?;
    trial.told.line("they have stopped; waiting until nothing changes");
    let outcome = desk.audit(ground, faults_before.len()).await?;
    felt(trial, &outcome.leases, desk.raced());
    trial.findings.extend(outcome.findings);
    desk.leave().await
}

async fn strike(trial: &mut Trial<'_>, blow: Blow) -> Result<()> {
    let ground = trial.ground;
    match blow {
        Blow::Kill(number) => {
            let service = ground.fleet.services().nth(number).context("a fleet has services")?;
            let is_killed = kill_and_start(trial, service).await?;
            trial.bite(is_killed, format!("{} ended by the signal", service.name()));
            Ok(())
        }
        Blow::FlushRedis => {
            let mut redis = ground.redis().await?;
            let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
            let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await?;
            trial.fault(&format!("Redis is flushed, with {keys} keys"));
            trial.bite(keys > 0, format!("Redis lost {keys} keys"));
            Ok(())
        }
        Blow::RestartNats => {
            let nats = &ground.servers()?.nats;
            let pid = nats.process().pid();
            nats.stop().await?;
            trial.fault("NATS is restarted");
            nats.start().await?;
            trial.bite(nats.process().pid() != pid, "NATS is another process");
            Ok(())
        }
        Blow::StopPostgres => stop_postgres(trial).await,
    }
}

async fn stop_postgres(trial: &mut Trial<'_>) -> Result<()> {
    let Outage { looks, refused, .. } = stop_for(trial, trial.scale.seconds(30, 5)).await?;
    trial.ground.servers()?.postgres.start().await?;
    trial.told.line("PostgreSQL is started again");
    trial.bite(refused * 2 > looks, format!("{refused} of {looks} lists of conversations were refused"));
    Ok(())
}

/// Cases have gone all the ways that there are.
fn felt(trial: &mut Trial<'_>, leases: &[Lease], raced: usize) {
    let count = |wanted: &[ReleaseReason]| {
        leases.iter().filter(|lease| lease.release_reason.is_some_and(|reason| wanted.contains(&reason))).count()
    };
    let missed = count(&[ReleaseReason::AnswerMissed, ReleaseReason::ReplyMissed]);
    let (given_back, transferred) = (count(&[ReleaseReason::GivenBack]), count(&[ReleaseReason::Transferred]));
    let resolved = count(&[ReleaseReason::Resolved]);
    let reopened = leases.iter().filter(|lease| lease.case_number > 1).count();
    let all = leases.len();
    trial.bite(
        [missed, given_back, transferred, resolved, reopened, raced].into_iter().all(|count| count > 0),
        format!(
            "of {all} assignments {missed} ended without an answer in time, {given_back} were given back, {transferred} \
             transferred and {resolved} resolved; {reopened} were of cases that opened again, and {raced} messages came \
             while an agent was resolving the case"
        ),
    );
}
