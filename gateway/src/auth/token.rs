//! Checks a JSON Web Token, whoever shows it: shape, header, signature by a key we trust, and the claims that say for whom,
//! from whom, and from when until when.
//!
//! **Invariant:** nothing of a token is believed before its signature is checked, but which key to check it with.

use std::time::Duration;

use chat_shared::{lifecycle::Tasks, telemetry::Latch};
use jsonwebtoken::{DecodingKey, Header, Validation, errors::ErrorKind};
use serde::de::DeserializeOwned;

use super::keys::{KeySource, Keys};

/// Seconds that the clocks of issuer and gateway may differ.
const LEEWAY_S: u64 = 5;
/// Bytes of a token. A longer one is refused unread.
const BYTES_MAX: usize = 4096;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is needed: `Authorization: Bearer …`, or the subprotocol entry `bearer.…`")]
    Missing,
    /// It is no token of ours: shape, signature, algorithm, audience, issuer, subject or times.
    #[error("the token is refused: {0}")]
    Refused(&'static str),
    /// It was valid once.
    #[error("the token has expired; get a new one")]
    Expired,
    /// Its login has ended.
    #[error("the user has logged out; log in again")]
    Revoked,
    /// There is no such ticket, or not any more.
    #[error("the ticket is unknown, used or expired; get a new one")]
    NoTicket,
    /// The keys have not been fetched yet.
    #[error("the keys that tokens are checked with are out of reach; try again")]
    NoKeys,
}

/// What is asked of tokens of one kind.
#[derive(Debug, Clone)]
pub struct VerifierSettings {
    /// Where the keys come from.
    pub keys: KeySource,
    /// What `aud` must contain.
    pub audience: String,
    /// What `iss` must be, if it is checked.
    pub issuer: Option<String>,
    /// How far ahead `exp` may be, of now and of `iat`.
    pub lifetime_max: Duration,
}

/// Checks tokens of one kind.
#[derive(Clone)]
pub(super) struct Rules {
    keys: Keys,
    validation: Validation,
    lifetime_max_s: u64,
}

/// What is read of a token. A claim that is there twice, or of another type, makes it unreadable.
pub(super) trait Claims: DeserializeOwned {
    /// `exp`, in seconds since 1970.
    fn expires_s(&self) -> i64;
    /// `iat`, if it is there.
    fn issued_s(&self) -> Option<i64>;
}

impl Rules {
    /// Begins to fetch the keys, in a task of this name; `latch` shows whether there are any.
    pub(super) fn start(
        settings: VerifierSettings,
        task: &'static str,
        latch: Latch,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let mut validation = Validation { leeway: LEEWAY_S, validate_nbf: true, ..Validation::default() };
        validation.set_audience(&[settings.audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        if let Some(issuer) = settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        let keys = Keys::start(settings.keys, task, latch, tasks)?;
        Ok(Self { keys, validation, lifetime_max_s: settings.lifetime_max.as_secs() })
    }

    /// What a token says, if it is to be believed.
    pub(super) async fn verify<C: Claims>(&self, token: &str) -> Result<C, TokenError> {
        if token.len() > BYTES_MAX {
            return Err(TokenError::Refused("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Refused("it is no JSON Web Token"))?;
        self.check_header(&header)?;
        let keys = self.keys.find(header.kid.as_deref(), header.alg).await?;
        // One algorithm, for that the key must belong to its family.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let claims = decode_with_any::<C>(token, &keys, &validation)?;
        self.check_times(&claims)?;
        Ok(claims)
    }

    fn check_header(&self, header: &Header) -> Result<(), TokenError> {
        if !self.keys.allow(header.alg) {
            return Err(TokenError::Refused("its algorithm is not allowed"));
        }
        if header.crit.is_some() {
            return Err(TokenError::Refused("it asks for extensions that are not known here"));
        }
        let is_named = |typ: &str| ["JWT", "at+jwt"].iter().any(|known| known.eq_ignore_ascii_case(typ));
        if header.typ.as_deref().is_some_and(|typ| !is_named(typ)) {
            return Err(TokenError::Refused("its `typ` is neither JWT nor at+jwt"));
        }
        Ok(())
    }

    /// A token that lives longer than is allowed would come back to life when its revocation is forgotten.
    fn check_times(&self, claims: &impl Claims) -> Result<(), TokenError> {
        let now_s = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap_or(i64::MAX);
        let issued_s = claims.issued_s().unwrap_or(now_s);
        if issued_s > now_s.saturating_add_unsigned(LEEWAY_S) {
            return Err(TokenError::Refused("it was issued in the future"));
        }
        let latest_s = issued_s.min(now_s).saturating_add_unsigned(self.lifetime_max_s + LEEWAY_S);
        if claims.expires_s() > latest_s {
            return Err(TokenError::Refused("it lives longer than is allowed here; its issuer must make shorter ones"));
        }
        Ok(())
    }
}

fn decode_with_any<C: Claims>(token: &str, keys: &[DecodingKey], validation: &Validation) -> Result<C, TokenError> {
    let mut refusal = ErrorKind::InvalidSignature;
    for key in keys {
        match jsonwebtoken::decode::<C>(token, key, validation).map_err(jsonwebtoken::errors::Error::into_kind) {
            Ok(decoded) => return Ok(decoded.claims),
            Err(ErrorKind::InvalidSignature) => {}
            Err(other) => refusal = other,
        }
    }
    Err(refused(&refusal))
}

fn refused(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Refused("it is not valid yet"),
        ErrorKind::InvalidAudience => TokenError::Refused("it is for another audience"),
        ErrorKind::InvalidIssuer => TokenError::Refused("it is from another issuer"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            TokenError::Refused("a claim is missing or of the wrong type")
        }
        _ => TokenError::Refused("its signature is wrong"),
    }
}
