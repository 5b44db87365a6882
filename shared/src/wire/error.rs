//! The closed list of error codes.

use serde::{Deserialize, Serialize};

/// Why something was refused; the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A field is missing, of the wrong type or out of its bounds. Repeating it won't help.
    Invalid,
    /// The gateway doesn't know the command.
    UnknownCommand,
    /// `hello` must come first, and only once.
    HelloRequired,
    /// The token is missing, wrong or expired.
    Unauthenticated,
    /// The user's role doesn't allow it.
    Forbidden,
    /// There is no such thing, or it isn't the user's.
    NotFound,
    /// The same `message_id` was used with another content or by another participant, or the state doesn't allow it.
    Conflict,
    /// The body or text is over its bound.
    TooLarge,
    /// Too many at once; wait `retry_after_ms`.
    RateLimited,
    /// Something the request needs is out of reach; repeat it, with the same id, after `retry_after_ms`.
    Unavailable,
    /// A fault of ours. It is logged; repeating may help.
    Internal,
    /// A code of a later version, which gateways of this version never send. In REST the status decides; a command is
    /// refused for good.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::UnknownCommand => "unknown_command",
            Self::HelloRequired => "hello_required",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }

    /// The HTTP status that goes with it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid | Self::UnknownCommand | Self::HelloRequired => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal | Self::Unknown => 500,
            Self::Unavailable => 503,
        }
    }
}

/// The body of every REST answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// From the closed list.
    pub code: ErrorCode,
    /// For the developer who reads it: what is wrong and what to do.
    pub message: String,
    /// When to try again, where that can help; also in the `Retry-After` header, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
