//! Tokens that are nearly right: whatever is let in has been signed as it stands, and says what it must.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_shared::{clock::Clock, ids::UserId, lifecycle::Tasks, telemetry::Latch};
use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*, sample::select};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Identity, KeySource, TokenError, Verifier, VerifierSettings};
use crate::tests::mutation::{Change, apply, changes, texts};

const SECRET: &[u8] = b"a secret of thirty-two bytes and more";
const OTHER_SECRET: &[u8] = b"another secret of thirty-two bytes, too";
const LIFETIME_MAX_S: u64 = 86_400;
/// What the verifier allows, and a second for the time that this test takes.
const LEEWAY_S: f64 = 6.0;
const USER: &str = "936da01f-9abd-4d9d-80c7-02af85c822a8";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SECRET).unwrap();
    let settings = VerifierSettings {
        keys: KeySource::Secret(file.path().to_owned()),
        audience: "chat".to_owned(),
        issuer: Some("kaha".to_owned()),
        lifetime_max: Duration::from_secs(LIFETIME_MAX_S),
    };
    Verifier::start(settings, Latch::default(), &Tasks::default()).unwrap()
});

fn verify(token: &str) -> Result<Identity, TokenError> {
    VERIFIER.verify(token).now_or_never().expect("a key from a file is there at once")
}

/// By the machine's clock, which the library that checks tokens asks.
fn now_s() -> u64 {
    u64::try_from(Clock::System.now().0 / 1000).unwrap()
}

/// A claim or a field of the header, its value written as it is.
type Field = (String, String);

/// Right values mostly; else wrong ones, or none, or two.
fn field(name: &'static str, right: Vec<Value>, wrong: Vec<Value>) -> impl Strategy<Value = Vec<Field>> {
    let (right, wrong) = (select(right), select(wrong));
    prop_oneof![
        20 => right.clone().prop_map(|value| vec![value]),
        2 => wrong.clone().prop_map(|value| vec![value]),
        1 => Just(Vec::new()),
        1 => (right.clone(), wrong.clone()).prop_map(|(right, wrong)| vec![right, wrong]),
        1 => (right, wrong).prop_map(|(right, wrong)| vec![wrong, right]),
    ]
    .prop_map(move |values| values.into_iter().map(|value| (name.to_owned(), value.to_string())).collect())
}

fn odd() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(""),
        json!([]),
        json!({}),
        json!(-1),
        json!(1.5),
        json!("chat\u{0}"),
        json!([[[]]]),
    ]
}

fn with_odd(others: &[Value]) -> Vec<Value> {
    [others, &odd()].concat()
}

fn headers() -> impl Strategy<Value = Vec<Field>> {
    let algorithms: Vec<Value> = ["none", "None", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "HS256 "]
        .iter()
        .map(|name| json!(name))
        .collect();
    let others = prop_oneof![
        10 => Just(("typ".to_owned(), json!("JWT").to_string())),
        1 => (select(vec!["crit", "typ", "cty", "kid", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"]), select(with_odd(&[
            json!(["b64"]), json!("at+jwt"), json!("JWE"), json!({ "kty": "oct", "k": "AAAA" }), json!("https://example.org/keys"),
            json!(false), json!("../../dev/null"),
        ])))
            .prop_map(|(name, value)| (name.to_owned(), value.to_string())),
    ];
    (field("alg", vec![json!("HS256")], with_odd(&algorithms)), others).prop_map(|(mut fields, other)| {
        fields.push(other);
        fields
    })
}

fn claims() -> impl Strategy<Value = Vec<Field>> {
    let now = now_s();
    let ahead = |seconds: u64| json!(now + seconds);
    let wrong_times = with_odd(&[
        json!(0),
        json!(now - 60),
        json!(now - 7),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!("tomorrow"),
        json!((now + 60).to_string()),
        json!(i64::MIN),
        ahead(LIFETIME_MAX_S + 60),
        json!([now + 60]),
    ]);
    let future = with_odd(&[ahead(60), json!(u64::MAX), json!(i64::MAX), json!("now"), json!(1e300)]);
    let users = with_odd(&[
        json!("00000000-0000-0000-0000-000000000000"),
        json!("936da01f-9abd-1d9d-80c7-02af85c822a8"),
        json!([USER]),
        json!("root"),
    ]);
    let audiences =
        with_odd(&[json!("chat "), json!("CHAT"), json!(["other"]), json!({ "chat": "chat" }), json!(["chat", 7])]);
    (
        field("sub", vec![json!(USER)], users),
        field("exp", vec![ahead(60), ahead(3600)], wrong_times),
        field("aud", vec![json!("chat"), json!(["other", "chat"])], audiences),
        field("iss", vec![json!("kaha")], with_odd(&[json!("Kaha"), json!(["kaha"]), json!("evil")])),
        field("nbf", vec![json!(now - 60), json!(0)], future.clone()),
        field("iat", vec![json!(now - 60), json!(now)], future),
        field("sid", vec![json!("login")], with_odd(&[json!("x".repeat(5000))])),
        vec((texts(), select(odd())), 0..2),
    )
        .prop_map(|(sub, exp, aud, iss, nbf, iat, sid, others)| {
            let others = others.into_iter().map(|(name, value)| (name, value.to_string()));
            [sub, exp, aud, iss, nbf, iat, sid].concat().into_iter().chain(others).collect()
        })
}

