//! Handshakes over HTTP: what a user may open in a short time.

use chat_shared::{
    ids::UserId,
    wire::{ErrorBody, ErrorCode},
};
use reqwest::{Method, StatusCode, header};

use super::{
    gateway::Gateway,
    place::{until, users},
};

/// Why a handshake is refused; none if it is not.
async fn refused(gateway: &Gateway, user_id: UserId) -> Option<ErrorBody> {
    let handshake = gateway
        .request(user_id, Method::GET, "/v1/ws")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(header::SEC_WEBSOCKET_PROTOCOL, "chat.v1.json");
    let response = handshake.send().await.unwrap();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    Some(response.json().await.unwrap())
}

#[tokio::test]
async fn handshakes_count_for_the_user_as_requests_do_and_for_nobody_else() {
    let gateway = Gateway::start().await;
    let [ana, ben] = users();
    until("refusing a user who asks too much", async || {
        // What is used up comes back within milliseconds.
        while gateway.state.rate.check(ana).is_ok() {}
        // A user with too many connections waits for longer.
        refused(&gateway, ana).await.is_some_and(|refusal| {
            refusal.code == ErrorCode::RateLimited && refusal.retry_after_ms.is_some_and(|wait| wait < 1000)
        })
    })
    .await;
    assert_eq!(refused(&gateway, ben).await, None);
}
