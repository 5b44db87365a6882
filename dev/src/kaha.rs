//! Stand-in for kaha-main-v3, which owns users and their sign-in: serves the
//! public key of its tokens, and issues tokens to whoever asks.
//!
//! It signs as the real one does, so the gateway checks real signatures. It
//! must never be reachable from outside this machine.

mod people;
mod tokens;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

pub use self::{
    people::{People, Person},
    tokens::{AUDIENCE, ISSUER, Tokens},
};

/// How long a token lives if the request does not say.
const TTL_DEFAULT_S: u64 = 24 * 60 * 60;

/// The running stand-in. Stops when dropped.
#[derive(Debug)]
pub struct Kaha {
    address: SocketAddr,
    state: Arc<Directory>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Directory {
    tokens: Tokens,
    people: People,
}

impl Kaha {
    /// Starts it on a port of 127.0.0.1, with its key and its people kept in `directory`.
    pub async fn start(directory: &Path, port: u16) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let state = Arc::new(Directory { tokens: Tokens::kept_in(directory)?, people: People::kept_in(directory)? });
        let listener = TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port} is taken"))?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/.well-known/jwks.json", get(jwks))
            .route("/dev/users", get(users))
            .route("/dev/tokens", post(issue))
            .with_state(Arc::clone(&state));
        #[expect(clippy::disallowed_methods, reason = "this crate has no lifecycle; the handle is aborted on drop")]
        let server = tokio::spawn(async move {
            _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, state, server })
    }

    /// Base of its endpoints.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its public key is.
    pub fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url())
    }

    /// Mints tokens, good and bad.
    pub fn tokens(&self) -> &Tokens {
        &self.state.tokens
    }

    /// The readable people, at least eight; always the same in one directory.
    pub fn people(&self) -> &[Person] {
        self.state.people.all()
    }
}

impl Drop for Kaha {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn jwks(State(directory): State<Arc<Directory>>) -> Json<Value> {
    Json(directory.tokens.jwks())
}

async fn users(State(directory): State<Arc<Directory>>) -> Json<Vec<Person>> {
    Json(directory.people.all().to_vec())
}

/// A wish for a token. Without `user_id` the person called `name` is meant, or
/// else somebody new.
#[derive(Debug, Deserialize)]
struct TokenRequest {
    user_id: Option<Uuid>,
    name: Option<String>,
    ttl_s: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TokenAnswer {
    user_id: Uuid,
    token: String,
    expires_in_s: u64,
}

async fn issue(
    State(directory): State<Arc<Directory>>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenAnswer>, StatusCode> {
    let known = request.name.as_deref().and_then(|name| directory.people.named(name));
    let user_id = request.user_id.or_else(|| known.map(|person| person.id)).unwrap_or_else(Uuid::new_v4);
    let expires_in_s = request.ttl_s.unwrap_or(TTL_DEFAULT_S);
    let token = directory
        .tokens
        .user(user_id, request.name.as_deref(), Duration::from_secs(expires_in_s))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(TokenAnswer { user_id, token, expires_in_s }))
}
