//! Inboxes that can't be used: a key has another type, or a script fails on the stored values.
//!
//! **Invariant:** such an error belongs to one user. It says nothing of Redis, nor of other users.

use redis::{AsyncCommands, ErrorKind, RedisError, ServerError};

use super::{InboxError, Inboxes, bounded};
use crate::ids::UserId;

/// The error code for a key of another type.
const WRONG_TYPE: &str = "WRONGTYPE";
/// The error code for all that has no code of its own.
const OTHER: &str = "ERR";
/// Details of an error that stored values cause. All others may be the server's, such as a missing permission, and would
/// concern every user.
const OF_VALUES: [&str; 4] = [
    // As servers before version 7 report it from inside a script.
    "WRONGTYPE ",
    // Lua: a value is missing, or is no number.
    "attempt to ",
    // HINCRBY of a head that is no number.
    "not an integer",
    // XADD behind the last entry.
    "equal or smaller",
];

impl InboxError {
    /// Whether the values stored for a user caused it, so that a repeat fails too and others are not concerned.
    pub fn is_of_user(&self) -> bool {
        matches!(self, Self::Redis(error) if is_of_user(error))
    }
}

pub(super) fn is_of_user(error: &RedisError) -> bool {
    let is_of_values = |errors: &[(usize, ServerError)]| errors.iter().all(|(_, error)| is_of_values(error));
    error.kind() == ErrorKind::UnexpectedReturnType
        || error.clone().into_server_errors().is_some_and(|errors| is_of_values(&errors))
}

/// Codes such as OOM and READONLY are the server's, also inside scripts.
fn is_of_values(error: &ServerError) -> bool {
    match error.code() {
        WRONG_TYPE => true,
        OTHER => error.details().is_some_and(|details| OF_VALUES.iter().any(|cause| details.contains(cause))),
        _ => false,
    }
}

impl Inboxes {
    /// Deletes a user's sessions and inbox, whatever types their keys have. The next registration makes a new epoch, so
    /// clients reload; until then there is no inbox.
    pub async fn reset(&self, user_id: UserId) -> Result<(), InboxError> {
        let keys = self.keys(user_id);
        let mut redis = self.redis.link().await?;
        bounded(redis.del(&[keys.meta, keys.entries, keys.sessions, keys.devices, keys.delivered])).await
    }
}
