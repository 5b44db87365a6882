//! The route of presence.

use axum::{Json, extract::State};
use chat_shared::{
    ids::UserId,
    wire::{ErrorBody, PresenceList},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{Ids, InQuery},
    refusals::AnyRefusal,
};
use crate::{auth::Identity, presence, refusal::Refusal, state::AppState};

/// Whose presence.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PresenceQuery {
    /// Users with whom you share a conversation, or yourself; 1 to 100 ids, separated by commas.
    #[param(value_type = String, example = "936da01f-9abd-4d9d-80c7-02af85c822a8,67e55044-10b1-426f-9247-bb680e5fe0c8")]
    user_ids: Ids<UserId>,
}

/// Ask who is there
///
/// For those who look once; a connection that wants to be told of changes says `watch_presence`. All of the users must
/// share a conversation with you, or nothing is shown.
#[utoipa::path(
    get,
    path = "/v1/presence",
    operation_id = "get_presence",
    tag = "presence",
    security(("bearer" = [])),
    params(PresenceQuery),
    responses(
        (status = 200, description = "Each user once, in the order asked for", body = PresenceList),
        (
            status = 404,
            description = "`not_found`: one of the users doesn't exist or shares no conversation with you",
            body = ErrorBody,
        ),
        AnyRefusal,
    )
)]
pub async fn list(
    identity: Identity,
    State(state): State<AppState>,
    InQuery(query): InQuery<PresenceQuery>,
) -> Result<Json<PresenceList>, Refusal> {
    let users = presence::presence_of(&state, identity.user_id, query.user_ids.0).await?;
    Ok(Json(PresenceList { users }))
}
