//! Old texts move to an object store that fails in all ways, while the worker is killed and messages come late.
//!
//! The worker looks once a minute, and at once when it starts: so each start is a look.

use std::{ops::Range, os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result};
use hyper::Method;
use sqlx::Executor;
use tokio::time::Instant;

use crate::{
    audit::{Check, stored},
    chaos::{
        ground::{Ground, StoreProxies},
        old_texts::{DAYS_AGO, OldTexts, Paged},
        trial::Trial,
    },
    fleet::Service,
    process::Signal,
    store_proxy::StoreFault,
    wait,
};

/// What requests of the worker run into, and how many have to.
const FAULTS_OF_WORKER: [(StoreFault, Method, u64); 5] = [
    (StoreFault::Refused, Method::PUT, 2),
    // It holds the request for as long as the worker waits.
    (StoreFault::Stalled, Method::PUT, 1),
    (StoreFault::FailedAfter, Method::PUT, 2),
    (StoreFault::Cut, Method::GET, 2),
    (StoreFault::OtherBytes, Method::GET, 2),
];
/// What requests of gateways run into.
const FAULTS_OF_GATEWAYS: [StoreFault; 4] =
    [StoreFault::Refused, StoreFault::Stalled, StoreFault::Cut, StoreFault::FailedAfter];
/// How long the worker may take to run into a fault.
const FELT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a step of all days may take, once nothing is broken any more.
const MOVED_DEADLINE: Duration = Duration::from_mins(1);
/// How long one look of the worker may take before it is started again, for the next one.
const LOOK: Duration = Duration::from_secs(4);
/// After a start: from before its first statement to its last.
const KILLED_AFTER_MS: Range<u64> = 30..500;
/// After a request has failed.
const KILLED_AFTER_FAULT_MS: Range<u64> = 20..300;

/// Ends the leases of workers that were killed, as five minutes do.
const END_LEASES: &str = "update cold_days set held_until = now() where swapped_at is null or dropped_at is null";
/// A day has passed since texts moved.
const A_DAY_LATER: &str = "update cold_days set swapped_at = swapped_at - interval '25 hours'";
const PACKS: &str = "select count(*) from cold_packs";
const COPIED: &str = "select count(*) from cold_days where copied_at is not null";
const SWAPPED: &str = "select count(*) from cold_days where swapped_at is not null";
const DROPPED: &str = "select count(*) from cold_days where dropped_at is not null";

/// The worker, and its kills so far.
struct Worker<'a> {
    service: &'a Service,
    proxies: &'a StoreProxies,
    kills: usize,
    /// Those that ended the process by the signal.
    by_signal: usize,
}

/// All of it: the move with a store that fails, the move while the worker is killed, dropping the rows with texts, and reading.
pub async fn moved(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let texts = trial.old_texts.take().context("there are no old texts")?;
    let service = ground.fleet.cold().context("the fleet has no cold worker")?;
    let proxies = ground.store_proxies.as_ref().context("nothing stands before the store")?;
    let mut worker = Worker { service, proxies, kills: 0, by_signal: 0 };
    for (fault, method, times) in FAULTS_OF_WORKER {
        break_store(trial, &mut worker, fault, method, times, PACKS, "packs are recorded").await?;
    }
    come_late(trial, texts).await?;
    kill_while_held(trial, &mut worker, texts).await?;
    worker.start(ground).await?;
    trial.pause(KILLED_AFTER_MS).await;
    worker.strike(trial).await?;
    worker.until(ground, SWAPPED).await?;
    let written = proxies.of_worker.writes();
    let packs = count(ground, PACKS).await?;
    trial.bite(packs > 0, format!("{packs} packs are stored, after {written} requests to store one"));

    worker.service.kill().await?;
    ground.postgres().await?.execute(A_DAY_LATER).await?;
    let (fault, method) = (StoreFault::OtherBytes, Method::GET);
    break_store(trial, &mut worker, fault, method, 2, DROPPED, "days have dropped their rows with texts").await?;
    worker.until(ground, DROPPED).await?;
    trial.told.line("old texts are only in the object store");

    page_without_store(trial, &worker, texts).await?;
    let Worker { kills, by_signal, .. } = worker;
    trial.bite(by_signal == kills, format!("{by_signal} of {kills} kills ended the cold worker"));
    Ok(())
}

