//! NATS, alone, is killed and started again.

use anyhow::Result;
use tokio::time::Instant;

use crate::chaos::{load::ProbeOutcome, trial::Trial};

/// Several times.
pub async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(8, 2);
    let nats = &trial.ground.servers()?.nats;
    for _ in 0..rounds {
        trial.pause(300..1500).await;
        let since = Instant::now();
        nats.kill().await?;
        trial.fault("NATS is killed with SIGKILL");
        let most = trial.scale.of(5000, 1500);
        trial.pause(700..most).await;
        let (accepted, attempts) = trial.load.probe.since(since, ProbeOutcome::Accepted);
        nats.start().await?;
        trial.told.line("NATS is started again");
        trial.pause(1500..2500).await;
        let (refused, _) = trial.load.probe.since(since, ProbeOutcome::Unavailable);
        let slowest = trial.load.samples.slowest_since(since);
        trial.bite(
            // One may have been answered just before.
            accepted <= 1 && (refused > 0 || slowest.as_millis() > 500),
            format!(
                "{accepted} of {attempts} attempts were accepted while it was dead, {refused} were refused, and a client's \
                 send took {} ms with its repeats",
                slowest.as_millis()
            ),
        );
    }
    Ok(())
}
