//! A replica of PostgreSQL, from which gateways read lists and history, stops replaying, dies, freezes and flaps: lists stay
//! as fresh, and no request fails.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::Instant;

use crate::{
    audit::{Check, stored},
    chaos::{
        ground::Ground,
        listers::{Listers, Seen},
        trial::Trial,
    },
    process::Signal,
    servers::Postgres,
    wait,
};

/// Reads that replicas may be asked for.
const READS: &str = "chat_gateway_reads_total";
const FROM_REPLICA: &str = "from=\"replica\"";
const FROM_PRIMARY: &str = "from=\"primary\"";
/// How long gateways may take until they read from a replica that follows again.
const USED_DEADLINE: Duration = Duration::from_secs(30);
/// Reads from the replica in a row, as it were, before it counts as used.
const USED_MIN: u64 = 50;
/// Of all reads while the replica is healthy, so many in a hundred have to leave the primary.
const SHARE_MIN: u64 = 80;

/// All of it.
pub async fn broken(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let replica = ground.servers()?.replicas.first().context("there is no replica")?;
    let listers = Listers::start(&ground.fleet).await?;
    until_used(ground).await.context("nothing is read from the replica")?;
    healthy(trial).await?;
    let since = Instant::now();
    for _ in 0..trial.scale.of(4, 1) {
        paused(trial, replica).await?;
        killed(trial, replica).await?;
        frozen(trial, replica).await?;
    }
    for _ in 0..trial.scale.of(10, 2) {
        replica.kill().await?;
        replica.start().await?;
        trial.pause(50..800).await;
    }
    trial.fault("the replica is killed with SIGKILL and started again, again and again");
    used_again(trial, "a replica that flapped").await;
    healthy(trial).await?;
    judge(trial, listers.stop().await, since);
    Ok(())
}

/// Its replay stops, and the rest of it goes on.
async fn paused(trial: &mut Trial<'_>, replica: &Postgres) -> Result<()> {
    let before = reads(trial.ground, "reason=\"unreplayed\"").await? + reads(trial.ground, "reason=\"behind\"").await?;
    ask(replica, "select pg_wal_replay_pause()").await?;
    trial.fault("the replica stops replaying");
    trial.last(trial.scale.seconds(8, 3)).await;
    ask(replica, "select pg_wal_replay_resume()").await?;
    let after = reads(trial.ground, "reason=\"unreplayed\"").await? + reads(trial.ground, "reason=\"behind\"").await?;
    trial.bite(after > before, format!("{} reads went to the primary as the replica did not replay", after - before));
    used_again(trial, "a replica that had stopped replaying").await;
    Ok(())
}

async fn killed(trial: &mut Trial<'_>, replica: &Postgres) -> Result<()> {
    let before = lost(trial.ground).await?;
    replica.kill().await?;
    trial.fault("the replica and all its backends are killed with SIGKILL");
    trial.last(trial.scale.seconds(4, 1)).await;
    let signal = replica.process().exited().await?.signal();
    replica.start().await?;
    let reads = lost(trial.ground).await? - before;
    let is_felt = signal == Some(Signal::KILL.as_raw()) && reads > 0;
    trial.bite(is_felt, format!("{reads} reads went to the primary as the replica was killed"));
    used_again(trial, "a replica that was killed").await;
    Ok(())
}

async fn frozen(trial: &mut Trial<'_>, replica: &Postgres) -> Result<()> {
    let before = lost(trial.ground).await?;
    replica.pause()?;
    trial.fault("the replica is frozen: its connections stay open and nothing answers");
    trial.last(trial.scale.seconds(6, 2)).await;
    replica.resume()?;
    let reads = lost(trial.ground).await? - before;
    trial.bite(reads > 0, format!("{reads} reads went to the primary as the replica was frozen"));
    used_again(trial, "a replica that was frozen").await;
    Ok(())
}

/// While nothing is broken most reads leave the primary.
async fn healthy(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let replica = &ground.servers()?.replicas[0];
    let (replica_before, primary_before) = (reads(ground, FROM_REPLICA).await?, reads(ground, FROM_PRIMARY).await?);
    let carried_before = carried(replica).await?;
    trial.last(trial.scale.seconds(10, 2)).await;
    let from_replica = reads(ground, FROM_REPLICA).await? - replica_before;
    let from_primary = reads(ground, FROM_PRIMARY).await? - primary_before;
    let carried = carried(replica).await?.saturating_sub(carried_before);
    let all = from_replica + from_primary;
    let is_enough = from_replica * 100 >= all * SHARE_MIN;
    let evidence = format!("{from_replica} of {all} reads came from the replica, which ended {carried} transactions");
    let first = (!is_enough).then(|| evidence.clone());
    let violations = if is_enough { 0 } else { from_primary };
    trial.promise(Check::OnPrimary, usize::try_from(violations)?, usize::try_from(all)?, first);
    trial.bite(carried > 0, evidence);
    Ok(())
}

fn judge(trial: &mut Trial<'_>, seen: Seen, since: Instant) {
    let Seen { lists, stale, requests, refused, reads } = seen;
    trial.promise(Check::ListsStale, stale.len(), lists, stale.into_iter().next());
    trial.promise(Check::Refused, refused.len(), requests, refused.into_iter().next());
    let p99 = |is_in: &dyn Fn(Instant) -> bool| {
        let mut times: Vec<_> = reads.iter().filter(|(began, _)| is_in(*began)).map(|(_, took)| *took).collect();
        times.sort();
        times.get(times.len() * 99 / 100).copied().unwrap_or_default().as_millis()
    };
    trial.told.line(&format!(
        "99 % of reads took up to {} ms before the replica was broken, and up to {} ms after",
        p99(&|began| began < since),
        p99(&|began| began >= since)
    ));
}

async fn used_again(trial: &mut Trial<'_>, what: &str) {
    let is_used = until_used(trial.ground).await.is_ok();
    trial.bite(is_used, format!("{what} is read from again"));
}

/// Waits until gateways read from the replica.
async fn until_used(ground: &Ground) -> Result<()> {
    let before = reads(ground, FROM_REPLICA).await?;
    wait::until("reads from the replica", USED_DEADLINE, || async {
        Ok((reads(ground, FROM_REPLICA).await? >= before + USED_MIN).then_some(()))
    })
    .await
}

/// Reads from the primary because the replica was away or failed.
async fn lost(ground: &Ground) -> Result<u64> {
    Ok(reads(ground, "reason=\"away\"").await? + reads(ground, "reason=\"failed\"").await?)
}

async fn reads(ground: &Ground, label: &str) -> Result<u64> {
    ground.of_gateways(READS, label).await
}

/// Transactions that the replica itself has ended in the database, all of which read.
async fn carried(replica: &Postgres) -> Result<u64> {
    let mut connection = PgConnection::connect(&replica.url()).await?;
    let question = "select xact_commit::bigint from pg_stat_database where datname = 'chat'";
    stored::number(&mut connection, question.to_owned()).await
}

async fn ask(replica: &Postgres, call: &'static str) -> Result<()> {
    let mut connection = PgConnection::connect(&replica.url()).await?;
    connection.execute(call).await?;
    Ok(connection.close().await?)
}
