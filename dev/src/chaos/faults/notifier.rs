//! The notifier is killed between sending a notification and recording that it did, and providers take notifications
//! without saying so.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use chat_client::{ids::MessageId, wire::Platform};

use crate::{
    chaos::{claims::Claimed, ground::Ground, phone::Phone, settle, trial::Trial},
    push_services::Behaviour,
    wait,
};

/// How long providers take to answer: long enough to die in between, and less than the notifier waits.
const ANSWER_AFTER: Duration = Duration::from_secs(5);
/// How long a notification may take to its provider.
const TAKEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long what a dead notifier had in hand may take to the next one.
const HANDED_ON_DEADLINE: Duration = Duration::from_secs(75);
/// Messages at a time to those who are away.
const MESSAGES: usize = 3;

/// Those that take notifications without saying so. At APNs one connection carries all that are on their way, so cutting
/// it loses others.
const SILENT: [Platform; 3] = [Platform::Fcm, Platform::WebPush, Platform::Webhook];

/// Both, several times.
pub async fn killed_while_sending(trial: &mut Trial<'_>) -> Result<()> {
    let services = trial.ground.fleet.push_services();
    for _ in 0..trial.scale.of(6, 1) {
        trial.pause(200..1200).await;
        killed(trial).await?;
    }
    trial.pause(200..1200).await;
    let unknown_before = unknown(trial.ground).await?;
    for platform in SILENT {
        services.behave(platform, Behaviour::SilentAfterTaking);
    }
    trial.fault("providers take notifications and cut the connection instead of answering");
    let said = say(trial).await?;
    let wanted = trial.crowd.phones().filter(|phone| SILENT.contains(&phone.platform)).count() * said.len();
    let taken = until_taken(trial, &said, wanted).await;
    all(trial, Behaviour::Normal);
    settle::drain_queue(trial.ground).await;
    let unknown = unknown(trial.ground).await?.saturating_sub(unknown_before);
    trial.bite(
        unknown > 0,
        format!("{taken} notifications were taken without a word, and {unknown} counted as unknown"),
    );
    Ok(())
}

async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    all(trial, Behaviour::Slow(ANSWER_AFTER));
    let said = say(trial).await?;
    until_taken(trial, &said, 1).await;
    trial.pause(0..300).await;
    let claimed = trial.kill_notifier().await?;
    let taken = taken(trial, &said);
    let recorded = claimed.len();
    let arrived = claimed.iter().filter(|claimed| taken.contains(claimed)).count();
    trial.fault(&format!("the notifier is killed with SIGKILL, with {recorded} notifications on their way"));
    trial.bite(
        arrived > 0,
        format!("it died with {recorded} notifications on their way, and providers had taken {arrived} of them"),
    );
    all(trial, Behaviour::Normal);
    ground.fleet.notifier().start_ready().await?;
    // Whether all are is seen below.
    _ = wait::until("the next notifier's look at them", HANDED_ON_DEADLINE, || async {
        ground.hand_on_soon().await?;
        let unknown = unknown(ground).await?;
        Ok((unknown >= recorded as u64).then_some(()))
    })
    .await;
    let unknown = unknown(ground).await?;
    trial.bite(
        unknown >= recorded as u64,
        format!("the next one counts {unknown} as unknown, of {recorded} that were on their way"),
    );
    Ok(())
}

fn all(trial: &Trial<'_>, behaviour: Behaviour) {
    for platform in Platform::ALL {
        trial.ground.fleet.push_services().behave(platform, behaviour);
    }
}

async fn say(trial: &mut Trial<'_>) -> Result<BTreeSet<MessageId>> {
    let room = &trial.crowd.calling;
    let mut said = BTreeSet::new();
    for _ in 0..MESSAGES {
        said.insert(trial.say(room).await?.message_id);
    }
    Ok(said)
}

/// Waits until providers have taken so many notifications of these messages; how many they have.
async fn until_taken(trial: &Trial<'_>, said: &BTreeSet<MessageId>, count: usize) -> usize {
    // Those who ask look at how many came.
    _ = wait::until("notifications at the providers", TAKEN_DEADLINE, || async {
        Ok((taken(trial, said).len() >= count).then_some(()))
    })
    .await;
    taken(trial, said).len()
}

/// Notifications of these messages that providers have taken.
fn taken(trial: &Trial<'_>, said: &BTreeSet<MessageId>) -> BTreeSet<Claimed> {
    let services = trial.ground.fleet.push_services();
    let phones = trial.crowd.phones();
    let of_phone = |phone: &Phone| {
        let (user_id, device_id) = (phone.user_id, phone.device_id);
        let taken = phone.notified(services).into_iter().filter(|it| said.contains(&it.message_id));
        taken.map(move |it| Claimed::of(user_id, it.message_id, device_id)).collect::<Vec<_>>()
    };
    phones.flat_map(of_phone).collect()
}

/// Notifications of which the notifier that runs says that nobody knows whether they were sent.
async fn unknown(ground: &Ground) -> Result<u64> {
    ground.fleet.notifier().counter("chat_notifier_notifications_total", "outcome=\"unknown\"").await
}
