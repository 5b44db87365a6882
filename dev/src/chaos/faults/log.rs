//! The log is full.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::{
    chaos::{ground::SMALL_LOG_BYTES, load::ProbeOutcome, trial::Trial},
    wait,
};

/// How long it may take until the log is full.
const FULL_DEADLINE: Duration = Duration::from_mins(2);
/// How long it may take until messages are accepted again.
const HEALED_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that it is allowed then.
const ROOM_BYTES: i64 = 1 << 30;
/// Attempts that are refused in a row before it counts as full: the last room is taken by smaller messages.
const REFUSED_MIN: usize = 5;

/// Until an operator gives it more room, which is what heals it before events are aged out.
pub async fn full(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, load) = (trial.ground, trial.load);
    trial.told.line(&format!("the log may have {SMALL_LOG_BYTES} bytes"));
    wait::until("a full log", FULL_DEADLINE, || async {
        let (refused, _) = load.probe.since(Instant::now() - Duration::from_secs(2), ProbeOutcome::Unavailable);
        Ok((refused >= REFUSED_MIN).then_some(()))
    })
    .await?;
    let since = Instant::now();
    let state = ground.stream().await?.get_info().await?.state;
    trial.fault(&format!("the log is full, with {} events in {} bytes", state.messages, state.bytes));
    trial.last(trial.scale.seconds(20, 4)).await;
    let (refused, attempts) = load.probe.since(since, ProbeOutcome::Unavailable);
    trial.bite(
        refused > 0 && refused + 1 >= attempts,
        format!("{refused} of {attempts} attempts were refused as unavailable while it was full"),
    );
    let stream = ground.stream().await?.get_info().await?;
    let mut config = stream.config;
    config.max_bytes = ROOM_BYTES;
    ground.jetstream().await?.update_stream(&config).await?;
    trial.told.line("an operator gives it more room");
    let since = Instant::now();
    let healed = wait::until("an accepted attempt", HEALED_DEADLINE, || async {
        Ok((load.probe.since(since, ProbeOutcome::Accepted).0 > 0).then_some(()))
    })
    .await;
    trial.bite(healed.is_ok(), format!("messages are accepted {} ms later", since.elapsed().as_millis()));
    Ok(())
}
