//! Who is asking: checks users' tokens.

mod extract;
mod jwks;
mod revocations;
mod signing;
mod tickets;
mod verifier;

pub use extract::bearer;
pub use revocations::Revocations;
pub use signing::Signer;
pub use tickets::Tickets;
pub use verifier::{KeySource, TokenError, Verifier, VerifierSettings};

use chat_shared::{
    clock::Timestamp,
    ids::{LoginId, UserId},
};

/// A user whose token has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
