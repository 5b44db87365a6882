//! Days age out while retention is killed, PostgreSQL crashes, readers hold locks, and a message of such a day comes late.
//!
//! Retention looks once a minute, and at once when it starts: so each start is a look.

use std::{ops::Range, os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::time::Instant;

use super::postgres::{nothing_was_refused, recoveries};
use crate::{
    audit::{GONE_FROM, stored},
    chaos::{
        ground::Ground,
        past::{LETTERS_KEPT, Past},
        trial::Trial,
    },
    process::{Process, Signal},
    wait,
};

/// How long devices may take to show all that there is of the past.
const SHOWN_DEADLINE: Duration = Duration::from_secs(30);
/// How long retention may take until it runs into a lock that is held all the time.
const REFUSED_DEADLINE: Duration = Duration::from_secs(20);
/// How long all that is due may take, once nothing is broken any more.
const AGED_DEADLINE: Duration = Duration::from_secs(90);
/// How long one look of retention may take before it is started again, for the next one.
const LOOK: Duration = Duration::from_secs(4);
/// How long trying dead letters again may take.
const REPLAYED_DEADLINE: Duration = Duration::from_secs(30);
/// After a start: from before its first statement to its last.
const KILLED_AFTER_MS: Range<u64> = 30..600;
/// Early enough for most days to be left.
const CRASHED_AFTER_MS: Range<u64> = 30..300;
/// Attempts of retention that did not get a lock.
const ATTEMPTS: (&str, &str) = ("chat_retention_lock_attempts_total", "refused");
/// The day whose partition a reader holds while it is to be soft-deleted, and while it is to be removed.
const HELD_DAYS_AGO: [i32; 2] = [91, 99];

/// Days with steps that are left, those that wait for transactions to end too.
const DAYS_LEFT: &str = "select count(*) from message_days \
                         where state = 'retiring' or day in (select day from due_day_steps())";
/// Soft-deletes days a week earlier, from which the second limit counts too.
const A_WEEK_LATER: &str = "update message_days set soft_deleted_at = soft_deleted_at - interval '7 days' \
                            where state = 'deleted' and day <= message_today() - ";

/// Kills of retention so far.
#[derive(Default)]
struct Felt {
    kills: usize,
    /// Those that ended a process by the signal while days were left.
    at_work: usize,
}

/// All of it: soft deletion, and a week later what remains.
pub async fn aged_out(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let past = trial.past.take().context("there is no past")?;
    until_shown(trial, past).await?;
    trial.dead_letters_expected = LETTERS_KEPT;
    let since = Instant::now();
    let twin = ground.fleet.retention().process().beside("retention-2", &[], &[("CHAT_METRICS_LISTEN", "127.0.0.1:0")]);
    let mut felt = Felt::default();
    let kills = trial.scale.of(8, 2);
    trial.told.line(&format!("{} days are due", days_left(ground).await?));

    crash_postgres(trial).await?;
    let reader = hold(trial, past, HELD_DAYS_AGO[0]).await?;
    kill_one_of_two(trial, &twin, &mut felt).await?;
    kill(trial, &mut felt, kills).await?;
    release(trial, reader).await?;
    until_aged(trial).await?;
    trial.told.line("all that is due is soft-deleted");
    come_late(trial, past).await?;

    a_week_later(ground, GONE_FROM + 1).await?;
    let reader = hold(trial, past, HELD_DAYS_AGO[1]).await?;
    kill_one_of_two(trial, &twin, &mut felt).await?;
    kill(trial, &mut felt, kills).await?;
    release(trial, reader).await?;
    until_aged(trial).await?;
    // The last day goes by itself, once no transaction is left that began before the other keys were destroyed.
    a_week_later(ground, GONE_FROM).await?;
    until_aged(trial).await?;

    nothing_was_refused(trial, since);
    let Felt { kills, at_work } = felt;
    trial.bite(at_work == kills, format!("{at_work} of {kills} kills of retention came while days were left"));
    let (in_files, copies) = past.copies();
    trial.bite(
        in_files > 0 && copies == 2,
        format!(
            "a text of {GONE_FROM} days ago was read from its row and the log, and stood {in_files} times in files"
        ),
    );
    Ok(())
}

/// Waits until all devices have shown the messages of the past: a client skips those that it misses until they age out.
async fn until_shown(trial: &Trial<'_>, past: &Past) -> Result<()> {
    wait::until("showing the past", SHOWN_DEADLINE, || async {
        let is_shown = trial.crowd.devices.iter().all(|device| {
            let diary = device.person.diary();
            past.shown(device.person.user_id).all(|(conversation_id, message_id)| {
                diary.messages(conversation_id).iter().any(|message| message.message_id == message_id)
            })
        });
        Ok(is_shown.then_some(()))
    })
    .await
}

/// Starts retention and kills it a moment later, several times.
async fn kill(trial: &mut Trial<'_>, felt: &mut Felt, times: usize) -> Result<()> {
    let retention = trial.ground.fleet.retention().process();
    for _ in 0..times {
        if !retention.is_running() {
            retention.start()?;
        }
        trial.pause(KILLED_AFTER_MS).await;
        strike(trial, retention, felt).await?;
    }
    Ok(())
}

async fn strike(trial: &mut Trial<'_>, process: &Process, felt: &mut Felt) -> Result<()> {
    process.kill().await?;
    let left = days_left(trial.ground).await?;
    trial.fault(&format!("{} is killed with SIGKILL, with {left} days left", process.name()));
    felt.kills += 1;
    felt.at_work += usize::from(left > 0 && process.exited().await?.signal() == Some(Signal::KILL.as_raw()));
    Ok(())
}

/// Two at once, of which one is killed.
async fn kill_one_of_two(trial: &mut Trial<'_>, twin: &Process, felt: &mut Felt) -> Result<()> {
    let retention = trial.ground.fleet.retention().process();
    retention.kill().await?;
    retention.start()?;
    twin.start()?;
    trial.told.line("two retention services work at once");
    trial.pause(KILLED_AFTER_MS).await;
    let (first, second) = if trial.rng.random() { (retention, twin) } else { (twin, retention) };
    strike(trial, first, felt).await?;
    trial.pause(KILLED_AFTER_MS).await;
    second.kill().await
}

/// PostgreSQL dies while retention works.
async fn crash_postgres(trial: &mut Trial<'_>) -> Result<()> {
    let (postgres, retention) = (&trial.ground.servers()?.postgres, trial.ground.fleet.retention());
    let before = recoveries(postgres)?;
    retention.start()?;
    trial.pause(CRASHED_AFTER_MS).await;
    let left = days_left(trial.ground).await?;
    postgres.kill().await?;
    trial.fault(&format!("PostgreSQL and all its backends are killed with SIGKILL, with {left} days left"));
    trial.pause(200..1500).await;
    postgres.start().await?;
    let recovered = recoveries(postgres)? - before;
    trial.bite(recovered == 1 && left > 0, format!("PostgreSQL recovered from a crash with {left} days left"));
    retention.kill().await
}

/// A dead letter of a day that is soft-deleted is stored after all, as an operator has it tried again.
async fn come_late(trial: &mut Trial<'_>, past: &mut Past) -> Result<()> {
    let ground = trial.ground;
    past.bury_late_one(ground).await?;
    let replay = ground.fleet.persister().process().beside("persister-replay", &["replay"], &[]);
    replay.start()?;
    let status =
        tokio::time::timeout(REPLAYED_DEADLINE, replay.exited()).await.context("the replay does not end")??;
    ensure!(status.success(), "the replay failed: {status}");
    let left = "select count(*) from dead_letters where stream_name like 'late %'".to_owned();
    let left = stored::number(&mut ground.postgres().await?, left).await?;
    trial.fault("a dead letter of a day that is soft-deleted is tried again");
    trial.bite(left == 0, "a dead letter of a day that is soft-deleted was stored");
    Ok(())
}

/// A reader holds the partition of a day, one of whose steps needs it alone, so that it is not done before the release.
async fn hold(trial: &Trial<'_>, past: &Past, days_ago: i32) -> Result<PgConnection> {
    let mut reader = trial.ground.postgres().await?;
    let statement = format!("begin; lock table {} in access share mode", past.partition(days_ago));
    reader.execute(AssertSqlSafe(statement)).await?;
    trial.fault(&format!("a reader holds the messages of {days_ago} days ago"));
    Ok(reader)
}

/// Retention runs into the lock of a reader for a while, and then the reader goes.
async fn release(trial: &mut Trial<'_>, mut reader: PgConnection) -> Result<()> {
    let retention = trial.ground.fleet.retention();
    retention.kill().await?;
    retention.start_ready().await?;
    let refused = || async { retention.counter(ATTEMPTS.0, ATTEMPTS.1).await };
    // Whether it is refused is seen below.
    _ = wait::until("an attempt that gets no lock", REFUSED_DEADLINE, || async {
        Ok((refused().await? > 0).then_some(()))
    })
    .await;
    trial.last(trial.scale.seconds(5, 1)).await;
    let refused = refused().await?;
    trial.bite(refused > 0, format!("{refused} attempts of retention got no lock while a reader held a day"));
    reader.execute("rollback").await?;
    retention.kill().await
}

/// Lets retention look until nothing is due, and leaves it running. What is not done in time is seen by the audit.
async fn until_aged(trial: &Trial<'_>) -> Result<()> {
    let (ground, retention) = (trial.ground, trial.ground.fleet.retention());
    let end = Instant::now() + AGED_DEADLINE;
    loop {
        retention.kill().await?;
        retention.start_ready().await?;
        let aged = wait::until("ageing out", LOOK, || async { Ok((days_left(ground).await? == 0).then_some(())) });
        if aged.await.is_ok() || Instant::now() >= end {
            return Ok(());
        }
    }
}

/// As the owner, lets a week have passed since the soft deletion of days that are so old. Retention does not run meanwhile.
async fn a_week_later(ground: &Ground, days_ago: i32) -> Result<()> {
    ground.fleet.retention().kill().await?;
    ground.postgres().await?.execute(AssertSqlSafe(format!("{A_WEEK_LATER}{days_ago}"))).await?;
    Ok(())
}

async fn days_left(ground: &Ground) -> Result<u64> {
    stored::number(&mut ground.postgres().await?, DAYS_LEFT.to_owned()).await
}
