//! Whose a user's token is.

use chat_shared::{clock::Timestamp, ids::LoginId, lifecycle::Tasks, telemetry::Latch};
use serde::Deserialize;

use super::{
    Identity, TokenError, VerifierSettings,
    token::{Claims, Rules},
};

/// Bytes of a `sid`.
const LOGIN_BYTES_MAX: usize = 128;

/// Checks users' tokens.
#[derive(Clone)]
pub struct Verifier(Rules);

#[derive(Deserialize)]
struct UserClaims {
    sub: String,
    exp: i64,
    iat: Option<i64>,
    sid: Option<String>,
    /// Only here so that it is one text; what it must be is checked with the signature.
    #[serde(rename = "iss")]
    _iss: Option<String>,
}

impl Claims for UserClaims {
    fn expires_s(&self) -> i64 {
        self.exp
    }

    fn issued_s(&self) -> Option<i64> {
        self.iat
    }
}

impl Verifier {
    /// A verifier; `latch` shows whether it has keys.
    pub fn start(settings: VerifierSettings, latch: Latch, tasks: &Tasks) -> anyhow::Result<Self> {
        Ok(Self(Rules::start(settings, "token_keys", latch, tasks)?))
    }

    /// Who the token belongs to. Whether their login has ended since is asked of [`super::Revocations`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let claims: UserClaims = self.0.verify(token).await?;
        let user_id = claims.sub.parse().map_err(|_| TokenError::Refused("its `sub` is not a UUID of version 4"))?;
        Ok(Identity {
            user_id,
            expires_at: Timestamp(claims.exp.saturating_mul(1000)),
            issued_at: Timestamp(claims.iat.unwrap_or(0).saturating_mul(1000)),
            login: match &claims.sid {
                Some(sid) => Some(login_of(sid).ok_or(TokenError::Refused("its `sid` is empty or too long"))?),
                None => None,
            },
        })
    }
}

/// The login that a `sid` names, unless it is empty or too long to be one.
pub fn login_of(sid: &str) -> Option<LoginId> {
    (1..=LOGIN_BYTES_MAX).contains(&sid.len()).then(|| LoginId::of(sid))
}
