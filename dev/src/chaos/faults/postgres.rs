//! PostgreSQL goes away: cleanly and for long, or at once and again; or it comes back older.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use chat_client::ids::UserId;
use tokio::time::Instant;

use crate::{
    audit::{Check, stored},
    chaos::{ground::Ground, load::ProbeOutcome, trial::Trial},
    servers::Postgres,
    wait,
};

/// A line in the log of a server that was not stopped.
const RECOVERED: &str = "was not properly shut down";
/// Between two looks at what gateways answer meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How often PostgreSQL has recovered from a crash, by its log.
pub(super) fn recoveries(postgres: &Postgres) -> Result<usize> {
    Ok(fs::read_to_string(postgres.process().log())?.matches(RECOVERED).count())
}

/// A time without PostgreSQL.
pub(super) struct Outage {
    since: Instant,
    /// Lists of conversations that were asked for meanwhile.
    pub looks: usize,
    /// Those that were refused.
    pub refused: usize,
}

/// Stops PostgreSQL and asks for lists of conversations for so long. It is not started again.
pub(super) async fn stop_for(trial: &mut Trial<'_>, length: Duration) -> Result<Outage> {
    trial.ground.servers()?.postgres.stop().await?;
    let since = Instant::now();
    trial.fault(&format!("PostgreSQL is stopped for {} s", length.as_secs()));
    let (mut looks, mut refused) = (0, 0);
    while since.elapsed() < length {
        looks += 1;
        refused += usize::from(trial.load.probe.list_status(looks).await == Some(503));
        trial.last(LOOK_PAUSE).await;
    }
    Ok(Outage { since, looks, refused })
}

/// It is stopped for a minute.
pub async fn stopped(trial: &mut Trial<'_>) -> Result<()> {
    let length = trial.scale.seconds(60, 6);
    let postgres = &trial.ground.servers()?.postgres;
    trial.pause(200..1200).await;
    let Outage { since, looks, refused } = stop_for(trial, length).await?;
    let was_gone = !postgres.process().is_running();
    let (accepted, slowest) = (trial.load.samples.accepted_since(since), trial.load.samples.slowest_since(since));
    nothing_was_refused(trial, since);
    postgres.start().await?;
    trial.told.line("PostgreSQL is started again");
    trial.bite(was_gone && refused * 2 > looks, format!("{refused} of {looks} lists of conversations were refused"));
    trial.bite(
        accepted > 0,
        format!("{accepted} messages were accepted meanwhile, the slowest in {} ms", slowest.as_millis()),
    );
    Ok(())
}

/// It is killed, several times.
pub async fn crashed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(5, 1);
    let postgres = &trial.ground.servers()?.postgres;
    let before = recoveries(postgres)?;
    let since = Instant::now();
    for _ in 0..rounds {
        trial.pause(200..1500).await;
        postgres.kill().await?;
        trial.fault("PostgreSQL and all its backends are killed with SIGKILL");
        let most = trial.scale.of(5000, 1500);
        trial.pause(200..most).await;
        postgres.start().await?;
    }
    nothing_was_refused(trial, since);
    let recovered = recoveries(postgres)? - before;
    trial.bite(recovered == rounds, format!("{recovered} of {rounds} starts had to recover from a crash"));
    Ok(())
}

/// Messages that are acknowledged after the copy was made, and lost with the server.
const LOST_MIN: usize = 60;
/// How long everything may take to be stored again.
const REPAIR_DEADLINE: Duration = Duration::from_secs(30);

/// It is copied, goes on, is lost, and the copy takes its place; several times.
pub async fn restored(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..trial.scale.of(3, 1) {
        restored_once(trial).await?;
    }
    Ok(())
}

async fn restored_once(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, persister) = (trial.ground, trial.ground.fleet.persister());
    let postgres = &ground.servers()?.postgres;
    let repaired_before = persister.counter("chat_persister_repaired_total", "").await?;
    let copy = postgres.back_up().await?;
    trial.told.line("a copy of PostgreSQL is made");
    // Conversations and participants that are younger than the copy.
    let people: Vec<UserId> = trial.crowd.people().iter().map(|device| device.person.user_id).collect();
    let maker = trial.crowd.people()[0].person.rest()?;
    let group = maker.create_group(people[1..4].iter().copied()).await.context("making a group")?.conversation_id;
    maker.remove_participant(group, people[3]).await.context("removing somebody")?;
    let accepted = trial.load.ledger.count();
    trial.load.ledger.until_count(accepted + LOST_MIN).await?;
    // A change made before the log's changes are back may be replaced by them, as the documents say.
    trial.load.end_changes().await;
    let end = ground.stream().await?.cached_info().state.last_sequence;
    wait::until("the acknowledgement of all that was there", REPAIR_DEADLINE, || async {
        Ok((ground.acknowledged().await? >= end).then_some(()))
    })
    .await?;
    let had = messages(ground).await?;
    let since = Instant::now();
    postgres.kill().await?;
    postgres.restore(&copy).await?;
    postgres.start().await?;
    trial.fault("PostgreSQL is killed with SIGKILL, and its copy takes its place");
    let members = || async {
        let conversation = maker.conversation(group).await.ok()?;
        Some(conversation.participants.iter().map(|participant| participant.user_id).collect::<Vec<_>>())
    };
    let is_rebuilt = wait::until("the group that is younger than the copy", REPAIR_DEADLINE, || async {
        Ok(members().await.filter(|members| *members == people[..3]))
    })
    .await;
    let first =
        is_rebuilt.is_err().then(|| "a group that is younger than the copy, or who takes part in it".to_owned());
    trial.promise(Check::NotStored, usize::from(is_rebuilt.is_err()), 1, first);
    // Whether all messages come back is seen by the audit.
    _ = wait::until("as many messages as before", REPAIR_DEADLINE, || async {
        Ok((messages(ground).await? >= had).then_some(()))
    })
    .await;
    nothing_was_refused(trial, since);
    let repaired = persister.counter("chat_persister_repaired_total", "").await? - repaired_before;
    trial.bite(repaired > 0, format!("{repaired} of {had} messages were missing in the copy, and are stored again"));
    Ok(())
}

async fn messages(ground: &Ground) -> Result<u64> {
    stored::number(&mut ground.postgres().await?, "select count(*) from messages".to_owned()).await
}

/// Sending needs neither PostgreSQL nor Redis: whatever else than an acceptance an attempt gets, silence too, is wrong.
pub fn nothing_was_refused(trial: &mut Trial<'_>, since: Instant) {
    let (accepted, attempts) = trial.load.probe.since(since, ProbeOutcome::Accepted);
    let refused = attempts - accepted;
    let first = (refused > 0).then(|| "refused or not answered, though the log was there".to_owned());
    trial.promise(Check::Refused, refused, attempts, first);
}
