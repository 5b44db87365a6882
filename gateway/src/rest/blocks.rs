//! Routes of blocks.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::{
    ids::UserId,
    wire::{BlockList, ErrorBody},
};

use super::{extract::InPath, refusals::AnyRefusal};
use crate::{
    auth::Identity,
    quota::{EVENT_BYTES, Resource},
    refusal::Refusal,
    state::AppState,
};

/// Block a user
///
/// Neither can send the other anything in their direct conversation, or make one; neither is told of the other's presence,
/// or notified of what the other wrote there. Groups in which both take part go on as before. The other one is not told.
/// Blocking somebody twice is blocking them once.
#[utoipa::path(
    put,
    path = "/v1/blocks/{user_id}",
    operation_id = "block_user",
    tag = "blocks",
    security(("bearer" = [])),
    params(("user_id" = UserId, Path, description = "Whom")),
    responses(
        (status = 204, description = "They are blocked"),
        (status = 409, description = "`conflict`: you have blocked as many as may be", body = ErrorBody),
        AnyRefusal,
    )
)]
pub async fn block(
    identity: Identity,
    State(state): State<AppState>,
    InPath(user_id): InPath<UserId>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.conversations.block(identity.user_id, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unblock a user
///
/// Also if they aren't blocked. If the other one has blocked you, that stays.
#[utoipa::path(
    delete,
    path = "/v1/blocks/{user_id}",
    operation_id = "unblock_user",
    tag = "blocks",
    security(("bearer" = [])),
    params(("user_id" = UserId, Path, description = "Whom")),
    responses((status = 204, description = "They are not blocked by you"), AnyRefusal)
)]
pub async fn unblock(
    identity: Identity,
    State(state): State<AppState>,
    InPath(user_id): InPath<UserId>,
) -> Result<StatusCode, Refusal> {
    state.conversations.unblock(identity.user_id, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List whom you have blocked
///
/// All of them, the latest first. Who has blocked you is nobody's business but theirs.
#[utoipa::path(
    get,
    path = "/v1/blocks",
    operation_id = "list_blocks",
    tag = "blocks",
    security(("bearer" = [])),
    responses((status = 200, description = "Whom you have blocked", body = BlockList), AnyRefusal)
)]
pub async fn list(identity: Identity, State(state): State<AppState>) -> Result<Json<BlockList>, Refusal> {
    Ok(Json(state.conversations.blocks(identity.user_id).await?))
}