/// The worker runs into a fault of the store, is killed, and must not have gone on meanwhile.
async fn break_store(
    trial: &mut Trial<'_>,
    worker: &mut Worker<'_>,
    fault: StoreFault,
    method: Method,
    times: u64,
    gone_on: &str,
    what: &str,
) -> Result<()> {
    let (ground, proxy) = (trial.ground, &worker.proxies.of_worker);
    let (faults, before) = (proxy.faults(), count(ground, gone_on).await?);
    proxy.fail(fault, Some(method.clone()));
    trial.fault(&format!("requests of the cold worker with {method} run into: {fault:?}"));
    worker.start(ground).await?;
    // Whether it runs into it is seen below.
    _ = wait::until("a request that fails", FELT_DEADLINE, || async {
        Ok((proxy.faults() >= faults + times).then_some(()))
    })
    .await;
    trial.pause(KILLED_AFTER_FAULT_MS).await;
    worker.strike(trial).await?;
    let felt = proxy.faults() - faults;
    let proxy = &worker.proxies.of_worker;
    proxy.heal();
    trial.bite(felt >= times, format!("{felt} requests of the cold worker with {method} ran into: {fault:?}"));
    let wrong = count(ground, gone_on).await?.saturating_sub(before);
    let first = (wrong > 0).then(|| format!("{wrong} {what} though requests with {method} ran into: {fault:?}"));
    trial.promise(Check::TextsLost, usize::try_from(wrong)?, DAYS_AGO.len(), first);
    Ok(())
}

/// The worker is killed at random moments while a reader keeps it from the last step. Messages come late once rows are copied.
async fn kill_while_held(trial: &mut Trial<'_>, worker: &mut Worker<'_>, texts: &mut OldTexts) -> Result<()> {
    let ground = trial.ground;
    let mut reader = ground.postgres().await?;
    reader.execute("begin; lock table only messages in access share mode").await?;
    trial.fault("a reader holds the table of messages");
    for _ in 0..trial.scale.of(10, 3) {
        worker.start(ground).await?;
        trial.pause(KILLED_AFTER_MS).await;
        worker.strike(trial).await?;
    }
    worker.until(ground, COPIED).await?;
    come_late(trial, texts).await?;
    come_late(trial, texts).await?;
    worker.service.kill().await?;
    let swapped = count(ground, SWAPPED).await?;
    trial.bite(swapped == 0, format!("{swapped} days had moved while a reader held the table of messages"));
    reader.execute("rollback").await?;
    Ok(())
}

async fn come_late(trial: &mut Trial<'_>, texts: &mut OldTexts) -> Result<()> {
    let days_ago = texts.come_late(trial.ground).await?;
    trial.fault(&format!("a message of {days_ago} days ago comes while its day moves"));
    Ok(())
}

/// People page through old history while gateways can't read the store: pages are refused or shorter, and never wrong.
async fn page_without_store(trial: &mut Trial<'_>, worker: &Worker<'_>, texts: &OldTexts) -> Result<()> {
    let proxy = &worker.proxies.of_gateways;
    texts.read_oldest_day().await.context("reading the oldest day")?;
    let mut all = Paged::default();
    for fault in FAULTS_OF_GATEWAYS {
        let faults = proxy.faults();
        proxy.fail(fault, None);
        trial.fault(&format!("requests of gateways to the store run into: {fault:?}"));
        let paged = texts.page_through(Instant::now() + trial.scale.seconds(10, 1)).await;
        let felt = proxy.faults() - faults;
        trial.bite(
            felt > 0 && paged.refused > 0,
            format!("{felt} requests of gateways ran into: {fault:?}; {} pages were refused", paged.refused),
        );
        all = all.and(paged);
    }
    proxy.heal();
    trial.bite(
        all.shorter > 0,
        format!(
            "{} pages were answered without the store, {} of them shorter than asked for",
            all.answered, all.shorter
        ),
    );
    let of = all.answered + all.refused;
    trial.promise(Check::PagesWrong, all.wrong.len(), of.max(all.wrong.len()), all.wrong.into_iter().next());
    Ok(())
}

impl Worker<'_> {
    /// Starts it, (again) with nothing that another one holds.
    async fn start(&self, ground: &Ground) -> Result<()> {
        self.service.kill().await?;
        ground.postgres().await?.execute(END_LEASES).await?;
        self.service.start()
    }

    async fn strike(&mut self, trial: &Trial<'_>) -> Result<()> {
        self.service.kill().await?;
        let left = DAYS_AGO.len() as u64 - count(trial.ground, SWAPPED).await?;
        trial.fault(&format!("the cold worker is killed with SIGKILL, with {left} days that have not moved"));
        self.kills += 1;
        self.by_signal += usize::from(self.service.process().exited().await?.signal() == Some(Signal::KILL.as_raw()));
        Ok(())
    }

    /// Lets it look until a step is done of all days, and leaves it running. What is not done in time is seen by the audit.
    async fn until(&self, ground: &Ground, done: &str) -> Result<()> {
        let (all, end) = (DAYS_AGO.len() as u64, Instant::now() + MOVED_DEADLINE);
        loop {
            self.start(ground).await?;
            let moved = wait::until("moving old texts", LOOK, || async {
                Ok((count(ground, done).await? >= all).then_some(()))
            });
            if moved.await.is_ok() || Instant::now() >= end {
                return Ok(());
            }
        }
    }
}

async fn count(ground: &Ground, statement: &str) -> Result<u64> {
    stored::number(&mut ground.postgres().await?, statement.to_owned()).await
}
