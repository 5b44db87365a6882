//! The public keys that our own tokens are checked with.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header},
};
use chat_shared::wire::ErrorBody;
use serde_json::Value;

use super::Internal;

/// How long others may keep them: a new key is published long before it signs.
const CACHE: &str = "public, max-age=300";

/// List the keys that the chat backend signs its tokens with
///
/// A JSON Web Key Set: the key that signs and, while keys are exchanged, the one that will sign next. It needs no token.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "keys",
    responses(
        (status = 200, description = "The key set", body = Value),
        (status = 500, description = "`internal`: a fault of ours.", body = ErrorBody),
    )
)]
pub async fn list(
    State(Internal { public_keys, .. }): State<Internal>,
) -> ([(HeaderName, &'static str); 1], Json<Arc<Value>>) {
    ([(header::CACHE_CONTROL, CACHE)], Json(public_keys))
}
