//! Finds profiles: in memory, else in Redis, else at kaha-main-v3, which an answer waits for only so long.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
    wire::ProfileList,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Known, Profiles,
    gather::{Arrivals, Wanted},
    record::{ProfileId, View},
    telemetry::Source,
};

/// What is shown of each id. One that is missing is shown by a neutral name.
pub(super) type Views = HashMap<ProfileId, View>;

/// What has arrived in time.
struct InTime {
    answered: usize,
    /// Whether nothing more is to come.
    is_all: bool,
}

impl Profiles {
    /// What is known of each id. What is asked for and comes too late is pushed to `viewer`.
    pub(super) async fn find(&self, viewer: UserId, ids: Vec<ProfileId>) -> Views {
        let mut views = HashMap::with_capacity(ids.len());
        let Some(known) = &self.0.known else { return views };
        let missing = known.look_in_memory(ids, &mut views);
        if missing.is_empty() {
            return views;
        }
        let wanted = known.look_in_redis(missing, &mut views).await;
        if wanted.is_empty() {
            return views;
        }
        let mut answered = 0;
        if !known.sources.kaha.is_resting() {
            // Nobody waits for one that failed last time; it is asked all the same, in case it is back.
            let wait = if known.sources.kaha.has_failed() { Duration::ZERO } else { limits::PROFILE_WAIT_MAX };
            let deadline = Instant::now() + wait;
            let mut arrivals = known.gatherer.ask(&wanted, &known.sources.remembered);
            let in_time = collect(&mut arrivals, deadline, &mut views).await;
            answered = in_time.answered;
            if !in_time.is_all {
                self.push_late(viewer, arrivals);
            }
        }
        let stale = wanted.iter().filter(|(id, _)| matches!(views.get(id), Some(View::Stale(_)))).count();
        Source::Kaha.count(answered);
        Source::Stale.count(stale);
        Source::Fallback.count(wanted.len().saturating_sub(answered + stale));
        views
    }
}

impl Known {
    /// Adds what is remembered, and gives the rest, each once.
    fn look_in_memory(&self, ids: Vec<ProfileId>, views: &mut Views) -> Vec<ProfileId> {
        let mut distinct = HashSet::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            if !distinct.insert(id) {
                continue;
            }
            match self.sources.remembered.get(id) {
                Some(verdict) => _ = views.insert(id, verdict.into()),
                None => missing.push(id),
            }
        }
        Source::Memory.count(views.len());
        missing
    }

    /// Adds what Redis has, and gives those of which it has nothing current.
    async fn look_in_redis(&self, missing: Vec<ProfileId>, views: &mut Views) -> Vec<Wanted> {
        let remembered = &self.sources.remembered;
        let before: Vec<_> = missing.iter().map(|id| remembered.before(*id)).collect();
        let entries = match self.sources.stored.read(&missing).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "profiles are not looked for in Redis");
                return missing.into_iter().map(|id| (id, None)).collect();
            }
        };
        let (now, mut wanted) = (self.sources.clock.now(), Vec::new());
        let count = missing.len();
        for ((id, before), entry) in missing.into_iter().zip(before).zip(entries) {
            if let Some(verdict) = entry.current(now) {
                remembered.put(id, verdict.clone(), before);
                views.insert(id, verdict.clone().into());
            } else {
                wanted.push((id, Some(entry.generation)));
                views.insert(id, entry.last_resort());
            }
        }
        Source::Redis.count(count - wanted.len());
        wanted
    }
}

/// Adds what arrives before the deadline.
async fn collect(arrivals: &mut Arrivals, deadline: Instant, views: &mut Views) -> InTime {
    let mut answered = 0;
    // Cancel safe: what has not been received stays.
    while let Ok(arrived) = timeout_at(deadline, arrivals.recv()).await {
        let Some((id, verdict)) = arrived else { return InTime { answered, is_all: true } };
        if let Some(verdict) = verdict {
            views.insert(id, verdict.into());
            answered += 1;
        }
    }
    InTime { answered, is_all: false }
}

/// What a view shows of an id.
pub(super) fn view(views: &Views, id: ProfileId) -> &View {
    views.get(&id).unwrap_or(&View::Unavailable)
}

/// Users and businesses as they are shown, in the order asked for.
pub(super) fn list(views: &Views, user_ids: &[UserId], business_ids: &[BusinessId]) -> ProfileList {
    let user = |id: &UserId| view(views, ProfileId::User(*id)).of_user(*id);
    let business = |id: &BusinessId| view(views, ProfileId::Business(*id)).of_business(*id);
    ProfileList { users: user_ids.iter().map(user).collect(), businesses: business_ids.iter().map(business).collect() }
}
