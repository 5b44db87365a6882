//! How refusals are described: what any route may answer, and what those with a conversation may answer too.

use chat_shared::wire::ErrorBody;
use utoipa::IntoResponses;

/// What every route may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum AnyRefusal {
    /// `invalid`: a field is missing, of the wrong type or out of its bounds. Repeating it won't help.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// `unauthenticated`: the token is missing, wrong or expired.
    #[response(status = 401)]
    Unauthenticated(ErrorBody),
    /// `rate_limited`: too many requests, or a quota of the day is used up; wait as long as `Retry-After` says.
    #[response(status = 429)]
    RateLimited(ErrorBody),
    /// `internal`: a fault of ours.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// `unavailable`: something that is needed is out of reach; repeat it after `Retry-After`, with the same ids.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What routes with a body may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum BodyRefusal {
    /// `unavailable`: the body did not come in time; repeat it, with the same ids.
    #[response(status = 408)]
    Late(ErrorBody),
    /// `too_large`: the body or a text is over its bound.
    #[response(status = 413)]
    TooLarge(ErrorBody),
}

/// What routes under a conversation may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum MemberRefusal {
    /// `not_found`: there is no such conversation, or the user doesn't take part in it.
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// What routes that change a group may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum OwnerRefusal {
    /// `forbidden`: only the group's owner may, or a user who is to be added has blocked the owner or has left the group.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// `conflict`: the group is full, or the conversation is a direct one.
    #[response(status = 409)]
    Conflict(ErrorBody),
}
