//! The endpoint of changed profiles.

use axum::{extract::State, http::StatusCode};
use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Internal,
    describe::ServiceRefusal,
    service::{Allowed, Scope},
};
use crate::{
    refusal::Refusal,
    rest::{AnyRefusal, Body, BodyRefusal},
};

/// Lets its bearer say that profiles have changed.
pub struct ProfilesInvalidate;

impl Scope for ProfilesInvalidate {
    const NAME: &'static str = "profiles:invalidate";
}

/// Whose profiles have changed; 200 ids together at the most.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedProfiles {
    /// Users.
    #[serde(default)]
    user_ids: Vec<UserId>,
    /// Businesses.
    #[serde(default)]
    business_ids: Vec<BusinessId>,
}

/// Say that names or pictures have changed
///
/// From the answer on they are asked for anew, and whoever shares a conversation with these users is told what they are.
#[utoipa::path(
    post,
    path = "/internal/v1/profiles/invalidate",
    tag = "profiles",
    security(("service" = ["profiles:invalidate"])),
    request_body = ChangedProfiles,
    responses((status = 204, description = "Nothing older is shown any more"), AnyRefusal, BodyRefusal, ServiceRefusal)
)]
pub async fn invalidate(
    _service: Allowed<ProfilesInvalidate>,
    State(Internal { state, .. }): State<Internal>,
    Body(ChangedProfiles { user_ids, business_ids }): Body<ChangedProfiles>,
) -> Result<StatusCode, Refusal> {
    if user_ids.len() + business_ids.len() > limits::INTERNAL_IDS_MAX {
        return Err(Refusal::invalid(format!("there are more than {} ids", limits::INTERNAL_IDS_MAX)));
    }
    state.profiles.changed(&user_ids, &business_ids).await?;
    Ok(StatusCode::NO_CONTENT)
}
