//! The interface of other services over HTTP: whose tokens it takes, for what, and that each port serves its own side only.

use std::net::SocketAddr;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chat_shared::{
    clock::Clock,
    ids::{DeviceId, LoginId, UserId},
    telemetry::Latch,
    wire::{CloseCode, ErrorBody, ErrorCode, Hello},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    gateway::{Gateway, token},
    place::users,
};
use crate::{
    auth::{Identity, KeySource, ServiceVerifier, Signer},
    connection::simulated::Client,
    edge::{ProxyProtocol, TrustedProxies},
    internal::{self, Internal},
};

const CLOSE: &str = "/internal/v1/sessions/close";
const INVALIDATE: &str = "/internal/v1/profiles/invalidate";

/// Another service's key.
pub struct Key {
    private: Vec<u8>,
    public: tempfile::NamedTempFile,
}

impl Key {
    fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &private).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let public = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(public.path(), pem("PUBLIC KEY", der.as_ref())).unwrap();
        Self { private, public }
    }

    /// A good token but for these claims; those that are null are left out.
    pub fn token(&self, changes: &Value) -> String {
        let now = Clock::System.now().0 / 1000;
        let mut claims = json!({
            "iss": "kaha-main-v3", "aud": "chat-internal", "sub": "kaha-accounts", "iat": now, "exp": now + 60,
            "scope": "profiles:invalidate sessions:close",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let header = Header::new(Algorithm::ES256);
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.private)).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A gateway with both ports, and the keys of a service that exchanges them.
pub struct Stand {
    pub gateway: Gateway,
    pub address: SocketAddr,
    pub keys: [Key; 2],
}

impl Stand {
    pub async fn start() -> Self {
        let (gateway, keys) = (Gateway::start().await, [Key::new(), Key::new()]);
        let source = KeySource::PublicKeys(keys.iter().map(|key| key.public.path().to_owned()).collect());
        let (issuer, audience) = ("kaha-main-v3".to_owned(), "chat-internal".to_owned());
        let tasks = &gateway.state.tasks;
        let services = ServiceVerifier::start(source, issuer, audience, Latch::default(), tasks).unwrap();
        let address = serve(&gateway, Some(services), None).await;
        Self { gateway, address, keys }
    }

    /// What a request comes to: the status, and the code if it is refused.
    async fn call(&self, path: &str, token: &str, body: &Value) -> (u16, Option<ErrorCode>) {
        post(self.address, path, token, body).await
    }
}

async fn serve(gateway: &Gateway, services: Option<ServiceVerifier>, signer: Option<&Signer>) -> SocketAddr {
    serve_behind(gateway, services, signer, TrustedProxies::default(), ProxyProtocol::Off).await
}

pub async fn serve_behind(
    gateway: &Gateway,
    services: Option<ServiceVerifier>,
    signer: Option<&Signer>,
    proxies: TrustedProxies,
    protocol: ProxyProtocol,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = internal::router(Internal::new(gateway.state.clone(), services, signer));
    let tasks = gateway.state.tasks.clone();
    tasks.essential("internal_http", internal::serve(listener, router, proxies, protocol, tasks.clone()));
    address
}

async fn post(address: SocketAddr, path: &str, token: &str, body: &Value) -> (u16, Option<ErrorCode>) {
    let request = reqwest::Client::new().post(format!("http://{address}{path}")).bearer_auth(token).json(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status == 204 {
        return (status, None);
    }
    let refusal: ErrorBody = response.json().await.expect("every refusal is an ErrorBody");
    (status, Some(refusal.code))
}

const UNAUTHENTICATED: (u16, Option<ErrorCode>) = (401, Some(ErrorCode::Unauthenticated));

#[tokio::test]
async fn only_tokens_made_for_this_interface_are_taken_and_both_keys_are_valid_r6_3() {
    let stand = Stand::start().await;
    let [ana] = users();
    let body = json!({ "user_id": ana.as_uuid() });
    for key in &stand.keys {
        assert_eq!(stand.call(CLOSE, &key.token(&json!({})), &body).await, (204, None));
        assert_eq!(stand.call(INVALIDATE, &key.token(&json!({})), &json!({ "user_ids": [ana] })).await, (204, None));
    }
    let now = Clock::System.now().0 / 1000;
    let bad = [
        json!({ "iss": "chat-backend" }),
        json!({ "iss": ["kaha-main-v3"] }),
        json!({ "iss": null }),
        json!({ "aud": "chat" }),
        json!({ "aud": null }),
        json!({ "sub": "" }),
        json!({ "sub": null }),
        json!({ "sub": "x".repeat(129) }),
        json!({ "exp": now - 60 }),
        json!({ "exp": now + 600 }),
        json!({ "exp": null }),
        json!({ "iat": now - 600 }),
        json!({ "iat": now + 600, "exp": now + 700 }),
        json!({ "nbf": now + 600 }),
        json!({ "scope": ["sessions:close"] }),
    ];
    for changes in bad {
        let token = stand.keys[0].token(&changes);
        for path in [CLOSE, INVALIDATE] {
            assert_eq!(stand.call(path, &token, &body).await, UNAUTHENTICATED, "{changes}");
        }
    }
    for token in [Key::new().token(&json!({})), token(ana, &json!({})), "a.b.c".to_owned(), String::new()] {
        assert_eq!(stand.call(CLOSE, &token, &body).await, UNAUTHENTICATED);
    }
}

#[tokio::test]
async fn each_endpoint_asks_for_its_scope_before_it_reads_anything_r6_3() {
    let stand = Stand::start().await;
    for (path, needed, other) in
        [(CLOSE, "sessions:close", "profiles:invalidate"), (INVALIDATE, "profiles:invalidate", "sessions:close")]
    {
        for scope in [json!(other), json!(format!("{needed}x")), json!(needed.to_uppercase()), json!(""), json!(null)] {
            let token = stand.keys[0].token(&json!({ "scope": scope }));
            let answer = stand.call(path, &token, &json!("nonsense")).await;
            assert_eq!(answer, (403, Some(ErrorCode::Forbidden)), "{scope}");
        }
        let token = stand.keys[0].token(&json!({ "scope": format!("{other} {needed}") }));
        assert_eq!(stand.call(path, &token, &json!("nonsense")).await, (400, Some(ErrorCode::Invalid)));
    }
}

#[tokio::test]
async fn a_call_logs_out_and_bad_ones_do_nothing_r6_3() {
    let stand = Stand::start().await;
    let state = &stand.gateway.state;
    let [ana] = users();
    let token = stand.keys[0].token(&json!({}));
    let identity = Identity { login: Some(LoginId::of("phone")), ..Identity::for_ever(ana) };
    let hello = Hello { device_id: DeviceId::random(), resume: None };
    let (client, _) = Client::hello_as(state, identity, hello).await;
    let user_id = ana.as_uuid();
    for body in [
        json!({}),
        json!({ "user_id": "ana" }),
        json!({ "user_id": user_id, "sid": null }),
        json!({ "user_id": user_id, "sid": "" }),
        json!({ "user_id": user_id, "sid": "x".repeat(129) }),
        json!({ "user_id": user_id, "session": "phone" }),
    ] {
        assert_eq!(stand.call(CLOSE, &token, &body).await, (400, Some(ErrorCode::Invalid)), "{body}");
    }
    let many: Vec<_> = (0..101).map(|_| UserId::random().as_uuid()).collect();
    let invalid = json!({ "user_ids": many, "business_ids": many });
    assert_eq!(stand.call(INVALIDATE, &token, &invalid).await, (400, Some(ErrorCode::Invalid)));
    let huge = json!({ "user_id": user_id, "sid": "x".repeat(70_000) });
    assert_eq!(stand.call(CLOSE, &token, &huge).await, (413, Some(ErrorCode::TooLarge)));
    assert!(client.is_open());
    assert_eq!(stand.call(CLOSE, &token, &json!({ "user_id": user_id, "sid": "phone" })).await, (204, None));
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
}

#[tokio::test]
async fn each_port_serves_its_own_side_only_r6_3() {
    let stand = Stand::start().await;
    let [ana] = users();
    let service = stand.keys[0].token(&json!({}));
    let missing = (404, Some(ErrorCode::NotFound));
    for path in [CLOSE, INVALIDATE, "/.well-known/jwks.json", "/internal/openapi.json", "/internal/v1"] {
        assert_eq!(post(stand.gateway.address, path, &service, &json!({})).await, missing, "{path}");
    }
    let user = token(ana, &json!({}));
    for path in ["/v1/ws", "/v1/tickets", "/v1/conversations", "/v1/unread", "/openapi.json", "/metrics", "/readyz"] {
        for token in [&user, &service] {
            assert_eq!(stand.call(path, token, &json!({})).await, missing, "{path}");
        }
    }
    let wrong_method = stand.gateway.http.get(format!("http://{}{CLOSE}", stand.address));
    assert_eq!(stand.gateway.refused(wrong_method).await, (405, ErrorCode::Invalid));
    let description: Value =
        reqwest::get(format!("http://{}/internal/openapi.json", stand.address)).await.unwrap().json().await.unwrap();
    assert!(description["paths"][CLOSE]["post"].is_object());
}

#[tokio::test]
async fn public_keys_are_published_without_a_token_and_nobody_may_call_who_has_no_keys_here_r6_3() {
    let gateway = Gateway::start().await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), pem("PRIVATE KEY", &Key::new().private)).unwrap();
    let signer = Signer::read(key.path(), None, "chat-backend").unwrap();
    let address = serve(&gateway, None, Some(&signer)).await;
    let published = reqwest::get(format!("http://{address}/.well-known/jwks.json")).await.unwrap();
    assert_eq!(published.headers()["cache-control"], "public, max-age=300", "so that nobody asks for each token");
    assert_eq!(published.json::<Value>().await.unwrap(), signer.public_keys());
    let body = json!({ "user_id": UserId::random().as_uuid() });
    assert_eq!(post(address, CLOSE, &Key::new().token(&json!({})), &body).await, UNAUTHENTICATED);
}
