//! Who is asking: users' tokens and tickets, other services' tokens, and the tokens that we show to other services.

mod extract;
#[cfg(test)]
mod fuzz;
mod jwks;
mod keys;
mod revocations;
mod revoked;
mod service;
mod signing;
mod tickets;
mod token;
mod trial;
mod verifier;

pub use extract::{authenticate, bearer, redeem, verify};
pub use keys::KeySource;
pub use revocations::Revocations;
pub use service::ServiceVerifier;
pub use signing::Signer;
pub use tickets::Tickets;
pub use token::{TokenError, VerifierSettings};
pub use verifier::{Verifier, login_of};

use chat_shared::{
    clock::Timestamp,
    ids::{LoginId, UserId},
};
use serde::{Deserialize, Serialize};

/// A user whose token has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub user_id: UserId,
    /// Until when the token is valid.
    pub expires_at: Timestamp,
    /// When the token was issued; the beginning of time if it doesn't say.
    pub issued_at: Timestamp,
    /// The login that the token belongs to, if it says.
    pub login: Option<LoginId>,
}

#[cfg(test)]
impl Identity {
    /// Of a token that was issued long ago and never expires.
    pub const fn for_ever(user_id: UserId) -> Self {
        Self { user_id, expires_at: Timestamp(i64::MAX), issued_at: Timestamp(0), login: None }
    }
}
