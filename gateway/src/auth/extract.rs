//! The asking user, as an extractor of requests: checks the token and the user's rate.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{Identity, TokenError};
use crate::{edge::Client, refusal::Refusal, state::AppState};

/// The token in the `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoKeys => Self::unavailable("the key set", &error),
            TokenError::Missing
            | TokenError::Refused(_)
            | TokenError::Expired
            | TokenError::Revoked
            | TokenError::NoTicket => Self::unauthenticated(error.to_string()),
        }
    }
}

/// Whose token it is, unless too many from that address were no good.
pub async fn authenticate(state: &AppState, client: Client, token: &str) -> Result<Identity, Refusal> {
    state.edge.check_failures(client)?;
    Ok(verify(state, token).await.inspect_err(|error| note_failure(state, client, error))?)
}

/// Whose ticket it is, which is used up by this. Counted as tokens are.
pub async fn redeem(state: &AppState, client: Client, ticket: &str) -> Result<Identity, Refusal> {
    state.edge.check_failures(client)?;
    let taken = match state.tickets.take(ticket).await? {
        Some(identity) if identity.expires_at <= state.clock.now() => Err(TokenError::Expired),
        Some(identity) => check(state, identity),
        None => Err(TokenError::NoTicket),
    };
    Ok(taken.inspect_err(|error| note_failure(state, client, error))?)
}

/// Whose token it is, if it still is anybody's.
pub async fn verify(state: &AppState, token: &str) -> Result<Identity, TokenError> {
    check(state, state.verifier.verify(token).await?)
}

fn check(state: &AppState, identity: Identity) -> Result<Identity, TokenError> {
    if state.revocations.is_revoked(&identity) { Err(TokenError::Revoked) } else { Ok(identity) }
}

fn note_failure(state: &AppState, client: Client, error: &TokenError) {
    if !matches!(error, TokenError::Missing | TokenError::NoKeys) {
        state.edge.note_failure(client);
    }
}

impl FromRequestParts<AppState> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refusal> {
        let client = Client::from_request_parts(parts, state).await?;
        let token = bearer(&parts.headers).ok_or(TokenError::Missing)?;
        let identity = authenticate(state, client, token).await?;
        state.rate.check(identity.user_id)?;
        Ok(identity)
    }
}
