//! Names and avatars of users and businesses, which belong to kaha-main-v3: asked for by batches, kept in Redis for a day as
//! current and thirty more for the time when kaha can't be asked, and remembered here for a minute.
//!
//! **Invariant:** nothing of a profile is written anywhere but to Redis and to clients: no table, no log line, no metric.
//! Nobody's request fails, or waits longer than [`chat_shared::limits::PROFILE_WAIT_MAX`], because of kaha.

mod answer;
mod audience;
mod changes;
mod find;
mod gather;
mod kaha;
mod late;
mod names;
mod record;
mod remembered;
mod settings;
mod stored;
mod telemetry;

pub use names::name_of;
pub use record::ProfileId;
pub use settings::ProfileSettings;

use std::sync::Arc;

use chat_shared::{
    clock::Clock,
    ids::{BusinessId, UserId},
    inbox::Inboxes,
    lifecycle::Tasks,
    redis::Redis,
    wire::{Conversation, Participant, ProfileList, Role, UserProfile},
};
use tokio::sync::Semaphore;

use self::{
    changes::Changes,
    find::{Views, list, view},
    gather::{Gatherer, Sources},
    kaha::Kaha,
    record::View,
    remembered::Remembered,
    stored::Stored,
    telemetry::Source,
};
use crate::{auth::Signer, database::Database, delivery::Gateways};

/// What profiles work with.
pub struct Surroundings {
    /// Keeps them for all gateways.
    pub redis: Redis,
    /// The way to the other gateways and, for changes, from kaha-main-v3.
    pub nats: async_nats::Client,
    /// Knows who takes part in conversations with whom.
    pub database: Database,
    /// Says what is current.
    pub clock: Clock,
    /// Signs what kaha-main-v3 is shown.
    pub signer: Option<Arc<Signer>>,
    /// Where the work in the background runs.
    pub tasks: Tasks,
}

/// The profiles that clients are shown. Clones share everything.
#[derive(Clone)]
pub struct Profiles(Arc<Parts>);

struct Parts {
    nats: async_nats::Client,
    namespace: String,
    gateways: Gateways,
    tasks: Tasks,
    /// None if there is no kaha-main-v3: then everybody has a neutral name.
    known: Option<Known>,
}

struct Known {
    sources: Arc<Sources>,
    gatherer: Arc<Gatherer>,
    changes: Changes,
    late: Arc<Semaphore>,
}

impl Profiles {
    /// Starts what fetches profiles and hears of their changes.
    pub fn start(settings: &ProfileSettings, surroundings: Surroundings) -> anyhow::Result<Self> {
        let Surroundings { redis, nats, database, clock, signer, tasks } = surroundings;
        telemetry::describe();
        let mut known = None;
        if let Some((url, signer)) = settings.kaha_url.as_ref().zip(signer) {
            let kaha = Kaha::new(url, &settings.kaha_audience, signer, clock.clone())?;
            let remembered = Remembered::default();
            let sources = Arc::new(Sources { kaha, stored: Stored::on(&redis), remembered, clock });
            let gatherer = Arc::new(Gatherer::default());
            let gathering = Arc::clone(&gatherer).run(Arc::clone(&sources), tasks.stopping().clone());
            tasks.lasting("profiles", gathering);
            let (changes, late) = (Changes::default(), Arc::new(Semaphore::new(late::WAITING_MAX)));
            known = Some(Known { sources, gatherer, changes, late });
        }
        let namespace = redis.namespace().to_owned();
        let gateways = Gateways::new(nats.clone(), namespace.clone(), Inboxes::on(&redis));
        let profiles = Self(Arc::new(Parts { nats, namespace, gateways, tasks, known }));
        changes::start(&profiles, database);
        Ok(profiles)
    }

