//! Routes of conversations and their participants.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::{
    ids::{ConversationId, UserId},
    limits,
    wire::{AddParticipants, Conversation, ConversationPage, CreateConversation, ErrorBody},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{Body, InPath, InQuery, PageLimit},
    refusals::{AnyRefusal, BodyRefusal, MemberRefusal, OwnerRefusal},
};
use crate::{
    auth::Identity,
    quota::{EVENT_BYTES, Resource},
    refusal::Refusal,
    state::AppState,
};

/// Make a conversation
///
/// A direct one is made once for each pair: asking again, from either side, gives the one that is there. A group is
/// made anew each time, with 1 to 7 others; users named twice count once. Its maker owns it. A user who has blocked the
/// maker is not put into a group. One with a business is made once for each user: its first case opens, and is
/// assigned before this is answered if an agent has room.
#[utoipa::path(
    post,
    path = "/v1/conversations",
    operation_id = "create_conversation",
    tag = "conversations",
    security(("bearer" = [])),
    request_body = CreateConversation,
    responses(
        (status = 201, description = "It has been made", body = Conversation),
        (status = 200, description = "It was there already", body = Conversation),
        (status = 403, description = "`forbidden`: there is a block between the two of you, or one of the users has blocked you", body = ErrorBody),
        (status = 404, description = "`not_found`: there is no such business", body = ErrorBody),
        (status = 409, description = "`conflict`: the business takes no conversations now, and you have none with it", body = ErrorBody),
        AnyRefusal,
        BodyRefusal,
    )
)]
pub async fn create(
    identity: Identity,
    State(state): State<AppState>,
    Body(request): Body<CreateConversation>,
) -> Result<(StatusCode, Json<Conversation>), Refusal> {
    if let CreateConversation::Group { user_ids } = &request {
        state.rate.check_more(identity.user_id, user_ids.len().min(limits::GROUP_PARTICIPANTS_MAX))?;
    }
    let created = match request {
        CreateConversation::Business { business_id } => {
            state.businesses.converse(&state.quotas, identity.user_id, business_id).await?
        }
        request => state.conversations.create(identity.user_id, &request).await?,
    };
    Ok((if created.is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(created.conversation)))
}

/// Which part of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Conversations of the page: 50 unless given, 100 at the most; more than that gets 100.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, example = 50)]
    limit: PageLimit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List your conversations
///
/// Latest activity first, each with its last message and what is unread. It shows what has been stored: a message that
/// was just accepted may take a moment to show here. History shows it at once.
#[utoipa::path(
    get,
    path = "/v1/conversations",
    operation_id = "list_conversations",
    tag = "conversations",
    security(("bearer" = [])),
    params(ListQuery),
    responses((status = 200, description = "A page", body = ConversationPage), AnyRefusal)
)]
pub async fn list(
    identity: Identity,
    State(state): State<AppState>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<ConversationPage>, Refusal> {
    state.rate.check_rows(identity.user_id, query.limit.0)?;
    let page = state.conversations.list(identity.user_id, query.limit.0, query.cursor.as_deref()).await?;
    page.conversations.iter().for_each(|conversation| remember(&state, conversation));
    Ok(Json(page))
}

/// Show one of your conversations
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_id}",
    operation_id = "get_conversation",
    tag = "conversations",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 200, description = "The conversation", body = Conversation), AnyRefusal, MemberRefusal)
)]
pub async fn get(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<Json<Conversation>, Refusal> {
    let conversation = state.conversations.get(identity.user_id, conversation_id).await?;
    remember(&state, &conversation);
    Ok(Json(conversation))
}

/// Whoever is shown a last message may mark it as read.
fn remember(state: &AppState, conversation: &Conversation) {
    if let Some(message) = &conversation.last_message {
        state.receipts.remember(message.conversation_id, message.message_id, message.seq);
    }
}

/// Add users to a group
///
/// Only its owner may. Those who are in it already are passed over; eight are in a group at the most. A user who has blocked
/// the owner or has left the group is not added. A user who has left it adds themself, alone.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/participants",
    operation_id = "add_participants",
    tag = "conversations",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = AddParticipants,
    responses(
        (status = 200, description = "The group as it is now", body = Conversation),
        AnyRefusal,
        BodyRefusal,
        MemberRefusal,
        OwnerRefusal,
    )
)]
pub async fn add(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(request): Body<AddParticipants>,
) -> Result<Json<Conversation>, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    Ok(Json(state.conversations.add(identity.user_id, conversation_id, &request.user_ids).await?))
}

/// Remove a user from a group, or leave it
///
/// Everybody may remove themselves; the owner may remove anybody. When the owner leaves, the member who has been in it
/// longest becomes the owner. Direct conversations can't be left.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{conversation_id}/participants/{user_id}",
    operation_id = "remove_participant",
    tag = "conversations",
    security(("bearer" = [])),
    params(
        ("conversation_id" = ConversationId, Path, description = "Which conversation"),
        ("user_id" = UserId, Path, description = "Who is to go; your own id to leave"),
    ),
    responses(
        (status = 204, description = "The user is no longer in it"),
        AnyRefusal,
        MemberRefusal,
        OwnerRefusal,
    )
)]
pub async fn remove(
    identity: Identity,
    State(state): State<AppState>,
    InPath((conversation_id, user_id)): InPath<(ConversationId, UserId)>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.conversations.remove(identity.user_id, conversation_id, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
