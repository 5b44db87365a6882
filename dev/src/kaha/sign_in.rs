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
    Json(accounts.people.all().cloned().collect())
}

/// A request for a token. Without `user_id` it is for the person of `/dev/users` with this `name`, whose id stays the
/// same; a name that isn't in that list, and none, make a new user with a random id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    user_id: Option<Uuid>,
    name: Option<String>,
    /// The token's lifetime; [`TOKEN_TTL`] without it, and at most that.
    ttl_s: Option<u64>,
    /// The login that the token belongs to; a new one if it isn't given.
    sid: Option<Uuid>,
}

/// Where the user of a token comes from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    /// `user_id` of the request.
    Given,
    /// A person of `/dev/users`.
    Known,
    /// Made for this request: the next one with the same name makes another.
    New,
}

#[derive(Debug, Serialize)]
struct TokenAnswer {
    user_id: Uuid,
    user: Origin,
    sid: Uuid,
    token: String,
    expires_in_s: u64,
}

async fn issue(
    State(accounts): State<Arc<Accounts>>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenAnswer>, Refused> {
    let known = request.name.as_deref().and_then(|name| accounts.people.named(name));
    let (user_id, user) = match (request.user_id, known) {
        (Some(user_id), _) => (user_id, Origin::Given),
        (None, Some(person)) => (person.id, Origin::Known),
        (None, None) => (Uuid::new_v4(), Origin::New),
    };
    let ttl = request.ttl_s.map_or(TOKEN_TTL, Duration::from_secs);
    if ttl.is_zero() || ttl > TOKEN_TTL {
        let most = TOKEN_TTL.as_secs();
        return Err((
            StatusCode::BAD_REQUEST,
            format!("`ttl_s` is a lifetime in seconds: 1 to {most}, {most} without it"),
        ));
    }
    let sid = request.sid.unwrap_or_else(Uuid::new_v4);
    let token = accounts.tokens.user_in_session(user_id, sid, ttl).map_err(|error| fault(&error))?;
    Ok(Json(TokenAnswer { user_id, user, sid, token, expires_in_s: ttl.as_secs() }))
}

pub(super) fn fault(error: &anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}
