//! Routes of muted conversations.

use axum::{extract::State, http::StatusCode};
use chat_shared::{
    ids::ConversationId,
    wire::{Mute, MuteFields},
};

use super::{
    extract::{Body, InPath},
    refusals::{AnyRefusal, BodyRefusal, MemberRefusal},
};
use crate::{auth::Identity, refusal::Refusal, state::AppState};

/// Mute a conversation
///
/// For yourself, until a time or for good. Its messages are delivered and count as unread, but send no notifications.
/// Muting it again replaces the time.
#[utoipa::path(
    put,
    path = "/v1/conversations/{conversation_id}/mute",
    operation_id = "mute_conversation",
    tag = "conversations",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = MuteFields,
    responses((status = 204, description = "It is muted"), AnyRefusal, BodyRefusal, MemberRefusal)
)]
pub async fn mute(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(mute): Body<Mute>,
) -> Result<StatusCode, Refusal> {
    state.conversations.mute(identity.user_id, conversation_id, mute).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unmute a conversation
///
/// Also if it isn't muted.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{conversation_id}/mute",
    operation_id = "unmute_conversation",
    tag = "conversations",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "It is not muted"), AnyRefusal, MemberRefusal)
)]
pub async fn unmute(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<StatusCode, Refusal> {
    state.conversations.unmute(identity.user_id, conversation_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
