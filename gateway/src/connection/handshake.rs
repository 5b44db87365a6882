//! The HTTP request that becomes a WebSocket: everything that can be refused is refused here, in HTTP.

use axum::{
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use chat_shared::wire::Encoding;
use fastwebsockets::upgrade::IncomingUpgrade;
use serde::Deserialize;

use super::reader;
use crate::{
    auth::{Identity, TokenError, authenticate, bearer, redeem},
    edge::Client,
    refusal::Refusal,
    state::AppState,
};

/// The subprotocol entry that carries a browser's token.
const BEARER_PREFIX: &str = "bearer.";

/// `GET /v1/ws`
pub async fn open(
    State(state): State<AppState>,
    client: Client,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<IncomingUpgrade, axum::http::StatusCode>,
) -> Result<Response, Refusal> {
    if state.tasks.draining().is_cancelled() {
        return Err(Refusal::unavailable("this gateway", &Draining));
    }
    let upgrade = upgrade.map_err(|_| Refusal::invalid("/v1/ws takes a WebSocket handshake of version 13"))?;
    // A page of another site can't set this header on a WebSocket, and apps give any Origin.
    if bearer(&headers).is_none() {
        state.edge.check_origin(&headers)?;
    }
    let offered = offered_subprotocols(&headers);
    let encoding = *Encoding::ALL
        .iter()
        .find(|encoding| offered.contains(&encoding.subprotocol()))
        .ok_or_else(|| Refusal::invalid("offer the subprotocol chat.v1.json or chat.v1.msgpack"))?;
    let token = bearer(&headers).or_else(|| offered.iter().find_map(|entry| entry.strip_prefix(BEARER_PREFIX)));
    let identity = identify(&state, client, token, ticket(&uri)?).await?;
    // Counted for the user first, so that nobody takes up the handshakes of all; and only now, so that nobody without a
    // token does.
    state.rate.check(identity.user_id)?;
    state.rate.check_handshake().map_err(Refusal::too_many_handshakes)?;
    let admission = state.connections.admit(identity.user_id).ok_or_else(Refusal::too_many_connections)?;
    // In a box, since few have one.
    let place = state.edge.admit(client)?.map(Box::new);

    let (response, socket) = upgrade.upgrade().map_err(|error| Refusal::internal(&error))?;
    state.tasks.clone().best_effort("connection", async move {
        // The client may go before the upgrade; then there is nothing to serve.
        if let Ok(socket) = socket.await {
            reader::serve(state, identity, encoding, socket).await;
        }
        drop((admission, place));
    });
    let mut response = response.into_response();
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(encoding.subprotocol()));
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
#[error("the gateway is stopping")]
struct Draining;

/// What the address says beside the path.
#[derive(Deserialize)]
struct Asked {
    ticket: Option<String>,
}

fn ticket(uri: &Uri) -> Result<Option<String>, Refusal> {
    let asked = Query::<Asked>::try_from_uri(uri);
    // The error would quote what it can't read.
    asked.map(|Query(asked)| asked.ticket).map_err(|_| Refusal::invalid("give one `ticket`, or none"))
}

async fn identify(
    state: &AppState,
    client: Client,
    token: Option<&str>,
    ticket: Option<String>,
) -> Result<Identity, Refusal> {
    match (token, ticket) {
        (Some(token), None) => authenticate(state, client, token).await,
        (None, Some(ticket)) => redeem(state, client, &ticket).await,
        (Some(_), Some(_)) => Err(Refusal::invalid("give a token or a ticket, not both")),
        (None, None) => Err(TokenError::Missing.into()),
    }
}

fn offered_subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols_may_come_in_one_header_or_several() {
        let mut headers = HeaderMap::new();
        headers.append(header::SEC_WEBSOCKET_PROTOCOL, "chat.v1.json, bearer.abc".parse().unwrap());
        headers.append(header::SEC_WEBSOCKET_PROTOCOL, "other".parse().unwrap());
        assert_eq!(offered_subprotocols(&headers), ["chat.v1.json", "bearer.abc", "other"]);
    }
}