/// An object with these fields as they come, also those that are there twice.
fn object(fields: &[Field]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

fn signed(header: &[u8], claims: &[u8], secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Whether a token is signed as it stands, and which header and claims it then has.
fn opened(token: &str) -> Option<[Value; 2]> {
    let (message, tag) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
    let read = |part: &str| {
        let named: Named = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
        serde_json::to_value(named).ok()
    };
    Some([read(header)?, read(claims)?])
}

/// The fields that decide. A string in any other one may hold bytes that are no text.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Named {
    alg: Value,
    crit: Value,
    sub: Value,
    exp: Value,
    aud: Value,
    iss: Value,
    nbf: Value,
    iat: Value,
    sid: Value,
}

/// What every token must say that is let in, whatever reads it.
fn is_right(header: &Value, claims: &Value, identity: &Identity) -> bool {
    let now = Duration::from_secs(now_s()).as_secs_f64();
    let is_past = |name: &str| claims[name].is_null() || claims[name].as_f64().is_some_and(|at| at <= now + LEEWAY_S);
    let lifetime_max = Duration::from_secs(LIFETIME_MAX_S).as_secs_f64();
    let is_for_us =
        |audience: &Value| audience == "chat" || audience.as_array().is_some_and(|all| all.contains(&json!("chat")));
    header["alg"] == "HS256"
        && header["crit"].is_null()
        && claims["sub"].as_str().is_some_and(|sub| sub.parse::<UserId>() == Ok(identity.user_id))
        && claims["exp"].as_f64().is_some_and(|exp| exp >= now - LEEWAY_S && exp <= now + lifetime_max + LEEWAY_S)
        && is_for_us(&claims["aud"])
        && claims["iss"] == "kaha"
        && is_past("nbf")
        && is_past("iat")
        && (claims["sid"].is_string() == identity.login.is_some())
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    apply(changes, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_let_in_is_signed_and_says_what_it_must(
        header in headers(), claims in claims(), is_ours in prop::bool::weighted(0.9)
    ) {
        let token = signed(&object(&header), &object(&claims), if is_ours { SECRET } else { OTHER_SECRET });
        if let Ok(identity) = verify(&token) {
            prop_assert!(is_ours);
            // Whichever of two fields of one name is believed, there is none to choose from.
            for fields in [&header, &claims] {
                for name in ["alg", "crit", "sub", "exp", "aud", "iss", "nbf", "iat", "sid"] {
                    prop_assert!(fields.iter().filter(|(other, _)| other == name).count() <= 1, "two of {name}");
                }
            }
            let [header, claims] = opened(&token).expect("it is signed");
            prop_assert!(is_right(&header, &claims, &identity), "{header} {claims}");
        }
    }

    #[test]
    fn a_token_whose_parts_were_changed_before_it_was_signed_is_refused_or_right(
        header in headers(), claims in claims(), in_header in vec(changes(), 0..2), in_claims in vec(changes(), 0..3)
    ) {
        let token = signed(&changed(object(&header), &in_header), &changed(object(&claims), &in_claims), SECRET);
        if let Ok(identity) = verify(&token) {
            let [header, claims] = opened(&token).expect("it is signed");
            prop_assert!(is_right(&header, &claims, &identity), "{header} {claims}");
        }
    }

    #[test]
    fn a_token_that_was_changed_after_it_was_signed_is_refused(claims in claims(), in_token in vec(changes(), 1..4)) {
        let header = [("alg".to_owned(), "\"HS256\"".to_owned())];
        let token = signed(&object(&header), &object(&claims), SECRET);
        let bytes = changed(token.clone().into_bytes(), &in_token);
        let other = String::from_utf8_lossy(&bytes);
        prop_assert!(other == token || verify(&other).is_err(), "{other}");
    }

    #[test]
    fn text_is_no_token(text in prop_oneof![texts(), "[A-Za-z0-9_=.-]{0,200}", "(ey[A-Za-z0-9_-]{0,40}\\.){0,6}"]) {
        prop_assert!(verify(&text).is_err());
        prop_assert!(verify(&text.repeat(1000)).is_err());
    }
}

#[test]
fn a_right_token_is_let_in() {
    let now = now_s();
    let claims = json!({ "sub": USER, "exp": now + 60, "iat": now, "aud": ["chat"], "iss": "kaha", "sid": "login" });
    let token = signed(b"{\"alg\":\"HS256\",\"typ\":\"JWT\"}", claims.to_string().as_bytes(), SECRET);
    assert_eq!(verify(&token).unwrap().user_id, USER.parse().unwrap());
}
