//! Sign-in and public keys.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Accounts, Person, tokens::TOKEN_TTL};

pub(super) type Refused = (StatusCode, String);

/// The endpoints.
pub fn router(accounts: Arc<Accounts>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/.well-known/service-jwks.json", get(service_jwks))
        .route("/dev/users", get(users))
        .route("/dev/tokens", post(issue))
        .with_state(accounts)
}

async fn jwks(State(accounts): State<Arc<Accounts>>) -> Json<Value> {
    Json(accounts.tokens.jwks())
}

async fn service_jwks(State(accounts): State<Arc<Accounts>>) -> Json<Value> {
    Json(accounts.service_tokens.jwks())
}

async fn users(State(accounts): State<Arc<Accounts>>) -> Json<Vec<Person>> {
    Json(accounts.people.all().to_vec())
}

/// A wish for a token. Without `user_id` the person called `name` is meant, or
/// else somebody new.
#[derive(Debug, Deserialize)]
struct TokenRequest {
    user_id: Option<Uuid>,
    name: Option<String>,
    ttl_s: Option<u64>,
    /// The login that the token belongs to; a new one if it isn't said.
    sid: Option<Uuid>,
}

#[derive(Debug, Serialize)]
struct TokenAnswer {
    user_id: Uuid,
    sid: Uuid,
    token: String,
    expires_in_s: u64,
}

async fn issue(
    State(accounts): State<Arc<Accounts>>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenAnswer>, Refused> {
    let known = request.name.as_deref().and_then(|name| accounts.people.named(name));
    let user_id = request.user_id.or_else(|| known.map(|person| person.id)).unwrap_or_else(Uuid::new_v4);
    let ttl = request.ttl_s.map_or(TOKEN_TTL, Duration::from_secs);
    let sid = request.sid.unwrap_or_else(Uuid::new_v4);
    let token = accounts.tokens.user_in_session(user_id, sid, ttl).map_err(|error| fault(&error))?;
    Ok(Json(TokenAnswer { user_id, sid, token, expires_in_s: ttl.as_secs() }))
}

pub(super) fn fault(error: &anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}
