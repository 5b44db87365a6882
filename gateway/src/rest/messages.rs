//! Routes of messages: history, and sending for servers and scripts.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::{
    ids::ConversationId,
    position::Seq,
    wire::{Accepted, ErrorBody, ErrorCode, HistoryPage, SendMessage, SendMessageBody},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{Body, InPath, InQuery, PageLimit},
    refusals::{AnyRefusal, BodyRefusal, MemberRefusal},
};
use crate::{auth::Identity, history::Place, refusal::Refusal, state::AppState};

/// Which part of the history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Messages before this number, the nearest ones.
    #[param(value_type = Option<u64>)]
    before: Option<Seq>,
    /// Messages after this number, the nearest ones; 0 is from the beginning. Not together with `before`.
    #[param(value_type = Option<u64>)]
    after: Option<Seq>,
    /// Messages of the page: 50 unless given, 100 at the most; more than that gets 100.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, example = 50)]
    pub(super) limit: PageLimit,
}

impl HistoryQuery {
    pub(super) fn place(&self) -> Result<Place, Refusal> {
        match (self.before, self.after) {
            (None, None) => Ok(Place::Newest),
            (Some(seq), None) => Ok(Place::Before(seq)),
            (None, Some(seq)) => Ok(Place::After(seq)),
            (Some(_), Some(_)) => Err(Refusal::invalid("give `before` or `after`, not both")),
        }
    }
}

/// Read a conversation's history
///
/// The newest messages unless `before` or `after` is given; always in ascending `seq`, without holes. What was accepted
/// is here at once. Supervisors read the conversations of their business too. While a part of ours is out of reach a page may be shorter than asked: `has_more` then says true,
/// and `floor_seq` may be lower than it was; keep the highest that you have seen.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_id}/messages",
    operation_id = "list_messages",
    tag = "messages",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation"), HistoryQuery),
    responses((status = 200, description = "A page", body = HistoryPage), AnyRefusal, MemberRefusal)
)]
pub async fn page(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    InQuery(query): InQuery<HistoryQuery>,
) -> Result<Json<HistoryPage>, Refusal> {
    state.rate.check_rows(identity.user_id, query.limit.0)?;
    let (user_id, place, limit) = (identity.user_id, query.place()?, query.limit.0);
    let page = match state.history.page(user_id, conversation_id, place, limit).await {
        // A supervisor reads the conversations of the business without taking part.
        Err(refusal) if refusal.code == ErrorCode::NotFound => {
            state.businesses.check_reader(user_id, conversation_id).await?;
            state.history.page_for_staff(user_id, conversation_id, place, limit).await?
        }
        page => page?,
    };
    for message in &page.messages {
        state.receipts.remember(conversation_id, message.message_id, message.seq);
    }
    Ok(Json(page))
}

/// Send a message
///
/// For servers and scripts; clients that are connected send by WebSocket. Repeat it with the same `message_id` until it
/// is answered: it stays one message, and the repeat gets the first answer.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/messages",
    operation_id = "send_message",
    tag = "messages",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = SendMessageBody,
    responses(
        (status = 201, description = "Accepted: it is kept under this number", body = Accepted),
        (status = 200, description = "It had been accepted before; the first answer", body = Accepted),
        (status = 403, description = "`forbidden`: there is a block between the two of you", body = ErrorBody),
        (status = 409, description = "`conflict`: the `message_id` was used for another text or by another participant, or the business takes no conversations now", body = ErrorBody),
        AnyRefusal,
        BodyRefusal,
        MemberRefusal,
    )
)]
pub async fn send(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(request): Body<SendMessageBody>,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    let SendMessageBody { message_id, text, is_repeat, seen_seq } = request;
    let sent = state
        .sender
        .send(identity.user_id, SendMessage { conversation_id, message_id, text, is_repeat, seen_seq })
        .await?;
    state.accepted(identity.user_id, conversation_id, message_id, &sent);
    let status = if sent.is_repeat { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Accepted { reference: None, conversation_id, message_id, seq: sent.seq, sent_at: sent.sent_at })))
}
