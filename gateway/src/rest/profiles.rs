//! The route of profiles.

use axum::{Json, extract::State};
use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
    wire::ProfileList,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{Ids, InQuery},
    refusals::AnyRefusal,
};
use crate::{auth::Identity, distinct::distinct, quota::Resource, refusal::Refusal, state::AppState};

/// Whose profiles: 1 to 100 ids together.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ProfileQuery {
    /// Users, separated by commas.
    #[serde(default)]
    #[param(value_type = Option<String>, example = "936da01f-9abd-4d9d-80c7-02af85c822a8,67e55044-10b1-426f-9247-bb680e5fe0c8")]
    user_ids: Ids<UserId>,
    /// Businesses, separated by commas.
    #[serde(default)]
    #[param(value_type = Option<String>, example = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427")]
    business_ids: Ids<BusinessId>,
}

/// Ask for names and pictures
///
/// For those whom no conversation shows: who has left, or a business before the first message. Each has a name to show;
/// `state` says how far it can be trusted. What isn't known at once is pushed to you when it arrives.
#[utoipa::path(
    get,
    path = "/v1/profiles",
    operation_id = "get_profiles",
    tag = "profiles",
    security(("bearer" = [])),
    params(ProfileQuery),
    responses((status = 200, description = "Each id once, in the order asked for", body = ProfileList), AnyRefusal)
)]
pub async fn list(
    identity: Identity,
    State(state): State<AppState>,
    InQuery(query): InQuery<ProfileQuery>,
) -> Result<Json<ProfileList>, Refusal> {
    let (user_ids, business_ids) = (distinct(query.user_ids.0), distinct(query.business_ids.0));
    let count = user_ids.len() + business_ids.len();
    if count == 0 || count > limits::PROFILES_MAX {
        let max = limits::PROFILES_MAX;
        return Err(Refusal::invalid(format!("1 to {max} different ids in `user_ids` and `business_ids` together")));
    }
    state.rate.check_profiles(identity.user_id, count)?;
    state.quotas.take(identity.user_id, Resource::ProfileIds, count as u64)?;
    Ok(Json(state.profiles.list(identity.user_id, &user_ids, &business_ids).await))
}
