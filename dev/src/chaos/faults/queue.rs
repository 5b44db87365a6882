//! The queue of notifications is out of reach, and then its stream is gone.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::stream::Config;
use tokio::time::Instant;

use crate::{audit::Check, chaos::trial::Trial, wait};

/// How long jobs that stood in the queue may take; a deleted stream would take them along.
const EMPTY_DEADLINE: Duration = Duration::from_mins(1);
/// How long the queue may take until it is back with all that was held.
const BACK_DEADLINE: Duration = Duration::from_secs(30);
/// Events that the notifier put back to be delivered again.
const RETRIES: &str = "chat_notifier_retries_total";
/// Jobs that the notifier holds in memory.
const HELD: &str = "chat_notifier_jobs_held";

/// Messages go on, each is delivered once, and notifications come when the queue is back.
pub async fn gone(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let (notifier, namespace) = (ground.fleet.notifier(), ground.fleet.namespace());
    let (context, name) = (ground.jetstream().await?, format!("{namespace}-notifications"));
    let found = context.get_stream(&name).await?.get_info().await?.config;
    let retries_before = notifier.counter(RETRIES, "").await?;
    let subjects = vec![format!("{namespace}.elsewhere")];
    context.update_stream(&Config { subjects, ..found }).await?;
    trial.fault("nothing reaches the queue of notifications");
    let since = Instant::now();
    let time = trial.scale.seconds(30, 2);
    let mut said = 0;
    while since.elapsed() < time {
        let room = &trial.crowd.calling;
        trial.say(room).await?;
        said += 1;
        trial.pause(100..300).await;
    }
    let held = notifier.counter(HELD, "").await?;
    trial.bite(held > 0, format!("{held} jobs were held in memory"));
    let again = notifier.counter(RETRIES, "").await?.saturating_sub(retries_before);
    let first = (again > 0).then(|| format!("{again} events were delivered again while the queue was out of reach"));
    trial.promise(Check::Unsettled, usize::try_from(again)?, said, first);

    wait::until("an empty queue", EMPTY_DEADLINE, || async { Ok((ground.jobs_left().await?.0 == 0).then_some(())) })
        .await?;
    context.delete_stream(&name).await?;
    trial.fault("the queue's stream is deleted");
    let since = Instant::now();
    let is_back = wait::until("the queue", BACK_DEADLINE, || async {
        let is_read = ground.hand_on_soon().await.is_ok();
        Ok((is_read && notifier.counter(HELD, "").await? == 0).then_some(()))
    })
    .await;
    trial.bite(
        is_back.is_ok(),
        format!("it was made again and had all of them {} ms later", since.elapsed().as_millis()),
    );
    Ok(())
}
