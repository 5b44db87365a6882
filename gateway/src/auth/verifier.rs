//! Checks a token: signature by a key we trust, an allowed algorithm, `exp`, `nbf`, `aud`, `iss`, and `sub` a UUID.

use std::{path::PathBuf, time::Duration};

use chat_shared::{
    clock::Timestamp,
    ids::{LoginId, UserId},
    lifecycle::Tasks,
    telemetry::Latch,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;

use super::{Identity, jwks::Jwks};

/// Seconds that the clocks of issuer and gateway may differ.
const LEEWAY_S: u64 = 5;
/// Bytes of a token. A longer one is refused unread.
const TOKEN_BYTES_MAX: usize = 4096;

/// What is asked of a token.
#[derive(Debug, Clone)]
pub struct VerifierSettings {
    /// Where the keys come from.
    pub keys: KeySource,
    /// What `aud` must contain.
    pub audience: String,
    /// What `iss` must be, if it is checked.
    pub issuer: Option<String>,
    /// How far ahead a token's `exp` may be.
    pub lifetime_max: Duration,
}

/// Where the keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A URL that serves a JSON Web Key Set.
    Jwks(reqwest::Url),
    /// A file with one public key in PEM: EC P-256, Ed25519 or RSA.
    PublicKey(PathBuf),
    /// A file with a secret shared with the issuer; for development.
    Secret(PathBuf),
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is needed: `Authorization: Bearer …`, or the subprotocol entry `bearer.…`")]
    Missing,
    /// It is no token of ours: shape, signature, algorithm, audience, issuer or subject.
    #[error("the token is refused: {0}")]
    Refused(&'static str),
    /// It was valid once.
    #[error("the token has expired; get a new one")]
    Expired,
    /// The keys have not been fetched yet.
    #[error("the keys that tokens are checked with are out of reach; try again")]
    NoKeys,
}

/// Checks tokens.
#[derive(Clone)]
pub struct Verifier {
    keys: Keys,
    validation: Validation,
}

#[derive(Clone)]
enum Keys {
    Fetched(Jwks),
    Fixed(DecodingKey),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    iat: Option<i64>,
    sid: Option<String>,
}

impl Verifier {
    /// A verifier; `latch` shows whether it has keys.
    pub fn start(settings: VerifierSettings, latch: Latch, tasks: &Tasks) -> anyhow::Result<Self> {
        let (keys, algorithms) = match settings.keys {
            KeySource::Jwks(url) => {
                let algorithms = vec![Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];
                (Keys::Fetched(Jwks::start(url, latch, tasks)?), algorithms)
            }
            KeySource::PublicKey(path) => {
                latch.set(true);
                let (key, algorithm) = public_key(&std::fs::read(&path)?)?;
                (Keys::Fixed(key), vec![algorithm])
            }
            KeySource::Secret(path) => {
                latch.set(true);
                let secret = std::fs::read(&path)?;
                anyhow::ensure!(secret.len() >= 32, "the shared secret has fewer than 32 bytes");
                (Keys::Fixed(DecodingKey::from_secret(&secret)), vec![Algorithm::HS256])
            }
        };
        let mut validation = Validation { algorithms, leeway: LEEWAY_S, validate_nbf: true, ..Validation::default() };
        validation.set_audience(&[settings.audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        if let Some(issuer) = settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Ok(Self { keys, validation })
    }

    /// Who the token belongs to.
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Refused("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Refused("it is no JSON Web Token"))?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(TokenError::Refused("its algorithm is not allowed"));
        }
        let key = match &self.keys {
            Keys::Fixed(key) => key.clone(),
            Keys::Fetched(keys) => keys.find(header.kid.as_deref(), header.alg).await?,
        };
        // One algorithm, for that the key must belong to its family.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| refused(error.kind()))?.claims;
        let user_id: UserId =
            claims.sub.parse().map_err(|_| TokenError::Refused("its `sub` is not a UUID of version 4"))?;
        Ok(Identity {
            user_id,
            expires_at: Timestamp(claims.exp.saturating_mul(1000)),
            issued_at: Timestamp(claims.iat.unwrap_or(0).saturating_mul(1000)),
            login: claims.sid.as_deref().map(LoginId::of),
        })
    }
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

fn public_key(pem: &[u8]) -> anyhow::Result<(DecodingKey, Algorithm)> {
    DecodingKey::from_ec_pem(pem)
        .map(|key| (key, Algorithm::ES256))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256)))
        .map_err(|_| anyhow::anyhow!("the public key is not PEM of an EC P-256, Ed25519 or RSA key"))
}
