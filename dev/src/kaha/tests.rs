//! The stand-in against a caller that does everything right, and one that does one thing wrong at a time.

mod document;

use std::time::Duration;

use anyhow::Result;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode, get_current_timestamp,
    jwk::{Jwk, ThumbprintHash},
};
use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{stand_in::write_secret, wait};

const DEADLINE: Duration = Duration::from_secs(20);

/// A stand-in, and a caller whose keys it knows.
struct Ground {
    kaha: Kaha,
    keys: [CallerKey; 2],
    http: Client,
    _directory: TempDir,
}

struct CallerKey {
    key: EncodingKey,
    algorithm: Algorithm,
    id: String,
}

impl CallerKey {
    fn of(file: &Path, pem: &str, algorithm: Algorithm) -> Result<Self> {
        write_secret(file, pem.as_bytes())?;
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes())?,
            _ => EncodingKey::from_ec_pem(pem.as_bytes())?,
        };
        let id = Jwk::from_encoding_key(&key, algorithm)?.thumbprint(ThumbprintHash::SHA256)?;
        Ok(Self { key, algorithm, id })
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        encode(&header, claims, &self.key).unwrap()
    }
}

fn ec_pem() -> String {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref()))
}

fn ed_pem() -> String {
    use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref()))
}

impl Ground {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = ["one.pem", "other.pem"].map(|name| directory.path().join(name));
        let keys = [
            CallerKey::of(&files[0], &ec_pem(), Algorithm::ES256).unwrap(),
            CallerKey::of(&files[1], &ed_pem(), Algorithm::EdDSA).unwrap(),
        ];
        let kaha = Kaha::start(directory.path(), KahaPorts::default(), &[&files[0], &files[1]]).await.unwrap();
        // A kept connection that is cut fails in another way than one that is refused.
        let http = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { kaha, keys, http, _directory: directory }
    }

    fn token(&self) -> String {
        self.keys[0].sign(&claims())
    }

    async fn ask_with(&self, token: &str, body: &Value) -> Response {
        self.request(token).json(body).send().await.unwrap()
    }

    fn request(&self, token: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{PROFILES_PATH}", self.kaha.api_url())).bearer_auth(token)
    }

    async fn ask(&self, users: &[Uuid], businesses: &[Uuid]) -> Response {
        self.ask_with(&self.token(), &json!({ "user_ids": users, "business_ids": businesses })).await
    }
}

fn claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "iss": CALLER_ISSUER, "aud": CALLER_AUDIENCE, "sub": "chat-gateway", "scope": "profiles:read",
        "iat": now, "nbf": now, "exp": now + 60, "jti": Uuid::new_v4(),
    })
}

fn with(changes: &Value) -> Value {
    keys::changed(claims(), changes)
}

fn new_ids<const N: usize>() -> [Uuid; N] {
    [(); N].map(|()| Uuid::new_v4())
}

