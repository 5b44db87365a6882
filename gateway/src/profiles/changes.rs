//! What happens when kaha-main-v3 says that profiles have changed (R3.4, R10.2): Redis begins a new generation of each, all
//! gateways forget what they remember, and whoever shares a conversation with them is pushed how they are now.
//!
//! **Invariant:** once a change is answered for, no gateway shows again what was fetched before it, but for one that the
//! news did not reach: that one for a minute at the most.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Context;
use chat_shared::{
    delivery::Delivery,
    ids::{BusinessId, UserId},
    limits,
    redis::RedisError,
    wire::Map,
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Known, Profiles, audience,
    late::listed,
    record::{ProfileId, View},
    stored::Generation,
    telemetry,
};
use crate::{database::Database, refusal::Refusal};

/// Gateways that listen as one: each change reaches one of them.
const QUEUE_GROUP: &str = "gateways";
/// Profiles that changed and that nobody has been told of yet. Over it nobody is; who asks is told right.
const NEWS_MAX: usize = 10_000;
/// Times that a changed profile is fetched, if kaha-main-v3 doesn't answer.
const TRIES: u32 = 3;
/// How long to wait before it is fetched again, or Redis is told again.
const RETRY: Duration = Duration::from_secs(2);
/// How long the profiles of one batch may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(15);
/// How long a gateway that stops takes in what it has heard.
const REST_MAX: Duration = Duration::from_secs(2);
/// Pages of users who are told of one user's change.
const AUDIENCE_PAGES_MAX: usize = 100;
/// Announcements that are taken in at once.
const ANNOUNCEMENTS_MAX: usize = 100;
/// Changes that Redis doesn't take for now. Over it they are lost, which is logged: the profile is as it was, for a day at
/// the most.
const UNTOLD_MAX: usize = 50_000;

/// Changed profiles whose audience is still to be told.
#[derive(Default)]
pub(super) struct Changes {
    news: Mutex<HashMap<ProfileId, News>>,
    rung: Notify,
}

/// How the gateways are told.
#[derive(Clone, Copy)]
enum Telling {
    /// Somebody waits until each of them has taken it in.
    Awaited,
    /// Nobody does, and one that is gone must not hold up what comes next.
    Unawaited,
}

#[derive(Clone, Copy)]
struct News {
    generation: Generation,
    tries: u32,
}

impl Changes {
    fn add(&self, changed: impl Iterator<Item = (ProfileId, News)>) {
        let mut news = self.news.lock();
        for (id, change) in changed {
            if news.len() < NEWS_MAX || news.contains_key(&id) {
                news.insert(id, change);
            } else {
                metrics::counter!(telemetry::UNPUSHED_TOTAL).increment(1);
            }
        }
        drop(news);
        self.rung.notify_one();
    }

    /// As many as one call asks for.
    fn take(&self) -> Vec<(ProfileId, News)> {
        let mut news = self.news.lock();
        let ids: Vec<_> = news.keys().take(limits::KAHA_CALL_IDS_MAX).copied().collect();
        ids.into_iter().filter_map(|id| Some((id, news.remove(&id)?))).collect()
    }
}

/// Starts what hears of changes and what tells of them.
pub(super) fn start(profiles: &Profiles, database: Database) {
    let tasks = &profiles.0.tasks;
    if profiles.0.known.is_none() {
        return;
    }
    tasks.essential("profile_changes", listen(profiles.clone(), tasks.draining().clone()));
    let (telling, stopping) = (profiles.clone(), tasks.stopping().clone());
    tasks.lasting("profile_news", async move {
        stopping.run_until_cancelled(tell(telling, database)).await;
    });
}

