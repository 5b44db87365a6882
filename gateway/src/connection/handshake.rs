//! The HTTP request that becomes a WebSocket: everything that can be refused is refused here, in HTTP.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chat_shared::wire::Encoding;
use fastwebsockets::upgrade::IncomingUpgrade;

use super::reader;
use crate::{
    auth::{TokenError, bearer},
    refusal::Refusal,
    state::AppState,
};

/// The subprotocol entry that carries a browser's token.
const BEARER_PREFIX: &str = "bearer.";

/// `GET /v1/ws`
pub async fn open(
    State(state): State<AppState>,
    headers: HeaderMap,
    upgrade: Result<IncomingUpgrade, axum::http::StatusCode>,
) -> Result<Response, Refusal> {
    if state.tasks.draining().is_cancelled() {
        return Err(Refusal::unavailable("this gateway", &Draining));
    }
    let upgrade = upgrade.map_err(|_| Refusal::invalid("/v1/ws takes a WebSocket handshake of version 13"))?;
    refuse_origin(&headers, &state.allowed_origins)?;
    let offered = offered_subprotocols(&headers);
    let encoding = *Encoding::ALL
        .iter()
        .find(|encoding| offered.contains(&encoding.subprotocol()))
        .ok_or_else(|| Refusal::invalid("offer the subprotocol chat.v1.json or chat.v1.msgpack"))?;
    let token = bearer(&headers)
        .or_else(|| offered.iter().find_map(|entry| entry.strip_prefix(BEARER_PREFIX)))
        .ok_or(TokenError::Missing)?;
    let identity = state.verifier.verify(token).await?;
    // Counted only now, so that nobody without a token keeps others out.
    state.rate.check_handshake().map_err(Refusal::too_many_handshakes)?;
    let admission = state.connections.admit(identity.user_id).ok_or_else(Refusal::too_many_connections)?;

    let (response, socket) = upgrade.upgrade().map_err(|error| Refusal::internal(&error))?;
    state.tasks.clone().best_effort("connection", async move {
        // The client may go before the upgrade; then there is nothing to serve.
        if let Ok(socket) = socket.await {
            reader::serve(state, identity, encoding, socket).await;
        }
        drop(admission);
    });
    let mut response = response.into_response();
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(encoding.subprotocol()));
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
#[error("the gateway is stopping")]
struct Draining;

fn offered_subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// Browsers always send an Origin, and only those in the list may come in.
fn refuse_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    if allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::forbidden("this Origin is not in the gateway's list of allowed origins"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_come_in() {
        let allowed = ["https://app.example".to_owned()];
        let with = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            refuse_origin(&headers, &allowed)
        };
        assert!(refuse_origin(&HeaderMap::new(), &allowed).is_ok());
        assert!(with("https://app.example").is_ok());
        for wrong in ["http://app.example", "https://app.example.evil", "https://app.example:8443", "null", ""] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subprotocols_may_come_in_one_header_or_several() {
        let mut headers = HeaderMap::new();
        headers.append(header::SEC_WEBSOCKET_PROTOCOL, "chat.v1.json, bearer.abc".parse().unwrap());
        headers.append(header::SEC_WEBSOCKET_PROTOCOL, "other".parse().unwrap());
        assert_eq!(offered_subprotocols(&headers), ["chat.v1.json", "bearer.abc", "other"]);
    }
}