#[tokio::test]
async fn who_asks_rightly_is_told_r10_1_r10_3() {
    let ground = Ground::new().await;
    let [user, nobody, business] = new_ids();
    let asha = &ground.kaha.people()[0];
    ground.kaha.profiles().forget(nobody);
    ground.kaha.profiles().set_business(business, "Tea & Co.", None);
    let answer = ground.ask(&[user, asha.id, nobody], &[business]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    let names: Vec<_> = answer["users"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
    let generated = ground.kaha.profiles().user(user).unwrap();
    assert_eq!(names, [json!(format!("{} {PROFILE_MARK}", asha.name)), json!(generated.name)]);
    assert!(generated.name.contains(PROFILE_MARK) && generated.avatar_url.unwrap().contains(PROFILE_MARK));
    assert_eq!(answer["businesses"][0]["name"], "Tea & Co.");
    assert_eq!(answer["businesses"][0].get("avatar_url"), None);
    for key in &ground.keys {
        let body = json!({ "user_ids": [user], "business_ids": [] });
        assert_eq!(ground.ask_with(&key.sign(&claims()), &body).await.status(), StatusCode::OK, "both keys are good");
    }
    assert_eq!(ground.kaha.calls().all().len(), 3);
    assert_eq!(ground.kaha.calls().for_any(&[business]).len(), 1);
    assert_eq!(ground.kaha.calls().complaints().len(), 0);
}

#[tokio::test]
async fn who_has_no_good_token_is_refused_r6_3() {
    let ground = Ground::new().await;
    let now = get_current_timestamp();
    let [good, other] = &ground.keys;
    let stranger = keys::SigningKey::generate().unwrap();
    let misnamed = CallerKey { key: good.key.clone(), algorithm: good.algorithm, id: other.id.clone() };
    let mut unnamed = Header::new(Algorithm::ES256);
    unnamed.kid = None;
    let body = json!({ "user_ids": new_ids::<1>(), "business_ids": [] });
    let refused = [
        ("garbage", "garbage".to_owned()),
        ("another issuer", good.sign(&with(&json!({ "iss": "somebody" })))),
        ("no issuer", good.sign(&with(&json!({ "iss": null })))),
        ("another audience", good.sign(&with(&json!({ "aud": "chat" })))),
        ("no audience", good.sign(&with(&json!({ "aud": null })))),
        ("other audiences", good.sign(&with(&json!({ "aud": ["chat", "shop"] })))),
        ("no subject", good.sign(&with(&json!({ "sub": null })))),
        ("no id", good.sign(&with(&json!({ "jti": null })))),
        ("expired", good.sign(&with(&json!({ "exp": now - 1 })))),
        ("no end", good.sign(&with(&json!({ "exp": null })))),
        ("a far end", good.sign(&with(&json!({ "exp": now + 3600 })))),
        ("no beginning", good.sign(&with(&json!({ "iat": null })))),
        ("issued later", good.sign(&with(&json!({ "iat": now + 200, "exp": now + 250 })))),
        ("valid later", good.sign(&with(&json!({ "nbf": now + 200, "exp": now + 250 })))),
        ("another key", stranger.sign(&claims()).unwrap()),
        ("another key by this name", stranger.sign_as(Some(&good.id), &claims()).unwrap()),
        ("the other key's name", misnamed.sign(&claims())),
        ("no key's name", encode(&unnamed, &claims(), &good.key).unwrap()),
        ("no signature", stranger.leave_unsigned(&claims())),
        ("a shared secret", stranger.confuse(&claims()).unwrap()),
        ("a user's token", ground.kaha.tokens().user(Uuid::new_v4(), None, TOKEN_TTL).unwrap()),
        ("our own service token", ground.kaha.service_tokens().token(&["profiles:read"]).unwrap()),
    ];
    for (name, token) in &refused {
        assert_eq!(ground.ask_with(token, &body).await.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
    for scope in [json!(null), json!(""), json!("profiles:reads"), json!(["profiles:read"])] {
        let token = good.sign(&with(&json!({ "scope": scope })));
        assert_eq!(ground.ask_with(&token, &body).await.status(), StatusCode::FORBIDDEN, "{scope}");
    }
    let token = good.sign(&with(&json!({ "aud": ["shop", CALLER_AUDIENCE], "scope": "x profiles:read y" })));
    assert_eq!(ground.ask_with(&token, &body).await.status(), StatusCode::OK);
    assert_eq!(ground.kaha.calls().complaints().len(), refused.len() + 4);
    assert_eq!(ground.kaha.calls().all().len(), 1);
}

#[tokio::test]
async fn a_wrong_request_is_refused_and_noted_r10_1() {
    let ground = Ground::new().await;
    let [id] = new_ids();
    let many = |count: usize| (0..count).map(|_| Uuid::new_v4()).collect::<Vec<_>>();
    let bad = [
        json!({ "user_ids": [id] }),
        json!({ "business_ids": [id] }),
        json!({ "user_ids": [], "business_ids": [] }),
        json!({ "user_ids": [id], "business_ids": [], "fields": ["name"] }),
        json!({ "user_ids": [id, id], "business_ids": [] }),
        json!({ "user_ids": [], "business_ids": [id, id] }),
        json!({ "user_ids": [id.simple().to_string()], "business_ids": [] }),
        json!({ "user_ids": [id.to_string().to_uppercase()], "business_ids": [] }),
        json!({ "user_ids": [Uuid::nil()], "business_ids": [] }),
        json!({ "user_ids": [7], "business_ids": [] }),
        json!({ "user_ids": id, "business_ids": [] }),
        json!([id]),
    ];
    for body in &bad {
        assert_eq!(ground.ask_with(&ground.token(), body).await.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let too_many = json!({ "user_ids": many(IDS_MAX), "business_ids": [id] });
    assert_eq!(ground.ask_with(&ground.token(), &too_many).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let untyped = ground.request(&ground.token()).body(json!({ "user_ids": [id], "business_ids": [] }).to_string());
    assert_eq!(untyped.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let elsewhere = ground.http.get(format!("{}/api/profiles", ground.kaha.api_url())).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(ground.kaha.calls().complaints().len(), bad.len() + 3);
    assert_eq!(ground.kaha.calls().all().len(), 0);
    assert_eq!(ground.ask(&many(IDS_MAX - 1), &[id]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn it_fails_as_it_is_told_to_r3_3() {
    let ground = Ground::new().await;
    let ids: [Uuid; 4] = new_ids();
    let wrong = async |fault| {
        ground.kaha.behave(Behaviour::Wrong(fault));
        let answer = ground.ask(&ids, &[]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await
    };
    let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap()["users"].as_array().unwrap().clone();
    assert!(serde_json::from_str::<Value>(&wrong(Fault::BrokenJson).await.unwrap()).is_err());
    assert_eq!(wrong(Fault::Body("[]".to_owned())).await.unwrap(), "[]");
    assert!(wrong(Fault::Huge).await.unwrap().len() > 64 << 20);
    assert_eq!(parsed(wrong(Fault::Missing).await.unwrap()).len(), 2);
    assert_eq!(parsed(wrong(Fault::Unasked).await.unwrap()).len(), 5);
    assert_eq!(parsed(wrong(Fault::DamagedEntries).await.unwrap())[0]["name"], 7);
    assert!(wrong(Fault::CutShort).await.is_err());

    ground.kaha.behave(Behaviour::Failing { status: 429, retry_after: Some(Duration::from_secs(7)) });
    let answer = ground.ask(&ids, &[]).await;
    assert_eq!(
        (answer.status(), answer.headers()[RETRY_AFTER].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "7")
    );

    ground.kaha.behave(Behaviour::Down);
    assert!(ground.request(&ground.token()).send().await.unwrap_err().is_connect());
    let keys = ground.http.get(ground.kaha.service_jwks_url()).send().await.unwrap();
    assert_eq!(keys.status(), StatusCode::OK, "its public keys stay within reach");

    ground.kaha.behave(Behaviour::Normal);
    assert_eq!(ground.ask(&ids, &[]).await.status(), StatusCode::OK);
    assert_eq!(ground.kaha.calls().complaints().len(), 0, "nobody complains of a call that was in order");
}

#[tokio::test]
async fn calls_at_the_same_time_are_counted_for_each_id_r11_2() {
    let ground = Ground::new().await;
    let [both, one, other] = new_ids();
    ground.kaha.behave(Behaviour::BlackHole);
    let first = ground.request(&ground.token()).json(&json!({ "user_ids": [both, one], "business_ids": [] })).send();
    let second = ground.request(&ground.token()).json(&json!({ "user_ids": [both, other], "business_ids": [] })).send();
    let arrived = wait::until("two calls in flight", DEADLINE, || async {
        Ok((ground.kaha.calls().max_in_flight(both) == 2).then_some(()))
    });
    tokio::select! {
        _ = first => panic!("a black hole answers nobody"),
        _ = second => panic!("a black hole answers nobody"),
        arrived = arrived => arrived.unwrap(),
    }
    assert_eq!(ground.kaha.calls().max_in_flight(one), 1);
    assert_eq!(ground.kaha.calls().max_in_flight(Uuid::new_v4()), 0);
    ground.kaha.behave(Behaviour::Slow(Duration::from_millis(1)));
    for _ in 0..2 {
        assert_eq!(ground.ask(&[other], &[]).await.status(), StatusCode::OK);
    }
    assert!(ground.kaha.calls().max_in_flight(other) <= 2, "what is answered is in flight no more");
}

#[tokio::test]
async fn whoever_is_not_known_has_no_profile_r11_4() {
    let ground = Ground::new().await;
    let [known, unknown] = new_ids();
    ground.kaha.profiles().know_everybody(false);
    ground.kaha.profiles().set_user(known, "Known", Some("https://images.example.com/known.jpg"));
    let answer: Value = ground.ask(&[known, unknown], &[unknown]).await.json().await.unwrap();
    assert_eq!(answer["users"].as_array().unwrap().len(), 1);
    assert_eq!(answer["users"][0]["avatar_url"], "https://images.example.com/known.jpg");
    assert_eq!(answer["businesses"], json!([]));
}

#[tokio::test]
async fn staff_lists_are_answered_to_those_who_may_ask_r6_3_r10_1() {
    let ground = Ground::new().await;
    let [known, unknown, agent] = new_ids();
    ground.kaha.staff().set(known, 3, &[(agent, StaffRole::Agent)]);
    let ask = async |scope: &str, body: &Value| {
        let token = ground.keys[0].sign(&with(&json!({ "scope": scope })));
        let url = format!("{}{STAFF_PATH}", ground.kaha.api_url());
        ground.http.post(url).bearer_auth(token).json(body).send().await.unwrap()
    };
    let answer = ask("staff:read", &json!({ "business_ids": [unknown, known] })).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    let businesses = answer["businesses"].as_array().unwrap();
    assert_eq!(businesses.len(), 1);
    assert_eq!((&businesses[0]["business_id"], &businesses[0]["version"]), (&json!(known), &json!(3)));
    assert_eq!(businesses[0]["staff"], json!([{ "user_id": agent, "role": "agent" }]));
    assert_eq!((ground.kaha.staff_calls().all().len(), ground.kaha.calls().all().len()), (1, 0));

    let many: Vec<_> = (0..=IDS_MAX).map(|_| Uuid::new_v4()).collect();
    for (scope, body, status) in [
        ("profiles:read", json!({ "business_ids": [known] }), 403),
        ("staff:read", json!({ "business_ids": many }), 413),
        ("staff:read", json!({ "business_ids": [] }), 400),
        ("staff:read", json!({ "business_ids": [known, known] }), 400),
        ("staff:read", json!({ "business_ids": [known], "user_ids": [] }), 400),
    ] {
        assert_eq!(ask(scope, &body).await.status().as_u16(), status, "{scope}: {body}");
    }
    assert_eq!(ground.kaha.calls().complaints().len(), 5);
    ground.kaha.behave(Behaviour::Wrong(Fault::DamagedEntries));
    let answer: Value = ask("staff:read", &json!({ "business_ids": [known] })).await.json().await.unwrap();
    assert_eq!(answer["businesses"][0]["staff"], 7);
}

#[tokio::test]
async fn a_push_of_staff_is_lost_or_repeated_by_hand() {
    let ground = Ground::new().await;
    let [business, agent] = new_ids();
    let post = async |body: Value| {
        ground.http.post(format!("{}/dev/staff", ground.kaha.url())).json(&body).send().await.unwrap().status()
    };
    let staff = json!([{ "user_id": agent, "role": "agent", "capacity": 2 }]);
    let change = |push: &str| json!({ "business_id": business, "staff": staff, "push": push });
    assert_eq!(post(change("lost")).await, StatusCode::NO_CONTENT);
    assert_eq!(post(change("lost")).await, StatusCode::NO_CONTENT);
    let list = ground.kaha.staff().get(business).unwrap();
    assert_eq!((list.version, list.staff[0].capacity), (2, Some(2)));
    assert_eq!(post(change("repeated")).await, StatusCode::BAD_GATEWAY, "there is no gateway to give it to");
    assert_eq!(ground.kaha.staff().get(business).unwrap().version, 2);
    assert_eq!(post(change("sent")).await, StatusCode::BAD_GATEWAY);
    assert_eq!(ground.kaha.staff().get(business).unwrap().version, 3);
    assert_eq!(post(change("forgotten")).await, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn service_tokens_hold_through_a_rotation_and_bad_ones_never_r6_3() {
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};

    let ground = Ground::new().await;
    let tokens = ground.kaha.service_tokens();
    let keys = async || -> JwkSet {
        ground.http.get(ground.kaha.service_jwks_url()).send().await.unwrap().json().await.unwrap()
    };
    let check = |keys: &JwkSet, token: &str| -> Result<Value> {
        let id = decode_header(token)?.kid.unwrap_or_default();
        let jwk = keys.find(&id).ok_or_else(|| anyhow::anyhow!("an unknown key"))?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_nbf = true;
        validation.leeway = 0;
        validation.set_audience(&[INTERNAL_AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let claims = decode::<Value>(token, &DecodingKey::from_jwk(jwk)?, &validation)?.claims;
        anyhow::ensure!(claims["exp"].as_u64().unwrap() <= get_current_timestamp() + 300, "good for too long");
        Ok(claims)
    };
    let before = tokens.token(&[SCOPE_CLOSE, SCOPE_INVALIDATE]).unwrap();
    let published = keys().await;
    assert_eq!(published.keys.len(), 2);
    assert_eq!(check(&published, &before).unwrap()["scope"], "sessions:close profiles:invalidate");
    assert!(check(&published, &tokens.of_previous_key(&[]).unwrap()).is_ok());
    for (name, token) in tokens.bad(&[SCOPE_CLOSE]).unwrap() {
        assert!(check(&published, &token).is_err(), "{name}");
    }
    tokens.rotate().unwrap();
    let after = tokens.token(&[SCOPE_CLOSE]).unwrap();
    assert!(check(&published, &after).is_err(), "a new key has to be fetched");
    let published = keys().await;
    assert!(check(&published, &before).is_ok() && check(&published, &after).is_ok(), "both keys are good");
    tokens.rotate().unwrap();
    assert!(check(&keys().await, &before).is_err(), "the oldest key is gone");
}

#[tokio::test]
async fn a_token_by_hand_says_where_its_user_comes_from_and_lives_as_long_as_asked_for() {
    let ground = Ground::new().await;
    let [given] = new_ids();
    let asha = &ground.kaha.people()[0];
    let post = async |body: Value| {
        ground.http.post(format!("{}/dev/tokens", ground.kaha.url())).json(&body).send().await.unwrap()
    };
    let token = async |body: Value| -> Value { post(body).await.json().await.unwrap() };
    for name in ["Asha", "asha"] {
        let known = token(json!({ "name": name })).await;
        assert_eq!((&known["user_id"], &known["user"]), (&json!(asha.id), &json!("known")), "each time the same");
    }
    let [one, two] = [token(json!({ "name": "Nisha" })).await, token(json!({ "name": "Nisha" })).await];
    assert_eq!((&one["user"], &two["user"]), (&json!("new"), &json!("new")));
    assert_ne!(one["user_id"], two["user_id"], "a name of nobody makes a user each time");
    let of_id = token(json!({ "user_id": given, "name": "Asha", "ttl_s": 60 })).await;
    assert_eq!(
        (&of_id["user_id"], &of_id["user"], &of_id["expires_in_s"]),
        (&json!(given), &json!("given"), &json!(60))
    );
    for (ttl_s, is_good) in [(0, false), (1, true), (85_500, true), (85_501, false), (u64::MAX, false)] {
        let answer = post(json!({ "name": "Asha", "ttl_s": ttl_s })).await;
        assert_eq!(answer.status() == StatusCode::OK, is_good, "{ttl_s}");
        if !is_good {
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{ttl_s}");
            assert!(answer.text().await.unwrap().contains("1 to 85500"));
        }
    }
}

#[tokio::test]
async fn profiles_are_changed_and_users_logged_out_by_hand() {
    let ground = Ground::new().await;
    let [user] = new_ids();
    let post = async |path: &str, body: Value| {
        ground.http.post(format!("{}{path}", ground.kaha.url())).json(&body).send().await.unwrap()
    };
    let login: Value = post("/dev/tokens", json!({ "user_id": user, "sid": Uuid::nil() })).await.json().await.unwrap();
    assert_eq!(login["sid"], json!(Uuid::nil()));
    let gone = post("/dev/logout", json!({ "user_id": user })).await;
    assert_eq!(gone.status(), StatusCode::BAD_GATEWAY, "there is no gateway to tell");
    post("/dev/profiles", json!({ "user_id": user, "name": "Nisha" })).await;
    assert_eq!(ground.kaha.profiles().user(user).unwrap().name, "Nisha");
    post("/dev/profiles", json!({ "user_id": user })).await;
    assert_eq!(ground.kaha.profiles().user(user), None);
}
