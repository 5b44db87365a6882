//! Those who bring notifications to devices go away, fail, or don't answer.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use chat_client::{ids::MessageId, wire::Platform};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use crate::{
    audit::Check,
    chaos::{claims::on_their_way, phone::Phone, trial::Trial},
    push_services::Behaviour,
    wait,
};

/// How long the other providers may take meanwhile.
const OTHERS_WITHIN: Duration = Duration::from_secs(5);
/// How long what was kept back may take once the provider is back: notifications rest between two tries, the longer the
/// longer it was away.
const CATCH_UP_DEADLINE: Duration = Duration::from_mins(3);
/// Between two messages to those who are away.
const PACE_MS: std::ops::Range<u64> = 200..900;
/// An answer that comes after the notifier has given up.
const TOO_LATE: Duration = Duration::from_secs(30);

/// Ways to be of no use, and whether notifications are taken all the same.
const WAYS: [(Behaviour, bool, &str); 3] = [
    (Behaviour::Down, false, "can't be reached"),
    (Behaviour::Failing { status: 503, retry_after: None }, false, "answers 503 to everything"),
    (Behaviour::Slow(TOO_LATE), true, "takes everything and doesn't answer"),
];

/// One after the other, each in another way, while messages are sent to people with devices on all platforms.
pub async fn down(trial: &mut Trial<'_>) -> Result<()> {
    let mut platforms = Platform::ALL;
    platforms.shuffle(&mut trial.rng);
    let ways = &WAYS[..trial.scale.of(WAYS.len(), 1)];
    for (platform, way) in platforms.into_iter().zip(ways) {
        round(trial, platform, way).await?;
    }
    Ok(())
}

async fn round(trial: &mut Trial<'_>, platform: Platform, way: &(Behaviour, bool, &str)) -> Result<()> {
    let (behaviour, is_taken, what) = *way;
    let length = trial.scale.seconds(60, 8);
    let services = trial.ground.fleet.push_services();
    let failed_before = failures(trial, platform).await?;
    trial.pause(200..1200).await;
    // What a provider has in hand as it goes may have been taken or not, and nobody can tell.
    wait::until("nothing on its way", OTHERS_WITHIN, || async {
        Ok(on_their_way(trial.ground).await?.is_empty().then_some(()))
    })
    .await?;
    services.behave(platform, behaviour);
    trial.fault(&format!("{} {what} for {} s", platform.as_str(), length.as_secs()));
    let began = Instant::now();
    let mut said: BTreeMap<MessageId, Instant> = BTreeMap::new();
    let room = &trial.crowd.calling;
    while began.elapsed() < length {
        let message = trial.say(room).await?;
        said.insert(message.message_id, message.at);
        trial.pause(PACE_MS).await;
    }
    let (its, others): (Vec<&Phone>, Vec<&Phone>) = trial.crowd.phones().partition(|phone| phone.platform == platform);
    let wanted = said.len() * others.len();
    // Who is too late is seen below.
    _ = wait::until("notifications by the others", OTHERS_WITHIN, || async {
        Ok((first_times(trial, &others, &said).len() >= wanted).then_some(()))
    })
    .await;
    let took = first_times(trial, &others, &said);
    let late = wanted - took.iter().filter(|took| **took <= OTHERS_WITHIN).count();
    let slowest = took.iter().max().map_or(0, Duration::as_millis);
    let taken = first_times(trial, &its, &said).len();
    let failures = failures(trial, platform).await?.saturating_sub(failed_before);
    trial.bite(
        failures > 0 && !said.is_empty() && (is_taken || taken == 0),
        format!(
            "{} {what}: {failures} attempts came to nothing, and it has {taken} of {} notifications; the others got theirs \
             within {slowest} ms",
            platform.as_str(),
            said.len() * its.len(),
        ),
    );
    let first = (late > 0).then(|| format!("{late} were held up while {} {what}", platform.as_str()));
    trial.promise(Check::NotifiedLate, late, wanted, first);

    services.behave(platform, Behaviour::Normal);
    let back = Instant::now();
    let wanted = said.len() * its.len();
    // What is missing is found by the audit.
    _ = wait::until("notifications that were kept back", CATCH_UP_DEADLINE, || async {
        Ok((first_times(trial, &its, &said).len() >= wanted).then_some(()))
    })
    .await;
    trial.told.line(&format!("{} is back, and has all after {} s", platform.as_str(), back.elapsed().as_secs()));
    Ok(())
}

/// How long after each message each device was first notified of it.
fn first_times(trial: &Trial<'_>, phones: &[&Phone], said: &BTreeMap<MessageId, Instant>) -> Vec<Duration> {
    let services = trial.ground.fleet.push_services();
    let mut times = Vec::new();
    for phone in phones {
        let mut first: BTreeMap<MessageId, Duration> = BTreeMap::new();
        for notified in phone.notified(services) {
            if let Some(said_at) = said.get(&notified.message_id) {
                first.entry(notified.message_id).or_insert_with(|| notified.at.saturating_duration_since(*said_at));
            }
        }
        times.extend(first.into_values());
    }
    times
}

/// What the notifier asked a provider in vain, or did not ask because it had.
async fn failures(trial: &Trial<'_>, platform: Platform) -> Result<u64> {
    let mut sum = 0;
    for verdict in ["later", "unknown", "held_back"] {
        let metric = "chat_notifier_provider_requests_total";
        let text = trial.ground.fleet.notifier().metrics().await?;
        let own = format!("provider=\"{}\"", platform.as_str());
        let verdict = format!("verdict=\"{verdict}\"");
        let lines =
            text.lines().filter(|line| line.starts_with(metric) && line.contains(&own) && line.contains(&verdict));
        sum += lines.filter_map(|line| line.split_whitespace().next_back()?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}
