//! Tickets over HTTP, on gateways that stand side by side.

use std::net::SocketAddr;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::{
    clock::{Clock, Timestamp},
    ids::{LoginId, UserId},
    wire::{ErrorBody, ErrorCode, Ticket},
};
use reqwest::{Method, StatusCode, header};
use serde_json::json;

use super::{
    gateway::{self, Gateway, token},
    place::users,
};
use crate::auth::Identity;

/// How tickets begin.
const PREFIX: &str = "ct1_";

/// Two gateways of one installation.
async fn pair() -> (Gateway, SocketAddr) {
    let first = Gateway::start().await;
    let second = gateway::serve(&gateway::state(&first.place).await).await;
    (first, second)
}

async fn issue(gateway: &Gateway, user_id: UserId) -> Ticket {
    let response = gateway.request(user_id, Method::POST, "/v1/tickets").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    response.json().await.unwrap()
}

/// What a handshake comes to.
async fn open(address: SocketAddr, query: &str, token: Option<&str>) -> Result<(), (u16, ErrorCode)> {
    let protocols = token.map_or_else(|| "chat.v1.json".to_owned(), |token| format!("chat.v1.json, bearer.{token}"));
    let handshake = reqwest::Client::new()
        .get(format!("http://{address}/v1/ws{query}"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    let response = handshake.send().await.unwrap();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    Err((response.status().as_u16(), response.json::<ErrorBody>().await.unwrap().code))
}

const REFUSED: Result<(), (u16, ErrorCode)> = Err((401, ErrorCode::Unauthenticated));

#[tokio::test]
async fn a_ticket_opens_one_websocket_on_any_gateway_r6_4() {
    let (first, second) = Box::pin(pair()).await;
    let [ana] = users();
    let Ticket { ticket, expires_in_s } = issue(&first, ana).await;
    assert!(ticket.starts_with(PREFIX));
    assert_eq!((ticket.len(), expires_in_s), (47, 30));
    let query = format!("?ticket={ticket}");
    assert_eq!(open(second, &query, None).await, Ok(()));
    for address in [first.address, second] {
        assert_eq!(open(address, &query, None).await, REFUSED, "it is used up");
    }
    let tickets = [issue(&first, ana).await.ticket, issue(&first, ana).await.ticket];
    assert_ne!(tickets[0], tickets[1]);
}

#[tokio::test]
async fn of_many_that_show_one_ticket_at_once_one_gets_in_r6_4() {
    let (first, second) = Box::pin(pair()).await;
    let [ana] = users();
    let query = format!("?ticket={}", issue(&first, ana).await.ticket);
    let opening = (0..20).map(|number| open(if number % 2 == 0 { first.address } else { second }, &query, None));
    let opened = futures_util::future::join_all(opening).await;
    assert_eq!(opened.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test]
async fn what_is_no_ticket_opens_nothing_and_uses_nothing_up_r6_4() {
    let gateway = Gateway::start().await;
    let [ana] = users();
    let Ticket { ticket, .. } = issue(&gateway, ana).await;
    let chance = ticket.strip_prefix(PREFIX).unwrap();
    let made_up = [
        chance.to_owned(),
        format!("{PREFIX}{}", &chance[1..]),
        format!("{PREFIX}{PREFIX}{chance}"),
        format!("CT1_{chance}"),
        format!("{PREFIX}{}", "A".repeat(43)),
        format!("{PREFIX}{}", "A".repeat(4000)),
        format!("{ticket}A"),
        format!("{ticket}="),
    ];
    for wrong in ["", "a", "%00", "%ff", PREFIX].into_iter().chain(made_up.iter().map(String::as_str)) {
        assert_eq!(open(gateway.address, &format!("?ticket={wrong}"), None).await, REFUSED, "{wrong:.50}");
    }
    let invalid = Err((400, ErrorCode::Invalid));
    assert_eq!(open(gateway.address, &format!("?ticket={ticket}&ticket={ticket}"), None).await, invalid);
    let both = open(gateway.address, &format!("?ticket={ticket}"), Some(&token(ana, &json!({})))).await;
    assert_eq!(both, invalid);
    assert_eq!(open(gateway.address, "", None).await, REFUSED);
    let anonymous = gateway.http.post(format!("http://{}/v1/tickets", gateway.address));
    assert_eq!(gateway.refused(anonymous).await, (401, ErrorCode::Unauthenticated));
    assert_eq!(open(gateway.address, &format!("?ticket={ticket}"), None).await, Ok(()));
}

#[tokio::test]
async fn a_ticket_is_worth_as_much_as_the_token_it_was_made_with_r6_4() {
    let (gateway, second) = Box::pin(pair()).await;
    let state = &gateway.state;
    let [ana, ben] = users();
    let expired = Identity { expires_at: Clock::System.now(), ..Identity::for_ever(ana) };
    let ended = Identity { login: Some(LoginId::of("phone")), ..Identity::for_ever(ana) };
    let all = Identity { issued_at: Timestamp(Clock::System.now().0), ..Identity::for_ever(ben) };
    let mut queries = Vec::new();
    for identity in [expired, ended, all] {
        queries.push(format!("?ticket={}", state.tickets.issue(identity).await.unwrap().ticket));
    }
    state.revocations.revoke(state, ana, ended.login).await.unwrap();
    state.revocations.revoke(state, ben, None).await.unwrap();
    for query in &queries {
        assert_eq!(open(gateway.address, query, None).await, REFUSED);
    }
    assert_eq!(open(second, &queries[0], None).await, REFUSED, "whatever came of it, it was used");
    let identity = Identity { expires_at: Timestamp(Clock::System.now().0 + 60_000), ..Identity::for_ever(ana) };
    let ticket = state.tickets.issue(identity).await.unwrap().ticket;
    assert_eq!(state.tickets.take(&ticket).await, Ok(Some(identity)), "it expires with the token");
}

#[tokio::test]
async fn redis_keeps_a_ticket_for_half_a_minute_and_by_its_hash_only_r6_4() {
    let gateway = Gateway::start().await;
    let [ana] = users();
    let ticket = issue(&gateway, ana).await.ticket;
    let mut connection = gateway.place.redis.link().await.unwrap();
    let chance = BASE64.decode(ticket.strip_prefix(PREFIX).unwrap()).unwrap();
    let hash = digest::digest(&digest::SHA256, &[&chance[..], connection.run().as_bytes()].concat());
    let key = format!("{}:ticket:{}", gateway.place.namespace, BASE64.encode(hash));
    let life_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!((1..=30_000).contains(&life_ms));
}
