//! Of three NATS servers the one that leads the log is killed.

use std::time::Duration;

use anyhow::{Context, Result};
use chat_shared::log::stream_name;
use tokio::time::Instant;

use crate::{
    chaos::{ground::Ground, load::ProbeOutcome, trial::Trial},
    servers::{Nats, nats::CLUSTER_SIZE},
    wait,
};

/// How long the others may take to choose another.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);
/// How long one that came back may take to have what it missed.
const CATCH_UP_DEADLINE: Duration = Duration::from_mins(1);

/// Several times, with the killed one back before the next dies.
pub async fn leader_killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(6, 2);
    let ground = trial.ground;
    until_all_have_it(ground).await.context("before anything was broken")?;
    trial.bite(true, format!("{CLUSTER_SIZE} servers hold the log"));
    for _ in 0..rounds {
        trial.pause(300..1500).await;
        let leader = leader(ground).await?.context("nobody leads the log")?;
        let since = Instant::now();
        leader.kill().await?;
        trial.fault(&format!("{}, which leads the log, is killed with SIGKILL", leader.process().name()));
        let next = wait::until("another leader of the log", ELECTION_DEADLINE, || async {
            // While they elect one, nobody may answer.
            let next = self::leader(ground).await.ok().flatten();
            Ok(next.filter(|next| next.server_name() != leader.server_name()))
        })
        .await?;
        let elected = since.elapsed();
        let accepted = wait::until("an accepted attempt", ELECTION_DEADLINE, || async {
            let (accepted, _) = trial.load.probe.since(since + elected, ProbeOutcome::Accepted);
            Ok((accepted > 0).then_some(accepted))
        })
        .await;
        trial.bite(
            accepted.is_ok(),
            format!(
                "{} leads after {} ms, and messages are accepted with two of three servers",
                next.process().name(),
                elected.as_millis()
            ),
        );
        trial.pause(0..2000).await;
        leader.start().await?;
        until_all_have_it(ground).await?;
        trial.told.line(&format!("{} is back and has caught up", leader.process().name()));
    }
    Ok(())
}

/// The server that leads the log's stream.
async fn leader(ground: &Ground) -> Result<Option<&Nats>> {
    let info = ground.jetstream().await?.get_stream(stream_name(ground.fleet.namespace())).await?.get_info().await?;
    let name = info.cluster.and_then(|cluster| cluster.leader);
    let is_it = |nats: &&Nats| name.as_deref() == Some(nats.server_name());
    Ok(ground.servers()?.all_nats().find(is_it))
}

async fn until_all_have_it(ground: &Ground) -> Result<()> {
    wait::until("a whole copy of the log on all servers", CATCH_UP_DEADLINE, || async {
        Ok(copies(ground).await.is_ok_and(|copies| copies == CLUSTER_SIZE).then_some(()))
    })
    .await
}

/// How many servers have all of the log.
async fn copies(ground: &Ground) -> Result<usize> {
    let info = ground.stream().await?.get_info().await?;
    let cluster = info.cluster.context("the log is in no cluster")?;
    Ok(1 + cluster.replicas.iter().filter(|replica| replica.current && !replica.offline).count())
}
