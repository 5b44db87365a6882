//! Who is asking: checks users' tokens.

mod extract;
mod jwks;
mod verifier;

pub use extract::bearer;
pub use verifier::{KeySource, TokenError, Verifier, VerifierSettings};

use chat_shared::{clock::Timestamp, ids::UserId};

/// A user whose token has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user_id: UserId,
    /// Until when the token is valid.
    pub expires_at: Timestamp,
}
