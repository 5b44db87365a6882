//! The persister is killed on either side of its commit, at the very moment: a lock holds its transaction up, and a line
//! that falls silent keeps its acknowledgements from NATS.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Executor, PgConnection};

use crate::{
    audit::stored,
    chaos::{
        ground::{Ground, Progress},
        trial::Trial,
    },
    wait,
};

/// How long the persister may take to run into the lock. Less than a statement may last.
const WAITING_DEADLINE: Duration = Duration::from_secs(4);
/// How long the commit may take once the lock is gone.
const COMMIT_DEADLINE: Duration = Duration::from_secs(4);
/// NATS delivers what was not acknowledged again after 15 s.
const REDELIVERY_DEADLINE: Duration = Duration::from_secs(40);

/// Keeps everybody from inserting messages, and nobody from reading them.
const LOCK: &str = "begin; lock table messages in share row exclusive mode";

/// Backends of the persister that wait for a lock.
const WAITING: &str =
    "select count(*) from pg_stat_activity where application_name = 'chat-persister' and wait_event_type = 'Lock'";

/// Killed before the commit, and between the commit and the acknowledgement.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(5, 1);
    for _ in 0..rounds {
        before_commit(trial).await?;
        trial.pause(500..1500).await;
        let left = between_commit_and_ack(trial).await?;
        delivered_again(trial, left).await?;
        trial.pause(500..1500).await;
    }
    Ok(())
}

/// What the dead persisters had not acknowledged comes again: those entries too that the one before had in hand.
async fn delivered_again(trial: &mut Trial<'_>, left: Progress) -> Result<()> {
    let (ground, unsettled) = (trial.ground, left.unsettled);
    let again = || async { anyhow::Ok(ground.progress(true).await?.redeliveries.saturating_sub(left.redeliveries)) };
    // Whether all come is seen below.
    _ = wait::until("redelivery", REDELIVERY_DEADLINE, || async { Ok((again().await? >= unsettled).then_some(())) })
        .await;
    let again = again().await?;
    trial.bite(
        again >= unsettled && unsettled > 0,
        format!("{again} entries were delivered again, of {unsettled} that the dead persisters had not acknowledged"),
    );
    Ok(())
}

async fn before_commit(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, persister) = (trial.ground, trial.ground.fleet.persister());
    let lock = hold_up(trial).await?;
    let unsettled = ground.progress(true).await?.unsettled;
    persister.kill().await?;
    drop(lock);
    trial.fault(&format!("the persister is killed with SIGKILL before its commit, with {unsettled} entries in hand"));
    persister.start_ready().await?;
    trial.bite(unsettled > 0, format!("it died with {unsettled} entries in hand that were not stored"));
    Ok(())
}

/// Gives how far the log's consumer was as the persister died.
async fn between_commit_and_ack(trial: &mut Trial<'_>) -> Result<Progress> {
    let (ground, persister) = (trial.ground, trial.ground.fleet.persister());
    let mut lock = hold_up(trial).await?;
    ground.persister_line.silence();
    let count = || async { messages(&mut ground.postgres().await?).await };
    let before = count().await?;
    lock.execute("rollback").await?;
    let stored = wait::until("the commit", COMMIT_DEADLINE, || async {
        Ok(Some(count().await? - before).filter(|stored| *stored > 0))
    })
    .await;
    persister.kill().await?;
    ground.persister_line.cut();
    let stored = stored.unwrap_or_default();
    trial.fault(&format!(
        "the persister is killed with SIGKILL after it has committed {stored} messages and before NATS knows"
    ));
    let left = ground.progress(true).await?;
    persister.start_ready().await?;
    trial.bite(
        stored > 0 && left.unsettled >= stored,
        format!("it died with {stored} messages committed and {} entries not acknowledged", left.unsettled),
    );
    Ok(left)
}

/// Locks the table and waits until the persister waits for it. The lock lasts as long as the connection.
async fn hold_up(trial: &Trial<'_>) -> Result<PgConnection> {
    let ground = trial.ground;
    let mut lock = ground.postgres().await?;
    lock.execute(LOCK).await?;
    trial.load.whisper();
    wait::until("a transaction of the persister that waits", WAITING_DEADLINE, || async {
        Ok((is_waiting(ground).await?).then_some(()))
    })
    .await?;
    Ok(lock)
}

async fn is_waiting(ground: &Ground) -> Result<bool> {
    Ok(stored::number(&mut ground.postgres().await?, WAITING.to_owned()).await? > 0)
}

async fn messages(connection: &mut PgConnection) -> Result<u64> {
    stored::number(connection, "select count(*) from messages".to_owned()).await
}
