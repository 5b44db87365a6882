//! Redis comes back older, another server takes its place, or connections to it lead nowhere.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{
    postgres::nothing_was_refused,
    redis::{clients_are_told, inboxes_lost, presence_is_right_again},
};
use crate::{
    chaos::{ground::Ground, trial::Trial},
    ports::Ports,
    servers::{Binaries, Redis},
    wait,
};

/// For how long Redis is written to what it loses.
const LOST_WRITES: Duration = Duration::from_secs(2);
/// Single messages after the change.
const WHISPERS: usize = 8;
/// How long services may take to find the right server.
const HEAL_DEADLINE: Duration = Duration::from_secs(15);
/// Why connections to a server end that has become a replica, and loads what it copies.
const WRONG_SERVER: &[&str] = &["read_only", "loading", "master_down"];
/// Why connections end that answer nothing.
const SILENT: &[&str] = &["silent"];
/// A port at which nothing listens.
const NOWHERE: [&str; 3] = ["REPLICAOF", "127.0.0.1", "1"];
const NO_REPLICA: [&str; 3] = ["REPLICAOF", "NO", "ONE"];

/// A dump, more writes, SIGKILL, and the dump.
pub async fn older(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let redis = &ground.servers()?.redis;
    trial.pause(300..1500).await;
    let told_before = inboxes_lost(ground).await?;
    let loads_before = loads(redis)?;
    redis.says(&["SAVE"]).await?;
    let saved = entries(redis).await?;
    trial.told.line(&format!("Redis has written its dump, with {saved} entries given to inboxes so far"));
    trial.last(LOST_WRITES).await;
    let lost = entries(redis).await?.saturating_sub(saved);
    let since = Instant::now();
    redis.kill().await?;
    trial.fault(&format!("Redis is killed with SIGKILL and comes back with its dump, without {lost} entries"));
    redis.start().await?;
    // Whoever starts it next wants it empty.
    std::fs::remove_file(redis.data_dir().join("dump.rdb")).context("the dump")?;
    let has_loaded = loads(redis)? > loads_before;
    trial.bite(has_loaded && lost > 0, format!("Redis came back with its dump and without {lost} entries"));
    all_is_told(trial, told_before, since).await;
    Ok(())
}

/// A replica that has missed writes is the primary from now on.
pub async fn promoted(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let redis = &ground.servers()?.redis;
    let replica = redis.start_replica(&Binaries::find_or_fetch().await?, &Ports::fresh()).await?;
    trial.pause(300..1500).await;
    let told_before = inboxes_lost(ground).await?;
    replica.says(&NOWHERE).await?;
    trial.last(LOST_WRITES).await;
    let lost = entries(redis).await?.saturating_sub(entries(&replica).await?);
    let since = Instant::now();
    replica.says(&NO_REPLICA).await?;
    ground.notifier_line.lead_to(Some(replica.address()));
    redis.kill().await?;
    trial
        .fault(&format!("Redis is killed with SIGKILL, and a replica without the last {lost} entries takes its place"));
    trial.bite(lost > 0, format!("the replica lacked {lost} entries"));
    all_is_told(trial, told_before, since).await;
    back(trial, &replica).await
}

/// The server of all connections becomes a replica of the one that the address leads to.
pub async fn read_only(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let redis = &ground.servers()?.redis;
    let other = redis.start_replica(&Binaries::find_or_fetch().await?, &Ports::fresh()).await?;
    trial.pause(300..1500).await;
    let ended_before = links_ended(ground, WRONG_SERVER).await?;
    let since = Instant::now();
    other.says(&NO_REPLICA).await?;
    ground.notifier_line.lead_to(Some(other.address()));
    redis.follow(&other).await?;
    trial.fault("Redis becomes a replica of the server to which its address leads now");
    services_leave(trial, WRONG_SERVER, ended_before, since).await?;
    back(trial, &other).await
}

