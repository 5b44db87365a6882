//! The endpoint of logouts.

use axum::{extract::State, http::StatusCode};
use chat_shared::ids::UserId;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::{
    Internal,
    describe::ServiceRefusal,
    service::{Allowed, Scope},
};
use crate::{
    auth,
    refusal::Refusal,
    rest::{AnyRefusal, Body, BodyRefusal},
};

/// Lets its bearer log users out.
pub struct SessionsClose;

impl Scope for SessionsClose {
    const NAME: &'static str = "sessions:close";
}

/// Who has logged out. A field that isn't known is refused: what was meant to be one login must not become all of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClosedSessions {
    /// Whose logins have ended.
    user_id: UserId,
    /// Only the login with this `sid`, as in its tokens; 1 to 128 bytes. Without it all of the user's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, nullable = false)]
    sid: Option<String>,
}

/// `null` is no `sid`, and doesn't mean all logins either.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Log a user out
///
/// Their connections are closed with 4506 on all gateways, and their tokens and tickets are taken no longer: with `sid` those
/// of that login, without it all that were issued until now. Then their devices are removed too, so that they are not
/// notified any more. On 503 part of it may be in force: repeat it until it is answered with 204.
#[utoipa::path(
    post,
    path = "/internal/v1/sessions/close",
    tag = "sessions",
    security(("service" = ["sessions:close"])),
    request_body = ClosedSessions,
    responses((status = 204, description = "It is in force on all gateways"), AnyRefusal, BodyRefusal, ServiceRefusal)
)]
pub async fn close(
    _service: Allowed<SessionsClose>,
    State(Internal { state, .. }): State<Internal>,
    Body(ClosedSessions { user_id, sid }): Body<ClosedSessions>,
) -> Result<StatusCode, Refusal> {
    let login = match &sid {
        Some(sid) => Some(auth::login_of(sid).ok_or_else(|| Refusal::invalid("`sid` has 1 to 128 bytes"))?),
        None => None,
    };
    state.revocations.revoke(&state, user_id, login).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_mean_one_login_never_means_all_of_them() {
        let user_id = UserId::random().as_uuid();
        let read = |body| serde_json::from_value::<ClosedSessions>(body);
        assert_eq!(read(json!({ "user_id": user_id })).unwrap().sid, None);
        assert_eq!(read(json!({ "user_id": user_id, "sid": "a" })).unwrap().sid.as_deref(), Some("a"));
        for body in [
            json!({ "user_id": user_id, "sid": null }),
            json!({ "user_id": user_id, "sid": 7 }),
            json!({ "user_id": user_id, "session_id": "a" }),
            json!({ "sid": "a" }),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
    }
}