    /// The profiles of users as `viewer` is shown them, in the order asked for: what is known after
    /// [`chat_shared::limits::PROFILE_WAIT_MAX`]. What comes later is pushed to them.
    pub async fn users(&self, viewer: UserId, user_ids: &[UserId]) -> Vec<UserProfile> {
        let views = self.find(viewer, ProfileId::of(user_ids, &[])).await;
        user_ids.iter().map(|user_id| view(&views, ProfileId::User(*user_id)).of_user(*user_id)).collect()
    }

    /// The profiles of users and businesses as `viewer` is shown them, in the order asked for; all of them by one batch.
    pub async fn list(&self, viewer: UserId, user_ids: &[UserId], business_ids: &[BusinessId]) -> ProfileList {
        let views = self.find(viewer, ProfileId::of(user_ids, business_ids)).await;
        list(&views, user_ids, business_ids)
    }

    /// The profiles that this gateway remembers, if it remembers all of them. Sends no request.
    pub fn remembered(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> Option<ProfileList> {
        let ids = ProfileId::of(user_ids, business_ids);
        let views: Views = ids.iter().filter_map(|id| Some((*id, self.view_in_memory(*id)?))).collect();
        // Without kaha-main-v3 there is nothing to wait for.
        let is_complete = self.0.known.is_none() || ids.iter().all(|id| views.contains_key(id));
        Source::Memory.count(if is_complete { views.len() } else { 0 });
        is_complete.then(|| list(&views, user_ids, business_ids))
    }

    /// The profiles that this gateway remembers, and neutral names for the others. Sends no request.
    pub fn remembered_or_neutral(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> ProfileList {
        let ids = ProfileId::of(user_ids, business_ids);
        let views = ids.into_iter().filter_map(|id| Some((id, self.view_in_memory(id)?))).collect();
        list(&views, user_ids, business_ids)
    }

    fn view_in_memory(&self, id: ProfileId) -> Option<View> {
        self.0.known.as_ref()?.sources.remembered.get(id).map(View::from)
    }

    /// Adds names and profiles to conversations as `viewer` sees them, with one batch for all.
    pub async fn dress(&self, viewer: UserId, conversations: &mut [Conversation]) {
        // A customer is shown the business as a participant.
        let users = |conversation: &Conversation| {
            let users = conversation.participants.iter().filter(|participant| participant.role != Role::Business);
            users.map(|participant| participant.user_id).collect::<Vec<_>>()
        };
        let business = |conversation: &Conversation| Some(conversation.business.as_ref()?.business_id);
        let user_ids: Vec<_> = conversations.iter().flat_map(users).collect();
        let business_ids: Vec<_> = conversations.iter().filter_map(business).collect();
        let views = self.find(viewer, ProfileId::of(&user_ids, &business_ids)).await;
        for conversation in conversations {
            let ProfileList { users, businesses } =
                list(&views, &users(conversation), business(conversation).as_slice());
            conversation.profiles = users;
            conversation.business = businesses.into_iter().next().map(Box::new);
            let is_business = |participant: &Participant| participant.role == Role::Business;
            if conversation.participants.iter().any(is_business) {
                conversation.profiles.extend(conversation.business.as_deref().cloned().map(UserProfile::from));
            }
            conversation.name = name_of(conversation.kind, &conversation.profiles, viewer);
        }
    }

    /// Forgets what this gateway remembers of them, and doesn't believe what is on its way.
    pub fn forget(&self, user_ids: &[UserId], business_ids: &[BusinessId]) {
        let Some(known) = &self.0.known else { return };
        let ids = ProfileId::of(user_ids, business_ids);
        // In this order: what is on its way is either disbelieved, or remembered by now and then forgotten.
        known.gatherer.overtake(&ids);
        for id in ids {
            known.sources.remembered.forget(id);
        }
    }

    /// Forgets everything, because changes may have gone unheard.
    pub fn forget_all(&self) {
        let Some(known) = &self.0.known else { return };
        known.gatherer.overtake_all();
        known.sources.remembered.forget_all();
    }
}