/// Connections stay open and move no byte.
pub async fn silent(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    trial.pause(300..1500).await;
    let ended_before = links_ended(ground, SILENT).await?;
    let since = Instant::now();
    ground.notifier_line.silence();
    trial.fault("all connections to Redis fall silent");
    services_leave(trial, SILENT, ended_before, since).await?;
    ground.notifier_line.cut();
    nothing_was_refused(trial, since);
    Ok(())
}

/// Clients learn that their inboxes are lost, and presence is right within a beat; single messages come meanwhile.
async fn all_is_told(trial: &mut Trial<'_>, told_before: u64, since: Instant) {
    for _ in 0..WHISPERS {
        trial.load.whisper();
    }
    let told = clients_are_told(trial, told_before).await;
    trial.bite(told > 0, format!("{told} clients were told that their inbox was lost"));
    presence_is_right_again(trial, since).await;
    nothing_was_refused(trial, since);
}

/// Every service ends its connection for this reason, and events enter inboxes again.
async fn services_leave(trial: &mut Trial<'_>, reasons: &[&str], ended_before: u64, since: Instant) -> Result<()> {
    let ground = trial.ground;
    for _ in 0..WHISPERS {
        trial.load.whisper();
    }
    let services = ground.fleet.gateways().len() as u64 + 1;
    let left = wait::until("all services to leave a connection that leads nowhere", HEAL_DEADLINE, || async {
        let ended = links_ended(ground, reasons).await?.saturating_sub(ended_before);
        Ok((ended >= services).then_some(ended))
    })
    .await;
    let routed_before = routed(ground).await?;
    let again = wait::until("events in inboxes", HEAL_DEADLINE, || async {
        Ok((routed(ground).await? > routed_before).then_some(()))
    })
    .await;
    let (is_felt, took) = (left.is_ok() && again.is_ok(), since.elapsed().as_millis());
    let left = left.unwrap_or_default();
    let why = reasons.join(" or ");
    trial.bite(is_felt, format!("{left} connections were ended as {why}, and all was well after {took} ms"));
    Ok(())
}

/// The first server comes back, empty, and the other one ends.
async fn back(trial: &Trial<'_>, other: &Redis) -> Result<()> {
    let redis = &trial.ground.servers()?.redis;
    redis.kill().await?;
    // Replication may have left a copy.
    _ = std::fs::remove_file(redis.data_dir().join("dump.rdb"));
    redis.start().await?;
    trial.ground.notifier_line.lead_to(Some(redis.address()));
    other.kill().await?;
    trial.told.line("the address leads to the first server again, which is empty");
    Ok(())
}

/// How many entries were ever given to the inboxes that a server has.
async fn entries(redis: &Redis) -> Result<u64> {
    let inboxes: Vec<String> = redis.ask(&["KEYS", "*:meta"]).await?;
    let mut sum = 0;
    for inbox in inboxes {
        sum += redis.ask::<Option<u64>>(&["HGET", &inbox, "head"]).await?.unwrap_or(0);
    }
    Ok(sum)
}

async fn links_ended(ground: &Ground, reasons: &[&str]) -> Result<u64> {
    const METRIC: &str = "chat_redis_links_ended_total";
    let mut sum = 0;
    for reason in reasons {
        let label = format!("reason=\"{reason}\"");
        sum += ground.of_gateways(METRIC, &label).await?;
        sum += ground.fleet.notifier().counter(METRIC, &label).await?;
    }
    Ok(sum)
}

async fn routed(ground: &Ground) -> Result<u64> {
    ground.fleet.notifier().counter("chat_notifier_routed_total", "").await
}

/// How often a server has loaded a dump, by its log.
fn loads(redis: &Redis) -> Result<usize> {
    let directory = redis.data_dir().parent().context("servers work in a directory")?;
    Ok(std::fs::read_to_string(directory.join("redis.log"))?.matches("DB loaded from disk").count())
}
