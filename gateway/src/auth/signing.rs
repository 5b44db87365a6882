//! Tokens that this service shows to others (R6.3): signed with its own key, short-lived, and for one service each.
//!
//! **Invariant:** private keys leave this room nowhere; what is published are public halves.

use std::{fmt, path::Path, time::Duration};

use anyhow::Context;
use chat_shared::clock::Timestamp;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// How long a token lives: the receiver looks at it at once.
const LIFETIME: Duration = Duration::from_mins(1);
/// What tokens say in `sub`: which part of the chat backend asks.
const SUBJECT: &str = "chat-gateway";

/// Makes tokens with the current key, and knows the public halves of it and of the next.
pub struct Signer {
    service_name: String,
    current: Key,
    next: Option<Key>,
}

/// A private key. Its id is the thumbprint of its public half (RFC 7638, SHA-256), so it needs no setting.
struct Key {
    private: EncodingKey,
    header: Header,
    public: Jwk,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    scope: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
}

impl Signer {
    /// Reads the key that signs and, while keys are exchanged, the one that will sign next.
    pub fn read(current: &Path, next: Option<&Path>, service_name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            service_name: service_name.to_owned(),
            current: Key::read(current)?,
            next: next.map(Key::read).transpose()?,
        })
    }

    /// A token for one service, which lets its bearer do what `scope` says. Each is another one.
    pub fn token(&self, audience: &str, scope: &str, now: Timestamp) -> String {
        let issued_s = now.0.div_euclid(1000);
        let claims = Claims {
            iss: &self.service_name,
            aud: audience,
            sub: SUBJECT,
            scope,
            iat: issued_s,
            nbf: issued_s,
            exp: issued_s.saturating_add_unsigned(LIFETIME.as_secs()),
            jti: Uuid::new_v4(),
        };
        self.current.sign(&claims).expect("the key has signed when it was read")
    }

    /// The public halves, as a JSON Web Key Set.
    pub fn public_keys(&self) -> Value {
        let mut keys = vec![self.current.public.clone()];
        keys.extend(self.next.iter().map(|key| key.public.clone()).filter(|next| *next != self.current.public));
        serde_json::to_value(JwkSet { keys }).expect("public keys are maps of strings")
    }
}

impl Key {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::of(&pem)
            .with_context(|| format!("{} is no private key in PEM (PKCS#8) of EC P-256 or Ed25519", path.display()))
    }

    fn of(pem: &[u8]) -> anyhow::Result<Self> {
        let (private, algorithm) = match EncodingKey::from_ec_pem(pem) {
            Ok(private) => (private, Algorithm::ES256),
            Err(_) => (EncodingKey::from_ed_pem(pem)?, Algorithm::EdDSA),
        };
        let mut public = Jwk::from_encoding_key(&private, algorithm)?;
        let id = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let header = Header { kid: Some(id), ..Header::new(algorithm) };
        let key = Self { private, header, public };
        key.sign(&serde_json::json!({})).context("signing with it")?;
        Ok(key)
    }

    fn sign(&self, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        jsonwebtoken::encode(&self.header, claims, &self.private)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    /// The key of RFC 8037, appendix A, in PKCS#8.
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn new_p256() -> tempfile::NamedTempFile {
        use aws_lc_rs::{rand::SystemRandom, signature};
        use base64::{Engine, engine::general_purpose::STANDARD};
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let text = STANDARD.encode(pkcs8.as_ref());
        file(&format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
    }

    #[test]
    fn a_token_is_for_one_service_and_a_minute_and_both_keys_are_published_r6_3() {
        for (current, next, algorithm) in
            [(new_p256(), file(ED25519), Algorithm::ES256), (file(ED25519), new_p256(), Algorithm::EdDSA)]
        {
            let signer = Signer::read(current.path(), Some(next.path()), "chat-backend").unwrap();
            let published: JwkSet = serde_json::from_value(signer.public_keys()).unwrap();
            assert_eq!(published.keys.len(), 2);
            let now = Timestamp(chat_shared::clock::Clock::System.now().0);
            let token = signer.token("kaha-main-v3", "profiles:read", now);
            let header = jsonwebtoken::decode_header(&token).unwrap();
            let key = DecodingKey::from_jwk(published.find(&header.kid.unwrap()).unwrap()).unwrap();
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["kaha-main-v3"]);
            validation.set_issuer(&["chat-backend"]);
            let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
            assert_eq!((&claims["sub"], &claims["scope"]), (&"chat-gateway".into(), &"profiles:read".into()));
            let seconds = |name: &str| claims[name].as_i64().unwrap();
            assert_eq!((seconds("exp") - seconds("iat"), seconds("nbf")), (60, now.0 / 1000));
            let tokens: HashSet<_> = (0..3).map(|_| signer.token("kaha-main-v3", "profiles:read", now)).collect();
            assert_eq!(tokens.len(), 3, "a `jti` each");
        }
    }

    #[test]
    fn only_public_halves_are_published_under_their_thumbprints_r6_3() {
        let signer = Signer::read(file(ED25519).path(), None, "chat-backend").unwrap();
        let expected = serde_json::json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        }]});
        assert_eq!(signer.public_keys(), expected);
        assert_eq!(format!("{signer:?}"), "Signer");
    }

    #[test]
    fn a_file_without_a_private_key_is_named() {
        for wrong in ["", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", "a secret"] {
            let file = file(wrong);
            let error = format!("{:#}", Signer::read(file.path(), None, "chat-backend").unwrap_err());
            assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
        }
    }
}
