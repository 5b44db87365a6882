//! What is known of a profile, and what a client is shown of it. Pure.

use std::{fmt, sync::Arc};

use chat_shared::{
    ids::{BusinessId, UserId},
    wire::{BusinessProfile, ProfileState, UserProfile},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a user is called whose name isn't known.
const NEUTRAL_USER: &str = "User";
/// What a business is called whose name isn't known.
const NEUTRAL_BUSINESS: &str = "Business";

/// Whose profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProfileId {
    /// A user's.
    User(UserId),
    /// A business'.
    Business(BusinessId),
}

impl ProfileId {
    /// The id as it is, unmasked.
    pub const fn as_uuid(self) -> Uuid {
        match self {
            Self::User(id) => id.as_uuid(),
            Self::Business(id) => id.as_uuid(),
        }
    }

    /// The ids of users and businesses together.
    pub fn of(user_ids: &[UserId], business_ids: &[BusinessId]) -> Vec<Self> {
        let users = user_ids.iter().copied().map(Self::User);
        users.chain(business_ids.iter().copied().map(Self::Business)).collect()
    }
}

/// A name and perhaps a picture.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Never empty.
    #[serde(rename = "n")]
    pub name: Box<str>,
    /// Where the picture is.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<Box<str>>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").finish_non_exhaustive()
    }
}

/// What kaha-main-v3 says of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is what they are called.
    Known(Arc<Profile>),
    /// Nobody has this id.
    Unknown,
}

/// What a client is shown of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// As kaha-main-v3 has it.
    Current(Arc<Profile>),
    /// As kaha-main-v3 had it once.
    Stale(Arc<Profile>),
    /// kaha-main-v3 doesn't know it.
    Unknown,
    /// Nothing is known of it now.
    Unavailable,
}

impl From<Verdict> for View {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Known(profile) => Self::Current(profile),
            Verdict::Unknown => Self::Unknown,
        }
    }
}

impl View {
    /// A user's profile.
    pub fn of_user(&self, user_id: UserId) -> UserProfile {
        let (name, avatar_url, state) = self.parts(NEUTRAL_USER);
        UserProfile { user_id, name, avatar_url, state }
    }

    /// A business' profile.
    pub fn of_business(&self, business_id: BusinessId) -> BusinessProfile {
        let (name, avatar_url, state) = self.parts(NEUTRAL_BUSINESS);
        BusinessProfile { business_id, name, avatar_url, state }
    }

    fn parts(&self, neutral: &str) -> (String, Option<String>, ProfileState) {
        let (profile, state) = match self {
            Self::Current(profile) => (profile, ProfileState::Current),
            Self::Stale(profile) => (profile, ProfileState::Stale),
            Self::Unknown => return (neutral.to_owned(), None, ProfileState::Unknown),
            Self::Unavailable => return (neutral.to_owned(), None, ProfileState::Unavailable),
        };
        (profile.name.to_string(), profile.avatar_url.as_deref().map(str::to_owned), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_known_has_a_neutral_name_and_says_so_r3_5() {
        let (user_id, business_id) = (UserId::random(), BusinessId::random());
        for (view, state) in [(View::Unknown, ProfileState::Unknown), (View::Unavailable, ProfileState::Unavailable)] {
            let (user, business) = (view.of_user(user_id), view.of_business(business_id));
            assert_eq!((user.name.as_str(), user.avatar_url, user.state), ("User", None, state));
            assert_eq!((business.name.as_str(), business.avatar_url, business.state), ("Business", None, state));
        }
    }

    #[test]
    fn debug_shows_no_name_r3_2() {
        let profile = Profile { name: "Asha".into(), avatar_url: Some("https://example.com/asha.jpg".into()) };
        let shown = format!("{:?}", Verdict::Known(Arc::new(profile)));
        assert!(!shown.to_lowercase().contains("asha"), "{shown}");
    }
}
