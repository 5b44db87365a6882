//! The endpoints of erasures.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use chat_shared::{
    ids::UserId,
    wire::{ErrorBody, Map},
};
use serde::Deserialize;

use super::{
    Internal,
    describe::ServiceRefusal,
    service::{Allowed, Scope},
};
use crate::{
    erasure::{self, Erasure},
    refusal::Refusal,
    rest::{AnyRefusal, BodyRefusal, InPath},
};

/// Lets its bearer erase users, and see how far that is.
pub struct UsersErase;

impl Scope for UsersErase {
    const NAME: &'static str = "users:erase";
}

/// A body without fields, or none.
pub struct NoFields;

/// A field that isn't known is refused: a part of a user can't be erased.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {}

impl<S: Send + Sync> FromRequest<S> for NoFields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::body_too_large(),
            _ => Refusal::invalid("the body can't be read"),
        })?;
        if body.is_empty() || serde_json::from_slice::<Map<Fields>>(&body).is_ok() {
            return Ok(Self);
        }
        Err(Refusal::invalid("the body is `{}`, or empty: all of the user is erased"))
    }
}

/// Erase a user
///
/// Delete the user and stop issuing tokens first. The user is logged out, devices and blocks are removed, groups are left and
/// open cases resolved; then the texts of all messages that the user has sent are removed, which takes at least eight days:
/// ask for the state. On 503 part of it is done: repeat it until it is answered with 202. A repeat while the erasure runs
/// changes nothing; one after `erased_at` begins another erasure.
#[utoipa::path(
    put,
    path = "/internal/v1/users/{user_id}/erasure",
    tag = "users",
    security(("service" = ["users:erase"])),
    params(("user_id" = UserId, Path, description = "Which user")),
    responses(
        (status = 202, description = "The account is erased; the texts follow", body = Erasure),
        AnyRefusal,
        BodyRefusal,
        ServiceRefusal,
    )
)]
pub async fn request(
    _service: Allowed<UsersErase>,
    State(Internal { state, .. }): State<Internal>,
    InPath(user_id): InPath<UserId>,
    NoFields: NoFields,
) -> Result<(StatusCode, Json<Erasure>), Refusal> {
    let erasure = Box::pin(erasure::request(&state, user_id)).await?;
    Ok((StatusCode::ACCEPTED, Json(erasure)))
}

/// See how far the erasure of a user is
#[utoipa::path(
    get,
    path = "/internal/v1/users/{user_id}/erasure",
    tag = "users",
    security(("service" = ["users:erase"])),
    params(("user_id" = UserId, Path, description = "Which user")),
    responses(
        (status = 200, description = "The state", body = Erasure),
        (status = 404, description = "`not_found`: it was never requested", body = ErrorBody),
        AnyRefusal,
        ServiceRefusal,
    )
)]
pub async fn state(
    _service: Allowed<UsersErase>,
    State(Internal { state, .. }): State<Internal>,
    InPath(user_id): InPath<UserId>,
) -> Result<Json<Erasure>, Refusal> {
    erasure::find(&state, user_id).await.map(Json)
}
