//! Names and avatars, which belong to kaha-main-v3 and are kept for a while only.

use serde::{Deserialize, Serialize};

use crate::ids::{BusinessId, UserId};

/// How far a profile can be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileState {
    /// As kaha-main-v3 has it, or had it within a day and said nothing of a change since.
    Current,
    /// As kaha-main-v3 had it once; it can't be asked now.
    Stale,
    /// kaha-main-v3 doesn't know this id: the account is gone. The name is a neutral one.
    Unknown,
    /// Nothing is known and kaha-main-v3 can't be asked now. The name is a neutral one; a `profile` push may follow.
    #[default]
    Unavailable,
}

/// What a user is called and looks like.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserProfile {
    /// Who.
    pub user_id: UserId,
    /// The name to show. Never empty.
    pub name: String,
    /// Where the picture is, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// How far this can be trusted.
    pub state: ProfileState,
}

/// What a business is called and looks like.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BusinessProfile {
    /// Which one.
    pub business_id: BusinessId,
    /// The name to show. Never empty.
    pub name: String,
    /// Where the picture is, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// How far this can be trusted.
    pub state: ProfileState,
}

impl BusinessProfile {
    /// Of a business whose name isn't known.
    pub fn unavailable(business_id: BusinessId) -> Self {
        Self { business_id, name: "Business".to_owned(), avatar_url: None, state: ProfileState::Unavailable }
    }
}

/// A customer is shown the business as a participant.
impl From<BusinessProfile> for UserProfile {
    fn from(BusinessProfile { business_id, name, avatar_url, state }: BusinessProfile) -> Self {
        Self { user_id: business_id.into(), name, avatar_url, state }
    }
}

/// Profiles that were asked for, or that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileList {
    /// Of users.
    #[serde(default)]
    pub users: Vec<UserProfile>,
    /// Of businesses.
    #[serde(default)]
    pub businesses: Vec<BusinessProfile>,
}

/// What a conversation is called, as the asking user sees it (R2.5).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConversationName {
    /// The other participant's name, to a customer that of the business and to staff that of the customer; of a group those of the first three participants, with commas between them.
    pub text: String,
    /// Participants of a group beyond those three.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// The other participant's picture, if there is one. The pictures of a group are those in `profiles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Whether a neutral name stands in for one that isn't known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fallback: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Profiles are nobody's business but the client's, so their `Debug` form has no name.
macro_rules! masked {
    ($($name:ident $(. $id:ident)?),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($id), &self.$id))?.finish_non_exhaustive()
            }
        }
    )*};
}

masked!(UserProfile.user_id, BusinessProfile.business_id, ConversationName);
