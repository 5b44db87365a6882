//! The asking user, as an extractor of requests: checks the token and the user's rate.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{Identity, TokenError};
use crate::{refusal::Refusal, state::AppState};

/// The token in the `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoKeys => Self::unavailable("the key set", &error),
            TokenError::Missing | TokenError::Refused(_) | TokenError::Expired => {
                Self::unauthenticated(error.to_string())
            }
        }
    }
}

impl FromRequestParts<AppState> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers).ok_or(TokenError::Missing)?;
        let identity = state.verifier.verify(token).await?;
        state.rate.check(identity.user_id)?;
        Ok(identity)
    }
}
