//! Whose a user's token is.

use chat_shared::{clock::Timestamp, ids::LoginId, lifecycle::Tasks, telemetry::Latch};
use serde::Deserialize;

use super::{
    Identity, TokenError, VerifierSettings,
    token::{Claims, Rules},
};

/// Bytes of a `sid`.
const LOGIN_BYTES_MAX: usize = 128;

/// Checks users' tokens.
#[derive(Clone)]
pub struct Verifier(Rules);

#[derive(Deserialize)]
struct UserClaims {
    sub: String,
    exp: i64,
    iat: Option<i64>,
    sid: Option<String>,
    /// Only here so that it is one text; what it must be is checked with the signature.
    #[serde(rename = "iss")]
    _iss: Option<String>,
}

impl Claims for UserClaims {
    fn expires_s(&self) -> i64 {
        self.exp
    }

    fn issued_s(&self) -> Option<i64> {
        self.iat
    }
}

impl Verifier {
    /// A verifier; `latch` shows whether it has keys.
    pub fn start(settings: VerifierSettings, latch: Latch, tasks: &Tasks) -> anyhow::Result<Self> {
        Ok(Self(Rules::start(settings, "token_keys", latch, tasks)?))
    }

    /// Who the token belongs to. Whether their login has ended since is asked of [`super::Revocations`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let claims: UserClaims = self.0.verify(token).await?;
        let user_id = claims
            .sub
            .parse()
            .map_err(|_| TokenError::Refused("its `sub` is not a UUID of version 4 in lower case"))?;
        Ok(Identity {
            user_id,
            expires_at: Timestamp(claims.exp.saturating_mul(1000)),
            issued_at: Timestamp(claims.iat.unwrap_or(0).saturating_mul(1000)),
            login: match &claims.sid {
                Some(sid) => Some(login_of(sid).ok_or(TokenError::Refused("its `sid` is empty or too long"))?),
                None => None,
            },
        })
    }
}

