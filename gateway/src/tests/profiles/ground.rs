//! A stand-in for kaha-main-v3, and gateways that ask it.

use std::time::Duration;

use chat_dev::{
    kaha::{Kaha, KahaPorts},
    test_servers::TestServers,
};
use chat_shared::{
    clock::Clock,
    ids::UserId,
    redis::bounded,
    wire::{ProfileList, ProfileState, UserProfile},
};

use crate::{
    profiles::{ProfileId, ProfileSettings, Profiles, Surroundings},
    tests::place::Place,
};

/// The key of RFC 8037, appendix A, in PKCS#8.
pub const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

pub struct Ground {
    pub kaha: Kaha,
    pub place: Place,
    settings: ProfileSettings,
    _directory: tempfile::TempDir,
}

impl Ground {
    pub async fn new() -> Self {
        let (directory, kaha, settings) = stand_in().await;
        let servers = TestServers::from_env().unwrap();
        let place = Place::with_profiles(&servers.isolated().await.unwrap(), &settings).await;
        Self { kaha, place, settings, _directory: directory }
    }

    /// The profiles of another gateway of this place.
    pub fn gateway(&self) -> Profiles {
        self.gateway_on(&self.place)
    }

    /// The profiles of a gateway of another place that asks the same kaha-main-v3.
    pub fn gateway_on(&self, place: &Place) -> Profiles {
        start(&self.settings, place)
    }

    /// Lets what Redis has of an id be older than it is.
    pub async fn age(&self, id: ProfileId, by: Duration) {
        let (key, mut redis) = (self.key(id), self.place.redis.link().await.unwrap());
        let value: String = bounded(redis::cmd("GET").arg(&key).query_async(&mut redis)).await.unwrap();
        let [generation, fetched_at, said] = value.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{value}") };
        let fetched_at = fetched_at.parse::<i64>().unwrap() - i64::try_from(by.as_millis()).unwrap();
        let value = format!("{generation} {fetched_at} {said}");
        bounded::<()>(redis::cmd("SET").arg(&key).arg(value).arg("KEEPTTL").query_async(&mut redis)).await.unwrap();
    }

    /// Where Redis has an id.
    pub fn key(&self, id: ProfileId) -> String {
        let kind = match id {
            ProfileId::User(_) => 'u',
            ProfileId::Business(_) => 'b',
        };
        format!("{}:profile:{kind}:{}", self.place.namespace, id.as_uuid().simple())
    }

    /// As if it had never been asked for them.
    pub async fn forget_everything(&self, user_ids: &[UserId]) {
        self.place.profiles.forget(user_ids, &[]);
        for user_id in user_ids {
            let key = self.key(ProfileId::User(*user_id));
            let mut redis = self.place.redis.link().await.unwrap();
            let _gone: u64 = bounded(redis::cmd("DEL").arg(key).query_async(&mut redis)).await.unwrap();
        }
    }
}

/// The stand-in, and settings that ask it.
pub async fn stand_in() -> (tempfile::TempDir, Kaha, ProfileSettings) {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("service-key.pem");
    std::fs::write(&key, KEY).unwrap();
    let kaha = Kaha::start(directory.path(), KahaPorts::default(), &[&key]).await.unwrap();
    let settings = settings(&kaha.api_url(), &key);
    (directory, kaha, settings)
}

/// Settings that ask kaha-main-v3 at an address.
pub fn settings(url: &str, key: &std::path::Path) -> ProfileSettings {
    ProfileSettings {
        kaha_url: Some(url.parse().unwrap()),
        service_key_file: Some(key.to_owned()),
        ..ProfileSettings::none()
    }
}

/// The profiles of one more gateway of a place.
pub fn start(settings: &ProfileSettings, place: &Place) -> Profiles {
    let surroundings = Surroundings {
        redis: place.redis.clone(),
        nats: place.nats.clone(),
        database: place.database.clone(),
        clock: Clock::System,
        signer: settings.signer().unwrap(),
        tasks: place.tasks.clone(),
    };
    Profiles::start(settings, surroundings).unwrap()
}

/// A user's profile among others.
pub fn profile_of(list: &ProfileList, user_id: UserId) -> UserProfile {
    list.users.iter().find(|profile| profile.user_id == user_id).cloned().unwrap()
}

/// How a user is shown of whom nothing is known.
pub fn unanswered(user_id: UserId) -> UserProfile {
    UserProfile { user_id, name: "User".to_owned(), avatar_url: None, state: ProfileState::Unavailable }
}
