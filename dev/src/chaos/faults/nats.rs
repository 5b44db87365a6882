//! NATS, alone, is killed and started again.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::chaos::{load::ProbeOutcome, trial::Trial};

/// How long an answer may take from a gateway to its client.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Several times.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(8, 2);
    let nats = &trial.ground.servers()?.nats;
    for _ in 0..rounds {
        trial.pause(300..1500).await;
        let since = Instant::now();
        nats.kill().await?;
        trial.fault("NATS is killed with SIGKILL");
        let most = trial.scale.of(5000, 2000);
        trial.pause(1000..most).await;
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
            accepted == 0 && slowest + ON_ITS_WAY * 2 > down - since,
            format!(
                "{accepted} messages were accepted in the {dead_ms} ms while it was dead, {refused} attempts were refused, \
                 and a client's send took {} ms with its repeats",
                slowest.as_millis()
            ),
        );
    }
    Ok(())
}
