//! Redis loses its keys, dies, is full, or stops answering.

use std::time::Duration;

use anyhow::Result;
use chat_shared::limits::HEARTBEAT_INTERVAL;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use tokio::time::Instant;

use super::postgres::nothing_was_refused;
use crate::{
    audit::Check,
    chaos::{ground::Ground, presence, trial::Trial},
    wait,
};

/// Gateways look for their lease every five seconds.
const NOTICE_DEADLINE: Duration = Duration::from_secs(20);
/// Connections that were closed because their inbox was lost or has come back.
const INBOX_LOST: (&str, &str) = ("chat_gateway_closed_total", "reason=\"inbox_lost\"");

/// FLUSHALL, several times.
pub async fn flushed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(5, 1);
    let ground = trial.ground;
    let since = Instant::now();
    for _ in 0..rounds {
        trial.pause(300..1500).await;
        let told_before = inboxes_lost(ground).await?;
        let mut redis = ground.redis().await?;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await?;
        trial.fault(&format!("Redis is flushed, with {keys} keys"));
        let flushed_at = Instant::now();
        let told = clients_are_told(trial, told_before).await;
        presence_is_right_again(trial, flushed_at).await;
        trial.bite(keys > 0, format!("Redis lost {keys} keys"));
        trial.bite(told > 0, format!("{told} clients were told that their inbox was lost"));
    }
    nothing_was_refused(trial, since);
    Ok(())
}

/// Within a beat of its loss, everybody is told the truth of everybody.
pub(super) async fn presence_is_right_again(trial: &mut Trial<'_>, flushed_at: Instant) {
    let left = HEARTBEAT_INTERVAL.saturating_sub(flushed_at.elapsed());
    let sights = presence::sights(trial.crowd, left).await;
    let wrong: Vec<_> = sights.iter().filter(|sight| sight.told != Some(sight.is_there)).collect();
    let took = flushed_at.elapsed().as_millis();
    let first = wrong.first().map(|sight| format!("{took} ms later {} was told {:?}", sight.watcher, sight.told));
    trial.told.line(&format!(
        "presence is right for {} of {} after {took} ms",
        sights.len() - wrong.len(),
        sights.len()
    ));
    trial.promise(Check::PresenceLate, wrong.len(), sights.len(), first);
}

/// SIGKILL, several times; it comes back empty.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(5, 1);
    let ground = trial.ground;
    let redis = &ground.servers()?.redis;
    let since = Instant::now();
    for _ in 0..rounds {
        trial.pause(300..1500).await;
        let told_before = inboxes_lost(ground).await?;
        let without_before = without_inboxes(ground).await?;
        redis.kill().await?;
        trial.fault("Redis is killed with SIGKILL");
        let most = trial.scale.of(10_000, 2500);
        trial.pause(1000..most).await;
        let without = without_inboxes(ground).await?.saturating_sub(without_before);
        redis.start().await?;
        trial.told.line("Redis is started again, empty");
        let told = clients_are_told(trial, told_before).await;
        trial.bite(without > 0, format!("{without} events were delivered without an inbox while it was dead"));
        trial.bite(told > 0, format!("{told} clients were told that their inbox was lost"));
    }
    nothing_was_refused(trial, since);
    Ok(())
}

/// It takes no writes for want of memory.
pub async fn full(trial: &mut Trial<'_>) -> Result<()> {
    let length = trial.scale.seconds(20, 4);
    let ground = trial.ground;
    trial.pause(300..1500).await;
    let since = Instant::now();
    let mut redis = ground.redis().await?;
    let (before, without_before) = (refused_for_memory(&mut redis).await?, without_inboxes(ground).await?);
    let room: String = config(&mut redis, "maxmemory").await?;
    set(&mut redis, "maxmemory", "1").await?;
    trial.fault(&format!("Redis is full for {} s: it refuses every write", length.as_secs()));
    trial.last(length).await;
    let refused = refused_for_memory(&mut redis).await? - before;
    let without = without_inboxes(ground).await?.saturating_sub(without_before);
    set(&mut redis, "maxmemory", &room).await?;
    trial.told.line("Redis has room again");
    nothing_was_refused(trial, since);
    // While a circuit breaker is open, the services send no writes that could be refused.
    trial.bite(
        refused > 0 || without > 0,
        format!("Redis refused {refused} writes for want of memory, {without} events were delivered without an inbox"),
    );
    Ok(())
}

/// SIGSTOP: connections stay open and nobody answers.
pub async fn paused(trial: &mut Trial<'_>) -> Result<()> {
    let length = trial.scale.seconds(20, 4);
    let ground = trial.ground;
    let redis = &ground.servers()?.redis;
    trial.pause(300..1500).await;
    let since = Instant::now();
    let before = without_inboxes(ground).await?;
    redis.pause()?;
    trial.fault(&format!("Redis is frozen with SIGSTOP for {} s", length.as_secs()));
    trial.last(length).await;
    let without = without_inboxes(ground).await?.saturating_sub(before);
    redis.resume()?;
    trial.told.line("Redis goes on");
    nothing_was_refused(trial, since);
    trial.bite(without > 0, format!("{without} events were delivered without an inbox meanwhile"));
    Ok(())
}

pub(super) async fn inboxes_lost(ground: &Ground) -> Result<u64> {
    ground.of_gateways(INBOX_LOST.0, INBOX_LOST.1).await
}

/// How many connections are closed for it, until all clients have been told or the time to notice is over.
pub(super) async fn clients_are_told(trial: &Trial<'_>, before: u64) -> u64 {
    let told = || async { inboxes_lost(trial.ground).await.map_or(0, |now| now.saturating_sub(before)) };
    let devices = trial.crowd.devices.len() as u64;
    // Whether all are is seen below.
    _ = wait::until("notice of the lost inboxes", NOTICE_DEADLINE, || async {
        Ok((told().await >= devices).then_some(()))
    })
    .await;
    told().await
}

async fn without_inboxes(ground: &Ground) -> Result<u64> {
    ground.fleet.notifier().counter("chat_notifier_unnumbered_total", "").await
}

/// Writes that were refused because there is no memory, by Redis' own count.
async fn refused_for_memory(redis: &mut MultiplexedConnection) -> Result<u64> {
    let info: String = redis::cmd("INFO").arg("errorstats").query_async(redis).await?;
    let counts = info.lines().filter_map(|line| line.strip_prefix("errorstat_OOM:count="));
    Ok(counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum())
}

async fn config(redis: &mut MultiplexedConnection, name: &str) -> Result<String> {
    let (_, value): (String, String) = redis::cmd("CONFIG").arg("GET").arg(name).query_async(redis).await?;
    Ok(value)
}

async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) -> Result<()> {
    let _: () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(redis).await?;
    let _: () = redis.ping().await?;
    Ok(())
}
