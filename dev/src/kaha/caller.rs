//! Who calls kaha-main-v3: checks the service token of the chat backend against the public halves of its keys.

use std::path::Path;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use chat_shared::clock::Clock;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, decode_header,
    jwk::{Jwk, ThumbprintHash},
};
use serde_json::Value;

use crate::stand_in::json_web_token::{SKEW_MAX_S, check_expiry, verify};

/// `iss` of the tokens that the chat backend makes.
pub const CALLER_ISSUER: &str = "chat-backend";

/// `aud` of tokens meant for kaha-main-v3.
pub const CALLER_AUDIENCE: &str = "kaha-main-v3";

/// How far ahead the end of a token may be.
const LIFETIME_MAX_S: i64 = 300;

/// Public keys whose tokens are believed.
#[derive(Debug)]
pub struct CallerKeys(Vec<CallerKey>);

#[derive(Debug)]
struct CallerKey {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl CallerKeys {
    /// The public halves of the private keys in these PEM files. A key's id is its thumbprint (RFC 7638, SHA-256).
    pub fn of_private_keys(files: &[&Path]) -> Result<Self> {
        let keys = files.iter().map(|file| {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            CallerKey::of(&text).with_context(|| format!("{} holds no key of P-256 or Ed25519", file.display()))
        });
        Ok(Self(keys.collect::<Result<_>>()?))
    }

    /// Checks the value of an `Authorization` header, whose token must allow `needed`.
    pub fn check(&self, authorization: Option<&str>, needed: &str) -> Result<(), (StatusCode, String)> {
        let claims = self.authenticate(authorization).map_err(|reason| (StatusCode::UNAUTHORIZED, reason))?;
        let scopes = claims["scope"].as_str().unwrap_or_default();
        if scopes.split(' ').any(|scope| scope == needed) {
            return Ok(());
        }
        Err((StatusCode::FORBIDDEN, format!("its scope lacks {needed}")))
    }

    fn authenticate(&self, authorization: Option<&str>) -> Result<Value, String> {
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).ok_or("there is no bearer token")?;
        let header = decode_header(token).map_err(|error| format!("the token can't be read: {error}"))?;
        let id = header.kid.ok_or("kid is missing")?;
        let key = self.0.iter().find(|key| key.id == id).ok_or("kid names no key of the chat backend")?;
        let claims = verify(token, key.algorithm, &key.key)?.claims;
        check_claims(&claims, Clock::System.now().0 / 1000)?;
        Ok(claims)
    }
}

impl CallerKey {
    fn of(pem: &[u8]) -> Result<Self> {
        let (private, algorithm) = match EncodingKey::from_ec_pem(pem) {
            Ok(private) => (private, Algorithm::ES256),
            Err(_) => (EncodingKey::from_ed_pem(pem)?, Algorithm::EdDSA),
        };
        let jwk = Jwk::from_encoding_key(&private, algorithm)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        Ok(Self { id, algorithm, key: DecodingKey::from_jwk(&jwk)? })
    }
}

fn check_claims(claims: &Value, now_s: i64) -> Result<(), String> {
    if claims["iss"] != CALLER_ISSUER {
        return Err(format!("iss isn't {CALLER_ISSUER}"));
    }
    let audience = &claims["aud"];
    let is_for_us = |audience: &Value| audience == CALLER_AUDIENCE;
    if !is_for_us(audience) && !audience.as_array().is_some_and(|all| all.iter().any(is_for_us)) {
        return Err(format!("aud isn't {CALLER_AUDIENCE}"));
    }
    for name in ["sub", "jti"] {
        if claims[name].as_str().is_none_or(str::is_empty) {
            return Err(format!("{name} is missing"));
        }
    }
    check_expiry(claims, now_s, LIFETIME_MAX_S)?;
    let issued_s = claims["iat"].as_i64().ok_or("iat is missing")?;
    let begins_s = claims.get("nbf").map_or(Some(issued_s), Value::as_i64).ok_or("nbf isn't a time")?;
    if issued_s.max(begins_s) > now_s + SKEW_MAX_S {
        return Err("it isn't valid yet".to_owned());
    }
    Ok(())
}
