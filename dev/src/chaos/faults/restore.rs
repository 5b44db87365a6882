//! PostgreSQL is lost and restored from a backup beside the log, and then all servers are, as docs/operations.md says.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use chat_client::ids::UserId;
use tokio::time::{Instant, timeout};

use super::postgres::nothing_was_refused;
use crate::{
    audit::{Attempt, Check, Fate, Key, Row, stored},
    chaos::{claims::Claimed, ground::Ground, loss::Loss, trial::Trial},
    process::Process,
    wait,
};

/// How long everything may take to be stored, or stored again.
const STORED_DEADLINE: Duration = Duration::from_secs(30);
/// How long a command of an operator may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// What the owner of the tables does before services reach a backup: keys that have been destroyed since stay destroyed.
const DESTROY_DUE_KEYS: &str = "delete from content_keys where day + 98 <= (now() at time zone 'UTC')::date";

/// First PostgreSQL alone is lost, several times, and the log has what the backup lacks. Then all three servers are.
pub async fn backups(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..trial.scale.of(3, 1) {
        lose_postgres(trial).await?;
    }
    lose_everything(trial).await
}

async fn lose_postgres(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, persister) = (trial.ground, trial.ground.fleet.persister());
    let postgres = &ground.servers()?.postgres;
    let repaired_before = persister.counter("chat_persister_repaired_total", "").await?;
    let backup = postgres.back_up().await?;
    trial.told.line("a backup of PostgreSQL is made");
    // Conversations and participants that are younger than the backup.
    let people: Vec<UserId> = trial.crowd.people().iter().map(|device| device.person.user_id).collect();
    let maker = trial.crowd.people()[0].person.rest()?;
    let group = maker.create_group(people[1..4].iter().copied()).await.context("making a group")?.conversation_id;
    maker.remove_participant(group, people[3]).await.context("removing somebody")?;
    until_accepted(trial).await?;
    // A change made before the log's changes are back may be replaced by them, as the documents say.
    trial.load.end_changes().await;
    until_stored(ground).await?;
    let had = messages(ground).await?;
    let since = Instant::now();
    postgres.kill().await?;
    postgres.restore(&backup).await?;
    postgres.start().await?;
    trial.fault("PostgreSQL is killed with SIGKILL, and its backup takes its place");
    let members = || async {
        let conversation = maker.conversation(group).await.ok()?;
        Some(conversation.participants.iter().map(|participant| participant.user_id).collect::<Vec<_>>())
    };
    let is_rebuilt = wait::until("the group that is younger than the backup", STORED_DEADLINE, || async {
        Ok(members().await.filter(|members| *members == people[..3]))
    })
    .await;
    let first =
        is_rebuilt.is_err().then(|| "a group that is younger than the backup, or who takes part in it".to_owned());
    trial.promise(Check::NotStored, usize::from(is_rebuilt.is_err()), 1, first);
    // Whether all messages come back is seen by the audit.
    _ = wait::until("as many messages as before", STORED_DEADLINE, || async {
        Ok((messages(ground).await? >= had).then_some(()))
    })
    .await;
    nothing_was_refused(trial, since);
    let repaired = persister.counter("chat_persister_repaired_total", "").await? - repaired_before;
    trial.bite(repaired > 0, format!("{repaired} of {had} messages were missing in the backup, and are stored again"));
    Ok(())
}

async fn lose_everything(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, load) = (trial.ground, trial.load);
    let servers = ground.servers()?;
    let before: BTreeSet<Key> = accepted(trial);
    until_stored(ground).await?;
    let backed_up_at = Instant::now();
    let backup = servers.postgres.back_up().await?;
    trial.told.line(&format!("a backup of PostgreSQL is made in {} ms", backed_up_at.elapsed().as_millis()));
    until_accepted(trial).await?;

    for process in ground.fleet.processes() {
        process.kill().await?;
    }
    load.end();
    trial.fault("all services and servers are killed with SIGKILL, and PostgreSQL, NATS and Redis lose their data");
    let age = backed_up_at.elapsed();
    let attempts = load.ledger.attempts();
    excuse_notifications(trial, &attempts);
    servers.nats.empty()?;
    servers.redis.empty()?;

    let began = Instant::now();
    servers.postgres.restore(&backup).await?;
    servers.postgres.start().await?;
    let rows = rows(trial).await?;
    sqlx::raw_sql(DESTROY_DUE_KEYS).execute(&mut ground.postgres().await?).await?;
    servers.nats.start().await?;
    servers.redis.start().await?;
    run(&ground.fleet.persister().process().beside("persister-forget-log", &["forget-log", "--yes"], &[])).await?;
    for service in ground.fleet.services() {
        run(&service.process().beside(&format!("{}-check", service.name()), &["--check-config"], &[])).await?;
    }
    ground.fleet.start_services().await?;
    trial.told.line(&format!("all services are ready {} ms after the restore began", began.elapsed().as_millis()));

    let loss = Loss::of(&attempts, &before, &rows);
    load.ledger.forget(&loss.lost);
    let (count, age) = (loss.lost.len(), age.as_millis());
    let all = accepted(trial).len() + count;
    trial.bite(count > 0, format!("{count} of {all} messages are lost, all accepted after the backup, {age} ms old"));
    trial.loss = Some(loss);
    Ok(())
}

/// What was not notified yet is lost with the queue.
fn excuse_notifications(trial: &mut Trial<'_>, attempts: &[Attempt]) {
    let services = trial.ground.fleet.push_services();
    for phone in trial.crowd.phones() {
        let notified: BTreeSet<_> = phone.notified(services).iter().map(|it| it.message_id).collect();
        let missing = attempts.iter().map(|it| it.key.message_id).filter(|id| !notified.contains(id));
        trial.claimed.extend(missing.map(|id| Claimed::of(phone.user_id, id, phone.device_id)));
    }
}

fn accepted(trial: &Trial<'_>) -> BTreeSet<Key> {
    let attempts = trial.load.ledger.attempts().into_iter();
    attempts.filter(|it| matches!(it.fate, Fate::Accepted(_))).map(|it| it.key).collect()
}

/// Waits until so many messages are accepted that losing them is felt.
async fn until_accepted(trial: &Trial<'_>) -> Result<()> {
    let ledger = &trial.load.ledger;
    ledger.until_count(ledger.count() + trial.scale.of(60, 30)).await
}

/// Waits until everything is stored that is in the log now.
async fn until_stored(ground: &Ground) -> Result<()> {
    let end = ground.stream().await?.cached_info().state.last_sequence;
    wait::until("the acknowledgement of all that is there", STORED_DEADLINE, || async {
        Ok((ground.acknowledged().await? >= end).then_some(()))
    })
    .await
}

async fn messages(ground: &Ground) -> Result<u64> {
    stored::number(&mut ground.postgres().await?, "select count(*) from messages".to_owned()).await
}

/// What PostgreSQL has of all conversations.
async fn rows(trial: &Trial<'_>) -> Result<Vec<Row>> {
    let ids: Vec<_> = trial.crowd.rooms().iter().map(|room| room.id).collect();
    stored::rows(&mut trial.ground.postgres().await?, &ids).await
}

/// Runs a command of an operator to its end.
async fn run(process: &Process) -> Result<()> {
    process.start()?;
    let name = process.name();
    let ended = timeout(COMMAND_DEADLINE, process.exited()).await;
    let status = ended.with_context(|| format!("{name} does not end"))??;
    ensure!(status.success(), "{name} failed: {status}, see {}", process.log().display());
    Ok(())
}
