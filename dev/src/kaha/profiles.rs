//! Names and avatars of users and businesses, as kaha-main-v3 keeps them.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::people::{NAMES, People};
use crate::stand_in::lock;

/// Is part of every name and of every avatar's address that is made here, so that tests can search for them where
/// they must not be.
pub const PROFILE_MARK: &str = "Yakglocke";

/// Profiles that were set or forgotten; with more, all of them are as they were at first.
const CHANGES_MAX: usize = 100_000;

/// How somebody is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What to call them.
    pub name: String,
    /// A picture of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// Everybody's. Whoever was neither set nor forgotten has one that follows from their id.
#[derive(Debug)]
pub struct Profiles {
    users: Mutex<HashMap<Uuid, Option<Profile>>>,
    businesses: Mutex<HashMap<Uuid, Option<Profile>>>,
    knows_everybody: AtomicBool,
}

impl Profiles {
    /// With those of people whose names are known, and of their business.
    pub fn of(people: &People) -> Self {
        let business = people.business();
        let shown = profile(&format!("{} {PROFILE_MARK}", business.name), Some(&avatar_url("businesses", business.id)));
        let users = people.all().map(|person| {
            let name = format!("{} {PROFILE_MARK}", person.name);
            (person.id, Some(Profile { name, avatar_url: Some(avatar_url("people", person.id)) }))
        });
        Self {
            users: Mutex::new(users.collect()),
            businesses: Mutex::new(HashMap::from([(business.id, Some(shown))])),
            knows_everybody: AtomicBool::new(true),
        }
    }

    /// Whether ids that were never set have profiles too. They do at first.
    pub fn know_everybody(&self, does: bool) {
        self.knows_everybody.store(does, Ordering::Release);
    }

    /// A user's; `None` if nobody has this id.
    pub fn user(&self, id: Uuid) -> Option<Profile> {
        self.find(&self.users, id, || Profile {
            name: format!("{} {PROFILE_MARK} {}", NAMES[usize::from(id.as_bytes()[0]) % NAMES.len()], short(id)),
            avatar_url: Some(avatar_url("people", id)),
        })
    }

    /// A business'; `None` if none has this id.
    pub fn business(&self, id: Uuid) -> Option<Profile> {
        self.find(&self.businesses, id, || Profile {
            name: format!("{PROFILE_MARK} Tea House {}", short(id)),
            avatar_url: Some(avatar_url("businesses", id)),
        })
    }

    /// Changes a user's.
    pub fn set_user(&self, id: Uuid, name: &str, avatar_url: Option<&str>) {
        put(&self.users, id, Some(profile(name, avatar_url)));
    }

    /// Changes a business'.
    pub fn set_business(&self, id: Uuid, name: &str, avatar_url: Option<&str>) {
        put(&self.businesses, id, Some(profile(name, avatar_url)));
    }

    /// From now on nobody and no business has this id.
    pub fn forget(&self, id: Uuid) {
        put(&self.users, id, None);
        put(&self.businesses, id, None);
    }

    fn find(
        &self,
        set: &Mutex<HashMap<Uuid, Option<Profile>>>,
        id: Uuid,
        make: impl FnOnce() -> Profile,
    ) -> Option<Profile> {
        let known = lock(set).get(&id).cloned();
        known.unwrap_or_else(|| self.knows_everybody.load(Ordering::Acquire).then(make))
    }
}

fn put(set: &Mutex<HashMap<Uuid, Option<Profile>>>, id: Uuid, profile: Option<Profile>) {
    let mut set = lock(set);
    if set.len() >= CHANGES_MAX {
        set.clear();
    }
    set.insert(id, profile);
}

fn profile(name: &str, avatar_url: Option<&str>) -> Profile {
    Profile { name: name.to_owned(), avatar_url: avatar_url.map(str::to_owned) }
}

/// Tells people of the same name apart.
fn short(id: Uuid) -> String {
    id.simple().to_string()[..6].to_owned()
}

fn avatar_url(of: &str, id: Uuid) -> String {
    format!("https://images.example.com/{PROFILE_MARK}/{of}/{}.jpg", short(id))
}
