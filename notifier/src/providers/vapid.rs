//! Says to push services who sends (RFC 8292).

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::clock::Timestamp;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{AlgorithmParameters, Jwk},
};
use reqwest::Url;
use serde::Serialize;

/// How long what is signed holds: an hour, of at most 24, and of the 12 that clocks and services leave.
const LIFETIME: Duration = Duration::from_hours(1);

/// Signs requests to push services.
pub(super) struct Vapid {
    key: EncodingKey,
    /// The key's public half: an uncompressed point in base64url.
    public: String,
    contact: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: String,
    exp: i64,
    sub: &'a str,
}

impl Vapid {
    /// With the private key in a file. `contact` is whom push services write to.
    pub(super) fn read(path: &Path, contact: String) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let usage = || {
            format!(
                "{} is not a private key of the curve P-256 in PEM (PKCS#8); make one with \
                 `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`",
                path.display()
            )
        };
        let key = EncodingKey::from_ec_pem(&text).with_context(usage)?;
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).with_context(usage)?;
        let AlgorithmParameters::EllipticCurve(point) = jwk.algorithm else { bail!(usage()) };
        let (x, y) = (BASE64.decode(point.x)?, BASE64.decode(point.y)?);
        let public = BASE64.encode([&[4], &*x, &*y].concat());
        Ok(Self { key, public, contact })
    }

    /// The header `Authorization` for a request to `endpoint`.
    pub(super) fn authorization(&self, endpoint: &Url, now: Timestamp) -> jsonwebtoken::errors::Result<String> {
        let claims = Claims {
            aud: endpoint.origin().ascii_serialization(),
            exp: now.after(LIFETIME).0.div_euclid(1000),
            sub: &self.contact,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", self.public))
    }
}
