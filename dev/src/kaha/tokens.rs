//! Mints users' tokens as kaha-main-v3 would, and for tests such as it never would.

use std::{path::Path, time::Duration};

use anyhow::Result;
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::{SigningKey, changed};

/// `aud` of tokens meant for the chat backend.
pub const AUDIENCE: &str = "chat";

/// `iss` of the tokens.
pub const ISSUER: &str = "kaha-main-v3";

/// How long a user's token lives if nothing else is asked: a little less than the day that gateways allow.
pub const TOKEN_TTL: Duration = Duration::from_mins(23 * 60 + 45);

const HOUR: Duration = Duration::from_hours(1);

/// A signing key and what its tokens say.
#[derive(Debug)]
pub struct Tokens {
    key: SigningKey,
}

impl Tokens {
    /// Uses the key in `directory`, so that tokens survive a restart; makes it the first time.
    pub fn kept_in(directory: &Path) -> Result<Self> {
        Ok(Self { key: SigningKey::kept_in(&directory.join("signing-key.der"))? })
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.key.jwk()] })
    }

    /// A user's token as a new login gives it: `sub` is the user id, `sid` the login's own id.
    pub fn user(&self, user_id: Uuid, name: Option<&str>, ttl: Duration) -> Result<String> {
        let mut claims = claims(user_id, Uuid::new_v4(), ttl);
        if let Some(name) = name {
            claims["name"] = json!(name);
        }
        self.key.sign(&claims)
    }

    /// A user's token of a certain login.
    pub fn user_in_session(&self, user_id: Uuid, sid: Uuid, ttl: Duration) -> Result<String> {
        self.key.sign(&claims(user_id, sid, ttl))
    }

    /// A user's token with some claims replaced, or with JSON `null` removed:
    /// `json!({"aud": "other"})`, `json!({"exp": 1})`, `json!({"sub": null})`.
    pub fn with_claims(&self, user_id: Uuid, changes: &Value) -> Result<String> {
        self.key.sign(&changed(an_hour_of(user_id), changes))
    }

    /// Says that this key signed it, but another one did.
    pub fn forged(&self, user_id: Uuid) -> Result<String> {
        self.key.forge(&an_hour_of(user_id))
    }

    /// Algorithm `none` and no signature.
    pub fn unsigned(&self, user_id: Uuid) -> String {
        self.key.leave_unsigned(&an_hour_of(user_id))
    }

    /// Signed with HS256, with the public key as the secret.
    pub fn confused(&self, user_id: Uuid) -> Result<String> {
        self.key.confuse(&an_hour_of(user_id))
    }
}

fn an_hour_of(user_id: Uuid) -> Value {
    claims(user_id, Uuid::new_v4(), HOUR)
}

fn claims(user_id: Uuid, sid: Uuid, ttl: Duration) -> Value {
    let now = get_current_timestamp();
    json!({
        "sub": user_id, "sid": sid, "aud": AUDIENCE, "iss": ISSUER,
        "iat": now, "nbf": now, "exp": now + ttl.as_secs(), "jti": Uuid::new_v4(),
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::JwkSet};

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
    fn each_login_is_a_session_of_its_own_r6_4() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::kept_in(directory.path()).unwrap();
        let (user, sid) = (Uuid::new_v4(), Uuid::new_v4());
        let logins = [(); 2].map(|()| check(&tokens, &tokens.user(user, None, TOKEN_TTL).unwrap()).unwrap());
        assert_ne!(logins[0]["sid"], logins[1]["sid"]);
        let token = tokens.user_in_session(user, sid, TOKEN_TTL).unwrap();
        assert_eq!(check(&tokens, &token).unwrap()["sid"], json!(sid));
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
