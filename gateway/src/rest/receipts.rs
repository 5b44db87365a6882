//! Routes of what has been read, and what has not.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::{
    ids::ConversationId,
    wire::{MarkRead, MarkReadBody, UnreadTotal},
};

use super::{
    extract::{Body, InPath},
    refusals::{AnyRefusal, BodyRefusal, MemberRefusal},
};
use crate::{auth::Identity, refusal::Refusal, state::AppState};

/// Mark a conversation as read
///
/// Up to and with a message, which is any of the conversation's. Only forward: a message before the last one read
/// changes nothing. The other participants are told, and your own devices, with what is left unread. A message that
/// isn't one of the conversation's is `not_found` too. Give its `seq` as well: it spares a search for the message.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/read",
    operation_id = "mark_read",
    tag = "receipts",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = MarkReadBody,
    responses(
        (status = 204, description = "It is read up to there, or further"),
        AnyRefusal,
        BodyRefusal,
        MemberRefusal,
    )
)]
pub async fn mark_read(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(MarkReadBody { message_id, seq }): Body<MarkReadBody>,
) -> Result<StatusCode, Refusal> {
    state.receipts.mark_read(identity.user_id, MarkRead { conversation_id, message_id, seq })?.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Count what you have not read
///
/// Over all conversations, muted ones included; the number for a badge. It shows what has been stored, as the list does.
#[utoipa::path(
    get,
    path = "/v1/unread",
    operation_id = "get_unread",
    tag = "receipts",
    security(("bearer" = [])),
    responses((status = 200, description = "The totals", body = UnreadTotal), AnyRefusal)
)]
pub async fn unread(identity: Identity, State(state): State<AppState>) -> Result<Json<UnreadTotal>, Refusal> {
    Ok(Json(state.conversations.unread(identity.user_id).await?))
}
