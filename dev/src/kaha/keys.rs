//! A key that kaha-main-v3 signs tokens with (ES256), and the tokens that a good one never makes.

use std::{fmt, path::Path};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::stand_in::write_secret;

/// A private key and the name of its public half.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    /// Uncompressed point: 4, then x, then y.
    public: Vec<u8>,
    id: String,
}

impl SigningKey {
    /// A new one.
    pub fn generate() -> Result<Self> {
        Self::of(generate_pkcs8()?)
    }

    /// The one in `file`, so that its tokens survive a restart; made the first time.
    pub fn kept_in(file: &Path) -> Result<Self> {
        if let Ok(pkcs8) = std::fs::read(file) {
            return Self::of(pkcs8).with_context(|| format!("{} is damaged", file.display()));
        }
        let pkcs8 = generate_pkcs8()?;
        write_secret(file, &pkcs8)?;
        Self::of(pkcs8)
    }

    fn of(pkcs8: Vec<u8>) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|error| anyhow!("it is no signing key: {error}"))?;
        let public = pair.public_key().as_ref().to_vec();
        let id = BASE64.encode(&public[1..9]);
        Ok(Self { pkcs8, public, id })
    }

    /// Its name, in the header of its tokens.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public half, for a JSON Web Key Set.
    pub fn jwk(&self) -> Value {
        let (x, y) = self.public[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        self.sign_as(Some(&self.id), claims)
    }

    /// A token that names another key than the one that signed it, or none.
    pub fn sign_as(&self, key_id: Option<&str>, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = key_id.map(str::to_owned);
        Ok(encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8))?)
    }

    /// Says that this key signed it, but another one did.
    pub fn forge(&self, claims: &Value) -> Result<String> {
        Self::generate()?.sign_as(Some(&self.id), claims)
    }

    /// Algorithm `none` and no signature.
    pub fn leave_unsigned(&self, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({ "alg": "none", "typ": "JWT", "kid": self.id });
        format!("{}.{}.", part(&header), part(claims))
    }

    /// Signed with HS256, with the public key as the secret: fools those who let the token choose the algorithm.
    pub fn confuse(&self, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.id.clone());
        Ok(encode(&header, claims, &EncodingKey::from_secret(&self.public))?)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The same claims with some replaced, or with JSON `null` removed.
pub fn changed(mut claims: Value, changes: &Value) -> Value {
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

fn generate_pkcs8() -> Result<Vec<u8>> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("cannot make a signing key"))?;
    Ok(document.as_ref().to_vec())
}
