//! PostgreSQL goes away: cleanly and for long, or at once and again.

use std::{fs, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

use crate::{
    audit::Check,
    chaos::{load::ProbeOutcome, trial::Trial},
    servers::Postgres,
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

/// Sending needs neither PostgreSQL nor Redis: whatever else than an acceptance an attempt gets, silence too, is wrong.
pub fn nothing_was_refused(trial: &mut Trial<'_>, since: Instant) {
    let (accepted, attempts) = trial.load.probe.since(since, ProbeOutcome::Accepted);
    let refused = attempts - accepted;
    let first = (refused > 0).then(|| "refused or not answered, though the log was there".to_owned());
    trial.promise(Check::Refused, refused, attempts, first);
}