/// The login that a `sid` names, unless it is empty or too long to be one.
pub fn login_of(sid: &str) -> Option<LoginId> {
    (1..=LOGIN_BYTES_MAX).contains(&sid.len()).then(|| LoginId::of(sid))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::KeySource;

    const SECRET: &str = "a secret that only this test knows and nobody else";

    fn verifier(lifetime_max: Duration) -> Verifier {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let (keys, issuer) = (KeySource::Secret(file.path().to_owned()), Some("kaha-main-v3".to_owned()));
        let settings = VerifierSettings { keys, audience: "chat".to_owned(), issuer, lifetime_max };
        Verifier::start(settings, Latch::default(), &Tasks::default()).unwrap()
    }

    fn now_s() -> i64 {
        chat_shared::clock::Clock::System.now().0 / 1000
    }

    /// A good token but for these claims; those that are null are left out.
    fn token(header: &Header, changes: &Value) -> String {
        let mut claims = json!({
            "iss": "kaha-main-v3", "aud": "chat", "sub": uuid::Uuid::new_v4(), "sid": "phone",
            "iat": now_s(), "exp": now_s() + 3600,
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jsonwebtoken::encode(header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    #[tokio::test]
    async fn a_token_says_which_login_it_is_of_and_since_when_r6_4() {
        let verifier = verifier(Duration::from_hours(24));
        let issued_s = now_s() - 60;
        let changes = json!({ "iat": issued_s });
        let identity = verifier.verify(&token(&Header::default(), &changes)).await.unwrap();
        assert_eq!((identity.issued_at, identity.login), (Timestamp(issued_s * 1000), Some(LoginId::of("phone"))));
        let silent = token(&Header::default(), &json!({ "iat": null, "sid": null }));
        let identity = verifier.verify(&silent).await.unwrap();
        assert_eq!((identity.issued_at, identity.login), (Timestamp(0), None));
    }

    #[tokio::test]
    async fn a_token_that_would_outlive_its_revocation_is_refused_r6_4() {
        let verifier = verifier(Duration::from_hours(1));
        let check = async |iat: Option<i64>, exp: i64| {
            let changes = json!({ "iat": iat.map(|ahead_s| now_s() + ahead_s), "exp": now_s() + exp });
            verifier.verify(&token(&Header::default(), &changes)).await.map(|_| ())
        };
        for (iat, exp) in [(None, 3600), (Some(0), 3600), (Some(-3000), 600), (Some(3), 3600)] {
            assert_eq!(check(iat, exp).await, Ok(()), "{iat:?} {exp}");
        }
        for (iat, exp) in [(None, 3700), (Some(0), 3700), (Some(-3000), 700), (Some(-1_000_000), 60), (Some(60), 120)] {
            assert!(matches!(check(iat, exp).await, Err(TokenError::Refused(_))), "{iat:?} {exp}");
        }
        assert_eq!(
            check(None, i64::MAX / 2).await.map_err(|error| error.to_string()),
            Err("the token is refused: it lives longer than is allowed here; its issuer must make shorter ones"
                .to_owned())
        );
    }

    #[tokio::test]
    async fn odd_claims_and_headers_are_refused_r6_4() {
        let verifier = verifier(Duration::from_hours(24));
        let refused = async |header: &Header, changes: &Value| {
            let outcome = verifier.verify(&token(header, changes)).await;
            assert!(matches!(outcome, Err(TokenError::Refused(_))), "{header:?} {changes}");
        };
        for changes in [
            json!({ "sid": "" }),
            json!({ "sid": "x".repeat(129) }),
            json!({ "sid": 7 }),
            json!({ "iat": "now" }),
            json!({ "iat": 1.5 }),
            json!({ "iss": ["kaha-main-v3"] }),
            json!({ "iss": null }),
            json!({ "aud": ["chat", 7] }),
            json!({ "sub": "00000000-0000-0000-0000-000000000000" }),
            json!({ "sub": "936DA01F-9ABD-4D9D-80C7-02AF85C822A8" }),
            json!({ "sub": "936da01f9abd4d9d80c702af85c822a8" }),
        ] {
            refused(&Header::default(), &changes).await;
        }
        for header in [
            Header { crit: Some(vec!["exp".to_owned()]), ..Header::default() },
            Header { crit: Some(vec![]), ..Header::default() },
            Header { typ: Some("secevent+jwt".to_owned()), ..Header::default() },
            Header { typ: Some(String::new()), ..Header::default() },
        ] {
            refused(&header, &json!({})).await;
        }
        for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt")] {
            let header = Header { typ: typ.map(str::to_owned), ..Header::default() };
            assert!(verifier.verify(&token(&header, &json!({ "aud": ["other", "chat"] }))).await.is_ok(), "{typ:?}");
        }
    }

    #[tokio::test]
    async fn a_claim_that_is_there_twice_is_refused_r6_4() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let verifier = verifier(Duration::from_hours(24));
        let good = token(&Header::default(), &json!({}));
        let [header, claims, _] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let claims = String::from_utf8(BASE64.decode(claims).unwrap()).unwrap();
        for (twice, is_taken) in [
            (r#""sid":"phone""#, false),
            (r#""exp":9999999999"#, false),
            (r#""iat":1"#, false),
            (r#""aud":"chat""#, false),
            (r#""iss":"kaha-main-v3""#, false),
            (r#""sub":"936da01f-9abd-4d9d-80c7-02af85c822a8""#, false),
            (r#""other":1"#, true),
        ] {
            let body = format!("{header}.{}", BASE64.encode(format!("{{{twice},{}", &claims[1..])));
            let key = EncodingKey::from_secret(SECRET.as_bytes());
            let signature = jsonwebtoken::crypto::sign(body.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
            assert_eq!(verifier.verify(&format!("{body}.{signature}")).await.is_ok(), is_taken, "{twice}");
        }
    }
}
