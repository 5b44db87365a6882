//! A gateway's REST interface, served over HTTP on rooms of its own.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use chat_dev::test_servers::TestServers;
use chat_shared::{
    clock::Clock,
    ids::{GatewayId, UserId},
    lifecycle::Tasks,
    telemetry::Latch,
    wire::{ErrorBody, ErrorCode},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::place::Place;
use crate::{
    auth::{KeySource, Revocations, Tickets, Verifier, VerifierSettings},
    connection::{self, Registry},
    edge::{self, Edge, EdgeSettings, ProxyProtocol, Waits},
    presence::{Announcer, Departures, Watches},
    profiles::ProfileSettings,
    quota::QuotaSettings,
    rate::RateLimits,
    receipts::{self, Receipts},
    rest,
    state::{AppState, Parts},
    typing::Typing,
};

const SECRET: &str = "a secret that only this test knows and nobody else";
const LIFETIME_MAX: Duration = Duration::from_hours(24);

pub struct Gateway {
    pub place: Place,
    pub state: AppState,
    pub address: SocketAddr,
    pub http: reqwest::Client,
}

impl Gateway {
    pub async fn start() -> Self {
        Box::pin(Self::behind(generous(), Waits::default())).await
    }

    /// As `start`, behind another edge.
    pub async fn behind(edge: EdgeSettings, waits: Waits) -> Self {
        let servers = TestServers::from_env().unwrap();
        let place = Box::pin(Place::on(&servers.isolated().await.unwrap())).await;
        Box::pin(Self::on(place, edge, waits)).await
    }

    /// As `start`, with these quotas.
    pub async fn with_quotas(quotas: &QuotaSettings) -> Self {
        let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
        let place = Box::pin(Place::with(&urls, &ProfileSettings::none(), quotas)).await;
        Box::pin(Self::on(place, generous(), Waits::default())).await
    }

    async fn on(place: Place, edge: EdgeSettings, waits: Waits) -> Self {
        let tasks = place.tasks.clone();
        let state = state_behind(&place, Edge::start(&edge, waits, &tasks), tasks).await;
        receipts::start(&state);
        let address = serve(&state).await;
        Self { place, state, address, http: reqwest::Client::new() }
    }

    pub fn request(&self, user_id: UserId, method: Method, path: &str) -> reqwest::RequestBuilder {
        let token = token(user_id, &json!({}));
        self.http.request(method, format!("http://{}{path}", self.address)).bearer_auth(token)
    }

    pub async fn ask(&self, user_id: UserId, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.request(user_id, method, path);
        let response = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = response.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// The status and code of a request that must be refused in the closed list of codes.
    pub async fn refused(&self, request: reqwest::RequestBuilder) -> (u16, ErrorCode) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body: ErrorBody = response.json().await.expect("every refusal is an ErrorBody");
        assert!(!body.message.is_empty());
        (status, body.code)
    }
}

/// A user's token, with these claims beside those that it needs.
pub fn token(user_id: UserId, claims: &Value) -> String {
    let mut all = json!({ "sub": user_id.as_uuid(), "aud": "chat", "exp": Clock::System.now().0 / 1000 + 60 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key).unwrap()
}

/// Serves a gateway's clients; where.
pub async fn serve(state: &AppState) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/ws", get(connection::open)).merge(rest::router());
    let router = state.edge.protect(router.with_state(state.clone()));
    state.tasks.essential("http", edge::serve(listener, router, Arc::clone(&state.edge.door), state.tasks.clone()));
    address
}

/// What a gateway's requests and connections work with, without its tasks.
pub async fn state(place: &Place) -> AppState {
    state_with(place, place.tasks.clone()).await
}

/// As `state`, for a gateway that stops by itself.
pub async fn state_with(place: &Place, tasks: Tasks) -> AppState {
    state_behind(place, Edge::start(&generous(), Waits::default(), &tasks), tasks).await
}

/// An edge that lets everything in.
pub fn generous() -> EdgeSettings {
    EdgeSettings {
        allowed_origins: "https://app.example".parse().unwrap(),
        trusted_proxies: "".parse().unwrap(),
        proxy_protocol: ProxyProtocol::Off,
        requests_per_address_max: NonZeroU32::new(100_000).unwrap(),
        connections_per_address_max: NonZeroU32::MAX,
        connections_max: NonZeroU32::MAX,
        handshakes_per_second_max: NonZeroU32::MAX,
    }
}

async fn state_behind(place: &Place, edge: Arc<Edge>, tasks: Tasks) -> AppState {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), SECRET).unwrap();
    let keys = KeySource::Secret(secret.path().to_owned());
    let settings = VerifierSettings { keys, audience: "chat".to_owned(), issuer: None, lifetime_max: LIFETIME_MAX };
    AppState::from(Parts {
        gateway_id: GatewayId::random(),
        namespace: place.namespace.clone(),
        edge,
        clock: Clock::System,
        nats: place.nats.clone(),
        database: place.database.clone(),
        inboxes: place.inboxes.clone(),
        verifier: Verifier::start(settings, Latch::default(), &tasks).unwrap(),
        revocations: Revocations::new(place.redis.clone(), LIFETIME_MAX),
        tickets: Tickets::new(place.redis.clone()),
        profiles: place.profiles.clone(),
        rate: RateLimits::start(NonZeroU32::MAX, &tasks),
        quotas: place.quotas.clone(),
        content: place.content.clone(),
        sender: place.sender.clone(),
        conversations: place.conversations.clone(),
        businesses: place.businesses.clone(),
        history: place.history.clone(),
        receipts: Arc::new(Receipts::new(
            place.tail.clone(),
            place.sender.clone(),
            place.database.clone(),
            Clock::System,
        )),
        devices: place.devices(),
        connections: Registry::default(),
        announcer: Announcer::default(),
        departures: Departures::new(place.jobs().await),
        watches: Watches::default(),
        typing: Typing::default(),
        resync: Arc::default(),
        tasks,
    })
}
