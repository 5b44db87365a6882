//! Mints the tokens with which kaha-main-v3 calls the chat's internal endpoints, good and bad, and rotates their keys.

use std::{sync::Mutex, time::Duration};

use anyhow::Result;
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    keys::{SigningKey, changed},
    tokens::ISSUER,
};
use crate::stand_in::lock;

/// `aud` of service tokens for the chat's internal endpoints.
pub const INTERNAL_AUDIENCE: &str = "chat-internal";

/// `sub`: the part of kaha-main-v3 that calls.
const SERVICE: &str = "kaha-accounts";

/// Lets its bearer say that profiles have changed.
pub const SCOPE_INVALIDATE: &str = "profiles:invalidate";

/// Lets its bearer close a user's connections.
pub const SCOPE_CLOSE: &str = "sessions:close";

/// Lets its bearer change businesses.
pub const SCOPE_BUSINESSES: &str = "businesses:write";

/// Lets its bearer read all that a user has written.
pub const SCOPE_EXPORT: &str = "users:export";

/// How long a good one lives. At most five minutes are allowed.
const TTL: Duration = Duration::from_mins(1);

/// Two keys that are both published; one of them signs.
#[derive(Debug)]
pub struct ServiceTokens {
    keys: Mutex<Pair>,
}

#[derive(Debug)]
struct Pair {
    current: SigningKey,
    /// The one before; its tokens are still good.
    previous: SigningKey,
}

impl ServiceTokens {
    /// With new keys.
    pub fn generate() -> Result<Self> {
        let pair = Pair { current: SigningKey::generate()?, previous: SigningKey::generate()? };
        Ok(Self { keys: Mutex::new(pair) })
    }

    /// Both public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        let keys = lock(&self.keys);
        json!({ "keys": [keys.current.jwk(), keys.previous.jwk()] })
    }

    /// A good token with these scopes.
    pub fn token(&self, scopes: &[&str]) -> Result<String> {
        lock(&self.keys).current.sign(&claims(scopes))
    }

    /// A good token, signed with the key from before the last rotation.
    pub fn of_previous_key(&self, scopes: &[&str]) -> Result<String> {
        lock(&self.keys).previous.sign(&claims(scopes))
    }

    /// A token with all scopes and some claims replaced, or with JSON `null` removed.
    pub fn with_claims(&self, changes: &Value) -> Result<String> {
        lock(&self.keys)
            .current
            .sign(&changed(claims(&[SCOPE_INVALIDATE, SCOPE_CLOSE, SCOPE_BUSINESSES, SCOPE_EXPORT]), changes))
    }

    /// Signs with a new key from now on. The one before stays published, the one before that is gone.
    pub fn rotate(&self) -> Result<()> {
        let mut keys = lock(&self.keys);
        keys.previous = std::mem::replace(&mut keys.current, SigningKey::generate()?);
        Ok(())
    }

    /// Tokens with these scopes that must not be believed, and why. None fails for its scope.
    pub fn bad(&self, scopes: &[&str]) -> Result<Vec<(&'static str, String)>> {
        let now = get_current_timestamp();
        let far = now + 100_000;
        let with = |changes: &Value| lock(&self.keys).current.sign(&changed(claims(scopes), changes));
        let mut bad = vec![
            ("for another audience", with(&json!({ "aud": "kaha-main-v3" }))?),
            ("for the audience of users", with(&json!({ "aud": super::tokens::AUDIENCE }))?),
            ("for no audience", with(&json!({ "aud": null }))?),
            ("from another issuer", with(&json!({ "iss": "chat-backend" }))?),
            ("from no issuer", with(&json!({ "iss": null }))?),
            ("expired", with(&json!({ "iat": now - 120, "nbf": now - 120, "exp": now - 60 }))?),
            ("without an expiry", with(&json!({ "exp": null }))?),
            ("good for an hour", with(&json!({ "exp": now + 3600 }))?),
            ("good for six minutes", with(&json!({ "exp": now + 420 }))?),
            ("not valid yet", with(&json!({ "nbf": far, "exp": far + 60 }))?),
            ("of nobody", with(&json!({ "sub": null }))?),
        ];
        let keys = lock(&self.keys);
        let claims = claims(scopes);
        let (head, signature) = keys.current.sign(&claims)?.rsplit_once('.').map_or_else(
            || (String::new(), String::new()),
            |(head, signature)| (head.to_owned(), signature.to_owned()),
        );
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        bad.extend([
            ("forged", keys.current.forge(&claims)?),
            ("of a key that nobody knows", SigningKey::generate()?.sign(&claims)?),
            ("that names the other key", keys.current.sign_as(Some(keys.previous.id()), &claims)?),
            ("that names no key", keys.current.sign_as(None, &claims)?),
            ("with algorithm none", keys.current.leave_unsigned(&claims)),
            ("with another algorithm, and the public key as its secret", keys.current.confuse(&claims)?),
            ("without its signature", format!("{head}.")),
            ("with another signature", format!("{head}.{flipped}{}", signature.get(1..).unwrap_or_default())),
            ("which is none", "a.b.c".to_owned()),
        ]);
        Ok(bad)
    }
}

fn claims(scopes: &[&str]) -> Value {
    let now = get_current_timestamp();
    json!({
        "sub": SERVICE, "aud": INTERNAL_AUDIENCE, "iss": ISSUER, "scope": scopes.join(" "),
        "iat": now, "nbf": now, "exp": now + TTL.as_secs(), "jti": Uuid::new_v4(),
    })
}
