//! Which service a service token belongs to, and what it may do (R6.3).

use std::{sync::Arc, time::Duration};

use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use serde::Deserialize;

use super::{
    TokenError,
    keys::KeySource,
    token::{Claims, Rules, VerifierSettings},
};

/// How far ahead a service token's `exp` may be: it is made for a call.
const LIFETIME_MAX: Duration = Duration::from_mins(5);
/// Bytes of a `sub`.
const NAME_BYTES_MAX: usize = 128;

/// A service whose token has been checked.
#[derive(Debug, Clone)]
pub struct Service {
    /// Which one, as the issuer names it.
    pub name: Arc<str>,
    scope: String,
}

impl Service {
    /// Whether the token lets its bearer do this.
    pub fn may(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|granted| granted == scope)
    }
}

/// Checks services' tokens.
#[derive(Clone)]
pub struct ServiceVerifier(Rules);

#[derive(Deserialize)]
struct ServiceClaims {
    sub: String,
    exp: i64,
    iat: Option<i64>,
    #[serde(default)]
    scope: String,
    /// Only here so that it is one text; what it must be is checked with the signature.
    #[serde(rename = "iss")]
    _iss: String,
}

impl Claims for ServiceClaims {
    fn expires_s(&self) -> i64 {
        self.exp
    }

    fn issued_s(&self) -> Option<i64> {
        self.iat
    }
}

impl ServiceVerifier {
    /// A verifier of tokens from this issuer, for this audience. `latch` shows whether it has keys.
    pub fn start(
        keys: KeySource,
        issuer: String,
        audience: String,
        latch: Latch,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let settings = VerifierSettings { keys, audience, issuer: Some(issuer), lifetime_max: LIFETIME_MAX };
        Ok(Self(Rules::start(settings, "service_keys", latch, tasks)?))
    }

    /// Which service the token belongs to.
    pub async fn verify(&self, token: &str) -> Result<Service, TokenError> {
        let ServiceClaims { sub, scope, .. } = self.0.verify(token).await?;
        if sub.is_empty() || sub.len() > NAME_BYTES_MAX {
            return Err(TokenError::Refused("its `sub` is empty or too long"));
        }
        Ok(Service { name: sub.into(), scope })
    }
}
