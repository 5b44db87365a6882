//! The route of one-time tickets.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::wire::Ticket;

use super::refusals::AnyRefusal;
use crate::{auth::Identity, refusal::Refusal, state::AppState};

/// Get a ticket for one WebSocket
///
/// For clients that can set neither a header nor a subprotocol: `/v1/ws?ticket=…` instead of the token. Any gateway takes
/// it, once, within 30 seconds. The connection ends when the token does that this request was made with.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    operation_id = "issue_ticket",
    tag = "tickets",
    security(("bearer" = [])),
    responses((status = 201, description = "The ticket; it is a secret", body = Ticket), AnyRefusal)
)]
pub async fn issue(identity: Identity, State(state): State<AppState>) -> Result<(StatusCode, Json<Ticket>), Refusal> {
    let ticket = state.tickets.issue(identity).await?;
    Ok((StatusCode::CREATED, Json(ticket)))
}