impl Profiles {
    /// Takes in that profiles have changed (R3.4, R10.2). When it returns Redis is right, and every gateway has forgotten
    /// them; what is pushed to clients follows.
    pub async fn changed(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> Result<(), Refusal> {
        let taken = self.take_change(user_ids, business_ids, Telling::Awaited).await;
        let is_heard = taken.map_err(|error| Refusal::unavailable("Redis", &error))?;
        if is_heard { Ok(()) } else { Err(Refusal::unavailable("another gateway", &Unheard)) }
    }

    /// Whether no gateway is known to remember them still; one that does forgets them within a minute.
    async fn take_change(
        &self,
        user_ids: &[UserId],
        business_ids: &[BusinessId],
        telling: Telling,
    ) -> Result<bool, RedisError> {
        let ids = ProfileId::of(user_ids, business_ids);
        let Some(known) = self.0.known.as_ref().filter(|_| !ids.is_empty()) else { return Ok(true) };
        metrics::counter!(telemetry::CHANGED_TOTAL).increment(telemetry::number(ids.len()));
        let generations = known.sources.stored.change(&ids).await;
        // Only now, or they would take from Redis what they have just forgotten.
        self.forget(user_ids, business_ids);
        let (user_ids, business_ids) = (user_ids.to_vec(), business_ids.to_vec());
        let told = Delivery::ProfilesChanged { user_ids, business_ids };
        let is_heard = match telling {
            Telling::Awaited => self.0.gateways.tell(&told).await,
            Telling::Unawaited => self.0.gateways.announce(&told).await,
        };
        let news = generations?.into_iter().map(|generation| News { generation, tries: 0 });
        known.changes.add(ids.into_iter().zip(news));
        Ok(is_heard)
    }
}

/// NATS is away, or a gateway is that has not been gone for long.
#[derive(Debug, thiserror::Error)]
#[error("not every gateway has said that it heard of a changed profile")]
struct Unheard;

/// What kaha-main-v3 publishes. Fields and ids that can't be read are passed over.
#[derive(Deserialize)]
struct Announced {
    #[serde(default)]
    user_ids: Vec<Value>,
    #[serde(default)]
    business_ids: Vec<Value>,
}

impl Announced {
    fn ids(&self) -> impl Iterator<Item = ProfileId> {
        let users = self.user_ids.iter().filter_map(|id| Some(ProfileId::User(id.as_str()?.parse().ok()?)));
        let businesses =
            self.business_ids.iter().filter_map(|id| Some(ProfileId::Business(id.as_str()?.parse().ok()?)));
        users.chain(businesses)
    }
}

/// Hears over NATS of what has changed, until the gateway drains. What Redis doesn't take is kept and tried again.
async fn listen(profiles: Profiles, draining: CancellationToken) -> anyhow::Result<()> {
    let subject = format!("{}.profiles.changed", profiles.0.namespace);
    let subscribed = profiles.0.nats.queue_subscribe(subject, QUEUE_GROUP.to_owned()).await;
    let mut announced = subscribed.context("subscribing to changes of profiles")?.ready_chunks(ANNOUNCEMENTS_MAX);
    let mut untold = HashSet::new();
    loop {
        // Cancel safe: each branch only waits, for the next of a stream or for time to pass.
        tokio::select! {
            () = draining.cancelled() => break,
            messages = announced.next() => {
                for message in messages.context("the subscription to changes of profiles ended")? {
                    note(&mut untold, &message.payload);
                }
            }
            () = tokio::time::sleep(RETRY), if !untold.is_empty() => {}
        }
        take_in(&profiles, &mut untold).await;
    }
    // Others of the group hear what is said from now on; what this one has heard already it takes in.
    if announced.get_mut().drain().await.is_err() {
        return Ok(());
    }
    let rest = async {
        while let Some(messages) = announced.next().await {
            for message in messages {
                note(&mut untold, &message.payload);
            }
        }
        take_in(&profiles, &mut untold).await;
    };
    let _in_time = tokio::time::timeout(REST_MAX, rest).await;
    Ok(())
}

/// Notes what an announcement says has changed.
fn note(untold: &mut HashSet<ProfileId>, announcement: &[u8]) {
    let Ok(Map(announced)) = serde_json::from_slice::<Map<Announced>>(announcement) else {
        return tracing::warn!("an announcement of changed profiles can't be read");
    };
    for id in announced.ids() {
        if untold.len() >= UNTOLD_MAX {
            return tracing::error!(
                "too many profiles have changed while Redis is out of reach; some stay as they were"
            );
        }
        untold.insert(id);
    }
}

/// Takes in what is untold, and leaves what could not be told.
async fn take_in(profiles: &Profiles, untold: &mut HashSet<ProfileId>) {
    let ids: Vec<_> = untold.iter().copied().collect();
    for some in ids.chunks(limits::INTERNAL_IDS_MAX) {
        let (mut user_ids, mut business_ids) = (Vec::new(), Vec::new());
        for id in some {
            match id {
                ProfileId::User(id) => user_ids.push(*id),
                ProfileId::Business(id) => business_ids.push(*id),
            }
        }
        // What a gateway hasn't heard it forgets by itself.
        if let Err(error) = profiles.take_change(&user_ids, &business_ids, Telling::Unawaited).await {
            return tracing::warn!(%error, "changed profiles can't be noted now, trying again");
        }
        for id in some {
            untold.remove(id);
        }
    }
}

/// Fetches what has changed, and pushes it to whom it concerns.
async fn tell(profiles: Profiles, database: Database) {
    let Some(known) = &profiles.0.known else { return };
    loop {
        known.changes.rung.notified().await;
        loop {
            let news = known.changes.take();
            if news.is_empty() {
                break;
            }
            let arrived = known.fetch(&news).await;
            for (id, view) in &arrived {
                if let Err(refusal) = profiles.tell_audience(&database, *id, view).await {
                    tracing::debug!(%refusal, "some were not told of a changed profile");
                }
            }
            let is_missing = |(id, news): &(ProfileId, News)| news.tries + 1 < TRIES && !arrived.contains_key(id);
            let missing: Vec<_> = news.into_iter().filter(is_missing).collect();
            if !missing.is_empty() {
                tokio::time::sleep(RETRY).await;
                known.changes.add_missing(missing);
            }
        }
    }
}

impl Changes {
    /// Lets those that did not arrive be fetched again, unless they have changed once more.
    fn add_missing(&self, missing: Vec<(ProfileId, News)>) {
        let newer: HashSet<_> = self.news.lock().keys().copied().collect();
        let missing = missing.into_iter().filter(|(id, _)| !newer.contains(id));
        self.add(missing.map(|(id, news)| (id, News { tries: news.tries + 1, ..news })));
    }
}

impl Known {
    async fn fetch(&self, news: &[(ProfileId, News)]) -> HashMap<ProfileId, View> {
        let wanted: Vec<_> = news.iter().map(|(id, news)| (*id, Some(news.generation))).collect();
        let (mut arrivals, deadline) =
            (self.gatherer.ask(&wanted, &self.sources.remembered), Instant::now() + ARRIVAL_MAX);
        let mut arrived = HashMap::with_capacity(wanted.len());
        while let Ok(Some((id, verdict))) = timeout_at(deadline, arrivals.recv()).await {
            if let Some(verdict) = verdict {
                arrived.insert(id, verdict.into());
            }
        }
        arrived
    }
}

impl Profiles {
    async fn tell_audience(&self, database: &Database, id: ProfileId, view: &View) -> Result<(), Refusal> {
        let profiles = listed(&[(id, view.clone())]);
        if let ProfileId::User(user_id) = id {
            // Their own devices, also if they share no conversation with anybody.
            self.push(profiles.clone(), vec![user_id]).await;
        }
        let mut after = None;
        for _ in 0..AUDIENCE_PAGES_MAX {
            let page = match id {
                ProfileId::User(user_id) => audience::page(database, user_id, after).await?,
                ProfileId::Business(business_id) => audience::page_of_customers(database, business_id, after).await?,
            };
            after = page.last().copied();
            let is_last = page.len() < audience::PAGE_USERS;
            let is_other = |other: &UserId| id != ProfileId::User(*other);
            let others: Vec<_> = page.into_iter().filter(is_other).collect();
            if !others.is_empty() {
                self.push(profiles.clone(), others).await;
            }
            if is_last {
                return Ok(());
            }
        }
        tracing::warn!("a changed profile concerns more users than it is pushed to; the others see it when they ask");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn announcements_are_read_as_far_as_they_can_be_r10_2() {
        let (user_id, business_id) = (UserId::random(), BusinessId::random());
        let body = json!({
            "user_ids": [user_id.as_uuid(), 7, "me", null],
            "business_ids": [business_id.as_uuid()],
            "at": "now",
        });
        let announced: Announced = serde_json::from_value(body).unwrap();
        let ids: Vec<_> = announced.ids().collect();
        assert_eq!(ids, [ProfileId::User(user_id), ProfileId::Business(business_id)]);
        assert_eq!(serde_json::from_value::<Announced>(json!({})).unwrap().ids().count(), 0);
    }

    #[test]
    fn news_wait_in_bounded_number_and_the_latest_counts() {
        let changes = Changes::default();
        let id = ProfileId::User(UserId::random());
        let news = |tries| News { generation: Generation::default(), tries };
        let others = std::iter::repeat_with(|| (ProfileId::User(UserId::random()), news(0)));
        changes.add(std::iter::once((id, news(0))).chain(others.take(NEWS_MAX)));
        assert_eq!(changes.news.lock().len(), NEWS_MAX);
        changes.add(std::iter::once((id, news(2))));
        assert_eq!(changes.news.lock()[&id].tries, 2);
        changes.add_missing(vec![(id, news(0))]);
        assert_eq!(changes.news.lock()[&id].tries, 2, "it has changed once more since");
        assert_eq!(changes.take().len(), limits::KAHA_CALL_IDS_MAX);
    }
}
