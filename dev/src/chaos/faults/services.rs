//! Our own processes are killed, frozen and restarted.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result};
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::Instant;

use crate::{
    chaos::trial::Trial,
    fleet::{Role, Service},
    process::Signal,
};

/// Single messages that the notifier shall have in hand when it dies …
const WHISPERS_IN_HAND: usize = 6;
/// … and how long they may take to it. Less than it waits for Redis before it goes on without.
const UNTIL_IN_HAND: Duration = Duration::from_millis(700);

/// Every service is killed with SIGKILL, in random order and at random moments, and then more of them.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..trial.scale.of(5, 1) {
        notifier_with_work_in_hand(trial).await?;
    }
    let services: Vec<&Service> = trial.ground.fleet.services().collect();
    let kills = trial.scale.of(40, services.len());
    let mut turns = services.clone();
    turns.shuffle(&mut trial.rng);
    let mut died = 0;
    for turn in 0..kills {
        let service = match turns.get(turn) {
            Some(service) => *service,
            None => *services.choose(&mut trial.rng).context("a fleet has services")?,
        };
        trial.pause(200..1200).await;
        died += usize::from(kill_and_start(trial, service).await?);
    }
    trial.bite(
        died == kills,
        format!("{died} of {kills} kills ended a process, each of {} services once or more often", services.len()),
    );
    notifier_with_work_in_hand(trial).await
}

/// Kills a service with SIGKILL and starts it again. Whether the signal ended it.
pub(super) async fn kill_and_start(trial: &mut Trial<'_>, service: &Service) -> Result<bool> {
    if service.role() == Role::Notifier {
        trial.kill_notifier().await?;
    } else {
        service.kill().await?;
    }
    trial.fault(&format!("{} is killed with SIGKILL", service.name()));
    let status = service.process().exited().await?;
    trial.pause(0..900).await;
    service.start_ready().await?;
    Ok(status.signal() == Some(Signal::KILL.as_raw()))
}

/// The notifier is killed while it waits for Redis, so with entries in hand that are in no inbox: its line to Redis falls
/// silent first, and what it had sent there is lost with it.
async fn notifier_with_work_in_hand(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, notifier) = (trial.ground, trial.ground.fleet.notifier());
    trial.pause(200..1200).await;
    ground.notifier_line.silence();
    for _ in 0..WHISPERS_IN_HAND {
        trial.load.whisper();
    }
    trial.last(UNTIL_IN_HAND).await;
    let in_hand = ground.progress(false).await?.unsettled;
    trial.kill_notifier().await?;
    ground.notifier_line.cut();
    trial
        .fault(&format!("the notifier is killed with SIGKILL while it waits for Redis with {in_hand} entries in hand"));
    notifier.start_ready().await?;
    trial.bite(in_hand > 0, format!("the notifier died with {in_hand} entries in hand"));
    Ok(())
}

/// Every service is frozen for a while: its connections stay open and nobody answers.
pub async fn frozen(trial: &mut Trial<'_>) -> Result<()> {
    let length = trial.scale.seconds(20, 3);
    let mut services: Vec<&Service> = trial.ground.fleet.services().collect();
    services.shuffle(&mut trial.rng);
    let (mut silent, mut resumed) = (0, 0);
    for service in &services {
        trial.pause(100..600).await;
        let (pid, began) = (service.pid(), Instant::now());
        service.pause()?;
        trial.fault(&format!("{} is frozen with SIGSTOP for {} s", service.name(), length.as_secs()));
        // A look at a frozen process takes a while too.
        silent += usize::from(!service.is_ready().await);
        trial.last(length.saturating_sub(began.elapsed())).await;
        service.resume()?;
        service.wait_ready(crate::fleet::READY_DEADLINE).await?;
        resumed += usize::from(service.pid() == pid);
    }
    let count = services.len();
    trial.bite(silent == count, format!("{silent} of {count} services did not answer while they were frozen"));
    trial.bite(resumed == count, format!("{resumed} of {count} went on as the same process"));
    Ok(())
}

/// Everything is restarted cleanly, twice: the services one after the other, and then the servers.
pub async fn restarted(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let (mut clean, mut renewed, mut count) = (0, 0, 0);
    for round in 1..=2 {
        for service in ground.fleet.services() {
            let pid = service.pid();
            trial.fault(&format!("{} is restarted, round {round}", service.name()));
            service.stop().await?;
            count += 1;
            clean += usize::from(service.process().exited().await?.success());
            service.start_ready().await?;
            renewed += usize::from(service.pid() != pid);
        }
        let servers = ground.servers()?;
        for process in servers.processes() {
            let pid = process.pid();
            trial.fault(&format!("{} is restarted, round {round}", process.name()));
            process.stop(crate::fleet::STOP_DEADLINE).await?;
            count += 1;
            clean += usize::from(process.exited().await?.success());
            ground.fleet.start_again(process.name()).await?;
            renewed += usize::from(process.pid() != pid);
        }
        ground.until_ready(crate::fleet::READY_DEADLINE).await?;
    }
    trial.bite(renewed == count, format!("{renewed} of {count} restarts made a new process"));
    trial.bite(clean == count, format!("{clean} of {count} stops ended with success"));
    let roles = Role::ALL.len();
    trial.told.line(&format!("all {roles} kinds of service and all servers were restarted twice"));
    Ok(())
}
