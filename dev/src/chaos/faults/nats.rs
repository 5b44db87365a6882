//! NATS, alone, is killed and started again.

use std::{ops::Range, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

use crate::chaos::{load::ProbeOutcome, trial::Trial};

/// How long an answer may take from a gateway to its client.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// How long it is dead: gateways wait 5 s for its answer.
const SHORT_MS: Range<u64> = 1000..2500;
const LONG_MS: Range<u64> = 7000..10_000;

/// Several times.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(8, 2);
    let nats = &trial.ground.servers()?.nats;
    for round in 1..=rounds {
        trial.pause(300..1500).await;
        let since = Instant::now();
        nats.kill().await?;
        trial.fault("NATS is killed with SIGKILL");
        // Once longer than a gateway waits, so that it has to refuse.
        let is_long = round == rounds;
        trial.pause(if is_long { LONG_MS } else { SHORT_MS }).await;
        let down = Instant::now();
        // What was answered just before may still be on its way to its sender.
        let accepted = trial.load.samples.accepted_between(since + ON_ITS_WAY, down);
        nats.start().await?;
        trial.told.line("NATS is started again");
        trial.pause(1500..2500).await;
        let slowest = trial.load.samples.slowest_since(since);
        let (refused, _) = trial.load.probe.since(since, ProbeOutcome::Unavailable);
        let dead_ms = (down - since).as_millis();
        trial.bite(
            accepted == 0 && (refused > 0 || !is_long) && slowest + ON_ITS_WAY * 2 > down - since,
            format!(
                "{accepted} messages were accepted in the {dead_ms} ms while it was dead, {refused} attempts were refused, \
                 and a client's send took {} ms with its repeats",
                slowest.as_millis()
            ),
        );
    }
    Ok(())
}
