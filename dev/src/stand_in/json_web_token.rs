//! Tokens with which our services say who they are.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

/// Clocks may differ by this much.
pub const SKEW_MAX_S: i64 = 60;

/// A token whose signature is right.
#[derive(Debug)]
pub struct Verified {
    pub key_id: Option<String>,
    pub claims: Value,
}

/// Checks the algorithm and the signature, and nothing that is claimed.
pub fn verify(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Verified, String> {
    let header = decode_header(token).map_err(|error| format!("the token can't be read: {error}"))?;
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = decode(token, key, &validation).map_err(|error| format!("the signature is wrong: {error}"))?;
    Ok(Verified { key_id: header.kid, claims: decoded.claims })
}

/// Checks that `exp` is ahead, by `lifetime_max_s` at most.
pub fn check_expiry(claims: &Value, now_s: i64, lifetime_max_s: i64) -> Result<i64, String> {
    let expires_s = claims["exp"].as_i64().ok_or("exp is missing")?;
    if expires_s <= now_s {
        return Err(format!("it expired {} s ago", now_s - expires_s));
    }
    if expires_s > now_s + lifetime_max_s + SKEW_MAX_S {
        return Err(format!("exp is {} s ahead, at most {lifetime_max_s} are allowed", expires_s - now_s));
    }
    Ok(expires_s)
}
