//! Mints tokens as kaha-main-v3 would, and for tests such as it never would.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// `aud` of tokens meant for the chat backend.
pub const AUDIENCE: &str = "chat";

/// `iss` of the tokens.
pub const ISSUER: &str = "kaha-main-v3";

/// `scope` of tokens for services, which have no user behind them.
pub const SERVICE_SCOPE: &str = "service";

/// A signing key (ES256) and what its tokens say.
pub struct Tokens {
    pkcs8: Vec<u8>,
    /// Uncompressed point: 4, then x, then y.
    public: Vec<u8>,
    key_id: String,
}

impl Tokens {
    /// Uses the key in `directory`, so that tokens survive a restart; makes it the first time.
    pub fn kept_in(directory: &Path) -> Result<Self> {
        let file = directory.join("signing-key.der");
        if let Ok(pkcs8) = std::fs::read(&file) {
            return Self::of(pkcs8);
        }
        let pkcs8 = generate()?;
        std::fs::write(&file, &pkcs8).with_context(|| format!("cannot write {}", file.display()))?;
        Self::of(pkcs8)
    }

    fn of(pkcs8: Vec<u8>) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|error| anyhow!("the signing key is damaged: {error}"))?;
        let public = pair.public_key().as_ref().to_vec();
        let key_id = BASE64.encode(&public[1..9]);
        Ok(Self { pkcs8, public, key_id })
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.public[1..].split_at(32);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }] })
    }

    /// A user's token: `sub` is the user id.
    pub fn user(&self, user_id: Uuid, name: Option<&str>, ttl: Duration) -> Result<String> {
        let mut claims = claims(user_id, ttl);
        if let Some(name) = name {
            claims["name"] = json!(name);
        }
        self.sign(&claims)
    }

    /// A service's token: `sub` is an id of the service, `scope` says that it is one.
    pub fn service(&self, service_id: Uuid, ttl: Duration) -> Result<String> {
        let mut claims = claims(service_id, ttl);
        claims["scope"] = json!(SERVICE_SCOPE);
        self.sign(&claims)
    }

    /// A user's token with some claims replaced, or with JSON `null` removed:
    /// `json!({"aud": "other"})`, `json!({"exp": 1})`, `json!({"sub": null})`.
    pub fn with_claims(&self, user_id: Uuid, changes: &Value) -> Result<String> {
        self.sign(&changed(user_id, changes))
    }

    /// Says that this key signed it, but another one did.
    pub fn forged(&self, user_id: Uuid) -> Result<String> {
        let mut other = Self::of(generate()?)?;
        other.key_id.clone_from(&self.key_id);
        other.sign(&claims(user_id, HOUR))
    }

    /// Algorithm `none` and no signature.
    pub fn unsigned(&self, user_id: Uuid) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({ "alg": "none", "typ": "JWT", "kid": self.key_id });
        format!("{}.{}.", part(&header), part(&claims(user_id, HOUR)))
    }

    /// Signed with HS256, with the public key as the secret: fools those who
    /// let the token choose the algorithm.
    pub fn confused(&self, user_id: Uuid) -> Result<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.key_id.clone());
        let key = EncodingKey::from_secret(&self.public);
        Ok(encode(&header, &claims(user_id, HOUR), &key)?)
    }

    fn sign(&self, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        Ok(encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8))?)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

const HOUR: Duration = Duration::from_hours(1);

fn generate() -> Result<Vec<u8>> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("cannot make a signing key"))?;
    Ok(document.as_ref().to_vec())
}

fn claims(subject: Uuid, ttl: Duration) -> Value {
    let now = get_current_timestamp();
    json!({
        "sub": subject, "aud": AUDIENCE, "iss": ISSUER,
        "iat": now, "nbf": now, "exp": now + ttl.as_secs(), "jti": Uuid::new_v4(),
    })
}

fn changed(subject: Uuid, changes: &Value) -> Value {
    let mut claims = claims(subject, HOUR);
    if let (Some(claims), Some(changes)) = (claims.as_object_mut(), changes.as_object()) {
        for (name, value) in changes {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode, jwk::JwkSet};

    use super::*;

    fn check(tokens: &Tokens, token: &str) -> Result<Value> {
        let keys: JwkSet = serde_json::from_value(tokens.jwks())?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        let key = DecodingKey::from_jwk(&keys.keys[0])?;
        Ok(decode::<Value>(token, &key, &validation)?.claims)
    }

    #[test]
    fn good_tokens_hold_and_bad_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::kept_in(directory.path()).unwrap();
        let user = Uuid::new_v4();
        let good = tokens.user(user, Some("Asha"), HOUR).unwrap();
        assert_eq!(check(&tokens, &good).unwrap()["sub"], json!(user));
        for bad in [
            tokens.forged(user).unwrap(),
            tokens.unsigned(user),
            tokens.confused(user).unwrap(),
            tokens.with_claims(user, &json!({ "aud": "other" })).unwrap(),
            tokens.with_claims(user, &json!({ "iss": "other" })).unwrap(),
            tokens.with_claims(user, &json!({ "exp": 1 })).unwrap(),
            tokens.with_claims(user, &json!({ "exp": null })).unwrap(),
        ] {
            assert!(check(&tokens, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let before = Tokens::kept_in(directory.path()).unwrap();
        let token = before.user(Uuid::new_v4(), None, HOUR).unwrap();
        let after = Tokens::kept_in(directory.path()).unwrap();
        assert!(check(&after, &token).is_ok());
    }
}
