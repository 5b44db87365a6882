//! What people are told of each other's presence: by their clients, which watch everybody, and by REST.

use std::time::Duration;

use anyhow::Result;
use chat_client::ids::UserId;
use tokio::time::{Instant, sleep};

use super::crowd::{Crowd, Device};
use crate::{audit::Sight, wait};

/// How long a gateway may take to agree to a list: whoever shares a conversation is known once it is stored.
const WATCHING_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Lets everybody watch everybody else.
pub async fn watch_all(crowd: &Crowd) -> Result<()> {
    for device in crowd.people() {
        watch(crowd, device, &[]).await?;
    }
    Ok(())
}

/// Lets somebody watch everybody else in the crowd, and others.
pub async fn watch(crowd: &Crowd, device: &Device, others: &[UserId]) -> Result<()> {
    let watched: Vec<_> = watched(crowd, device).map(|(user_id, _)| user_id).chain(others.iter().copied()).collect();
    let (client, _) = device.client()?;
    wait::until("an agreement to watch presence", WATCHING_DEADLINE, || async {
        let outcome = client.watch_presence(watched.clone()).await;
        if outcome.is_err() {
            sleep(PAUSE).await;
        }
        Ok(outcome.ok())
    })
    .await
}

/// What everybody is told, once that is right or the time is over.
pub async fn sights(crowd: &Crowd, deadline: Duration) -> Vec<Sight> {
    let end = Instant::now() + deadline;
    loop {
        let sights = look(crowd).await;
        let is_right = sights.iter().all(|sight| sight.told == Some(sight.is_there));
        if is_right || Instant::now() >= end {
            return sights;
        }
        sleep(PAUSE).await;
    }
}

async fn look(crowd: &Crowd) -> Vec<Sight> {
    let mut sights = Vec::new();
    for device in crowd.people() {
        let watched: Vec<_> = watched(crowd, device).collect();
        {
            let diary = device.person.diary();
            sights.extend(watched.iter().map(|(user_id, is_there)| Sight {
                watcher: device.name.clone(),
                user_id: *user_id,
                told: diary.online(*user_id).map(|(is_online, _)| is_online),
                is_there: *is_there,
            }));
        }
        let asked: Vec<_> = watched.iter().map(|(user_id, _)| *user_id).collect();
        // Whoever gets no answer knows nothing.
        let answers = match device.client() {
            Ok((_, rest)) => rest.presence(&asked).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        sights.extend(watched.iter().map(|(user_id, is_there)| Sight {
            watcher: format!("{} by REST", device.name),
            user_id: *user_id,
            told: answers.iter().find(|answer| answer.user_id == *user_id).map(|answer| answer.is_online),
            is_there: *is_there,
        }));
    }
    sights
}

/// Everybody else, and whether they are there.
fn watched<'a>(crowd: &'a Crowd, device: &'a Device) -> impl Iterator<Item = (UserId, bool)> + 'a {
    let others = crowd.people().iter().map(|other| other.person.user_id);
    let others = others.filter(|user_id| *user_id != device.person.user_id).map(|user_id| (user_id, true));
    others.chain(crowd.absent.iter().map(|absent| (absent.user_id, false)))
}
