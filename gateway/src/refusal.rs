//! Why a client's request is not carried out: one type for frames and for REST.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chat_shared::{
    limits,
    log::AppendError,
    wire::{ErrorBody, ErrorCode, Rejected},
};
use parking_lot::Mutex;

use crate::edge::Full;

/// How long a client waits before it repeats what failed for want of a part of ours.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);

/// How long a service waits for an export to end.
const RETRY_AFTER_EXPORTS: Duration = Duration::from_secs(2);

/// How long a client waits for a connection of its user to end.
const RETRY_AFTER_CONNECTIONS: Duration = Duration::from_secs(30);

/// Between two warnings of the same part being out of reach; `UNAVAILABLE_TOTAL` counts each refusal.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// When each part was last warned of. Refusals are made by conversions, which have no state of their own.
static WARNED: Mutex<BTreeMap<&str, Instant>> = Mutex::new(BTreeMap::new());

fn is_warning_due(what: &'static str, now: Instant) -> bool {
    let mut warned = WARNED.lock();
    let is_due = warned.get(what).is_none_or(|at| now.duration_since(*at) >= WARNING_INTERVAL);
    if is_due {
        warned.insert(what, now);
    }
    is_due
}

/// A refusal: a code from the closed list, a text for the developer who reads it, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// From the closed list.
    pub code: ErrorCode,
    /// What is wrong and what to do. Never ids, content, SQL or places in the code.
    pub message: String,
    /// When to try again, where that can help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// A field is missing, of the wrong type or out of its bounds.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// The token is missing, wrong or expired.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// The user's role doesn't allow it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// One of the two has blocked the other; nobody learns which.
    pub fn blocked() -> Self {
        Self::forbidden("there is a block between the two of you: nothing is sent either way")
    }

    /// One of the users to be added has blocked the one who adds, or has left the group; nobody learns which.
    pub fn not_to_be_added() -> Self {
        Self::forbidden("you can't add one of these users: the user has blocked you, or has left this group")
    }

    /// There is no such business, or the user is not on its staff; nobody learns which.
    pub fn no_such_business() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such business here, or it is none of yours")
    }

    /// The user named in the request is not on the staff of the business.
    pub fn no_such_agent() -> Self {
        Self::new(ErrorCode::NotFound, "this user is not on the staff of the business")
    }

    /// The business takes no conversations.
    pub fn business_closed() -> Self {
        Self::conflict("this business takes no chats any more")
    }

    /// There is no such conversation, or the user doesn't take part in it; nobody learns which.
    pub fn no_such_conversation() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such conversation among yours")
    }

    /// The message named in the request is not one of the conversation's.
    pub fn no_such_message() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such message in this conversation")
    }

    /// The user named in the request doesn't take part in the conversation.
    pub fn no_such_participant() -> Self {
        Self::new(ErrorCode::NotFound, "this user doesn't take part in the conversation")
    }

    /// The user named in the request is nobody whose presence the asker may know.
    pub fn no_shared_conversation() -> Self {
        Self::new(ErrorCode::NotFound, "one of these users shares no conversation with you")
    }

    /// The erasure of this user was never requested.
    pub fn no_such_erasure() -> Self {
        Self::new(ErrorCode::NotFound, "the erasure of this user was not requested")
    }

    /// What an account has is more than one request ends.
    pub fn unfinished_erasure() -> Self {
        let message = "the account has more than one request ends; repeat the request, which goes on, after the delay";
        Self { retry_after: Some(RETRY_AFTER_UNAVAILABLE), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// Nothing answers at this path.
    pub fn no_such_route() -> Self {
        Self::new(ErrorCode::NotFound, "there is nothing at this path; /openapi.json lists what there is")
    }

    /// As `no_such_route`, for other services.
    pub fn no_such_internal_route() -> Self {
        Self::new(ErrorCode::NotFound, "there is nothing at this path; /internal/openapi.json lists what there is")
    }

    /// The state doesn't allow it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// The body of a request over its bound.
    pub fn body_too_large() -> Self {
        Self::too_large(format!("the body is over {} bytes", limits::BODY_BYTES_MAX))
    }

    /// A body or text over its bound.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TooLarge, message)
    }

    /// Too many at once.
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::RateLimited, "too many requests; slow down") }
    }

    /// The user's quota of a day is used up.
    pub fn over_quota(what: &'static str, retry_after: Duration) -> Self {
        let message = format!("the day's quota of {what} is used up; it begins anew at midnight UTC");
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// Too many handshakes at once, which is no fault of this client.
    pub fn too_many_handshakes(retry_after: Duration) -> Self {
        let message = "too many clients connect at once; come back after the delay";
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// This gateway has as many exports in flight as it takes.
    pub fn too_many_exports() -> Self {
        let message = "this gateway answers as many exports as it may at once; repeat the request after the delay";
        Self { retry_after: Some(RETRY_AFTER_EXPORTS), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// The user has as many connections as one may have.
    pub fn too_many_connections() -> Self {
        let message = "this user has too many connections; close one first";
        Self { retry_after: Some(RETRY_AFTER_CONNECTIONS), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// There is no place for another connection.
    pub fn no_room(full: Full) -> Self {
        let message = match full {
            Full::Gateway => "this gateway has as many connections as it takes; another one may have room",
            Full::Address => "there are too many connections from this address; close one first",
        };
        Self { retry_after: Some(RETRY_AFTER_CONNECTIONS), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// The client didn't send the whole of its request.
    pub fn late_body() -> Self {
        let message = "the body did not come in time; repeat the request, with the same ids";
        Self { retry_after: Some(RETRY_AFTER_UNAVAILABLE), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// Something that is needed is out of reach for now. Counted here; the cause is logged now and then, since during an
    /// outage every request has the same.
    pub fn unavailable(what: &'static str, cause: &dyn std::error::Error) -> Self {
        if is_warning_due(what, Instant::now()) {
            tracing::warn!(what, %cause, "requests are refused as unavailable");
        } else {
            tracing::debug!(what, %cause, "a request is refused as unavailable");
        }
        Self::later(what, "is out of reach")
    }

    /// A conversation that holds names of a later version, which this gateway must not write. During an upgrade another
    /// gateway takes the repeat.
    pub fn later_version() -> Self {
        Self::later("a gateway of a later version", "alone can do this")
    }

    fn later(what: &'static str, problem: &str) -> Self {
        metrics::counter!(crate::telemetry::UNAVAILABLE_TOTAL, "what" => what).increment(1);
        let message = format!("{what} {problem}; repeat the request, with the same ids, after the delay");
        Self { retry_after: Some(RETRY_AFTER_UNAVAILABLE), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// A fault of ours. The cause is logged here, once.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(%cause, "a request failed by a fault of ours");
        Self::new(ErrorCode::Internal, "a fault of ours; it is logged")
    }

    /// The reply to the command with this reference.
    pub fn into_reply(self, reference: Option<u64>) -> Rejected {
        let retry_after_ms = self.retry_after_ms();
        Rejected { reference, code: self.code, message: self.message, retry_after_ms }
    }

    /// The whole answer, for a socket that no server serves. It closes after it.
    pub fn into_http(self) -> Vec<u8> {
        let seconds = self.retry_after_seconds();
        let (status, retry_after_ms) = (self.code.http_status(), self.retry_after_ms());
        let body = ErrorBody { code: self.code, message: self.message, retry_after_ms };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let retry_after = seconds.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry_after}\
             cache-control: no-store\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// In whole seconds.
    fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_ms().map(|delay_ms| delay_ms.div_ceil(1000).max(1))
    }

    fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Unreadable(_) => Self::internal(&error),
            AppendError::HeadMoved | AppendError::InFlight | AppendError::Refused(_) | AppendError::Unknown => {
                Self::unavailable("the log", &error)
            }
        }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::internal(&error)
            }
            _ => Self::unavailable("PostgreSQL", &error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (retry_after_ms, retry_after_seconds) = (self.retry_after_ms(), self.retry_after_seconds());
        let mut response =
            (status, Json(ErrorBody { code: self.code, message: self.message, retry_after_ms })).into_response();
        if let Some(seconds) = retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_warned_of_now_and_then() {
        let now = Instant::now();
        assert!(is_warning_due("one part", now));
        assert!(!is_warning_due("one part", now + WARNING_INTERVAL / 2));
        assert!(is_warning_due("another part", now));
        assert!(is_warning_due("one part", now + WARNING_INTERVAL));
    }
}
