//! Stand-in for a browser's push service (RFC 8030 with VAPID, RFC 8292), and for the browser, which opens what it
//! gets (RFC 8291).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, ensure};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::wire::Platform;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    book::Received,
    desk::{Desk, Objection, Taken, header, now_s},
    encrypted::Keys,
};
use crate::stand_in::{
    json_web_token::{check_expiry, verify},
    lock,
    server::Cut,
};

/// Bytes of an encrypted notification.
const BODY_BYTES_MAX: usize = 4096;

/// How long a sender's claims may hold.
const CLAIMS_LIFETIME_MAX_S: i64 = 24 * 60 * 60;

/// Characters of a topic.
const TOPIC_CHARS_MAX: usize = 32;

/// Browsers that can be subscribed at a time.
const SUBSCRIPTIONS_MAX: usize = 100_000;

/// What a browser tells its server after it subscribed.
#[derive(Debug, Clone, Serialize)]
pub struct Subscription {
    /// Where its notifications go.
    pub endpoint: String,
    /// Its public key, in base64url.
    pub p256dh: String,
    /// Its secret, in base64url.
    pub auth: String,
}

/// Its state.
#[derive(Debug)]
pub struct WebPush {
    desk: Desk,
    /// The notifier's key, for which all subscriptions are made.
    sender_key: Vec<u8>,
    origin: String,
    subscriptions: Mutex<HashMap<String, Arc<Keys>>>,
}

impl WebPush {
    pub fn new(desk: Desk, sender_key: Vec<u8>, origin: String) -> Self {
        Self { desk, sender_key, origin, subscriptions: Mutex::default() }
    }

    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    pub fn subscribe(&self) -> Result<Subscription> {
        let keys = Keys::generate()?;
        let id = BASE64.encode(rand::random::<[u8; 24]>());
        let subscription = Subscription {
            endpoint: self.endpoint(&id),
            p256dh: BASE64.encode(keys.public()),
            auth: BASE64.encode(keys.auth()),
        };
        let mut subscriptions = lock(&self.subscriptions);
        ensure!(subscriptions.len() < SUBSCRIPTIONS_MAX, "{SUBSCRIPTIONS_MAX} browsers are subscribed already");
        subscriptions.insert(id, Arc::new(keys));
        Ok(subscription)
    }

    fn endpoint(&self, id: &str) -> String {
        format!("{}/push/{id}", self.origin)
    }

    fn judge(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Taken, Objection> {
        let endpoint = self.endpoint(id);
        let keys = lock(&self.subscriptions).get(id).cloned();
        let keys = keys.ok_or_else(|| refused(StatusCode::NOT_FOUND, "no such subscription"))?;
        if self.desk.dead_since(&endpoint).is_some() {
            return Err(refused(StatusCode::GONE, "the subscription ended"));
        }
        if self.desk.is_foreign(&endpoint) {
            return Err(refused(StatusCode::FORBIDDEN, "the subscription was made for another key"));
        }
        self.check_sender(headers)?;
        let options = Options::of(headers)?;
        if body.len() > BODY_BYTES_MAX {
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, format!("{} bytes", body.len())));
        }
        let bad = |reason: String| refused(StatusCode::BAD_REQUEST, reason);
        let text = keys.open(body).map_err(|reason| bad(reason.to_owned()))?;
        let payload: Value = serde_json::from_slice(&text).map_err(|error| bad(format!("not JSON: {error}")))?;
        let received = Received {
            collapse_key: options.topic,
            is_urgent: options.is_urgent,
            ttl: Some(options.ttl),
            ..Received::of(Platform::WebPush, &endpoint, &payload)
        };
        let mut answer = StatusCode::CREATED.into_response();
        let location = format!("{}/message/{}", self.origin, uuid::Uuid::new_v4());
        let location = HeaderValue::from_str(&location).expect("an address is a header's text");
        answer.headers_mut().insert(LOCATION, location);
        Ok(Taken { received, answer })
    }

    fn check_sender(&self, headers: &HeaderMap) -> Result<(), Objection> {
        let authorization = header(headers, "authorization");
        let authorization = authorization.ok_or_else(|| refused(StatusCode::UNAUTHORIZED, "no Authorization"))?;
        self.check_vapid(authorization).map_err(|reason| refused(StatusCode::FORBIDDEN, reason))
    }

    fn check_vapid(&self, authorization: &str) -> Result<(), String> {
        let (scheme, parameters) = authorization.split_once(' ').ok_or("Authorization has no parameters")?;
        if !scheme.eq_ignore_ascii_case("vapid") {
            return Err("Authorization isn't vapid".to_owned());
        }
        let parameters: HashMap<_, _> =
            parameters.split(',').filter_map(|parameter| parameter.trim().split_once('=')).collect();
        let token = parameters.get("t").ok_or("no t")?;
        let key = BASE64.decode(parameters.get("k").ok_or("no k")?).map_err(|_| "k isn't base64url without padding")?;
        if key != self.sender_key {
            return Err("k isn't the key that the subscription was made for".to_owned());
        }
        let claims = verify(token, Algorithm::ES256, &DecodingKey::from_ec_der(&key))?.claims;
        if claims["aud"] != *self.origin {
            return Err(format!("aud isn't {}", self.origin));
        }
        let is_contact = |contact: &str| contact.starts_with("mailto:") || contact.starts_with("https://");
        if !claims["sub"].as_str().is_some_and(is_contact) {
            return Err("sub is neither mailto: nor https:".to_owned());
        }
        check_expiry(&claims, now_s(), CLAIMS_LIFETIME_MAX_S).map(|_| ())
    }
}

/// What a request's headers say.
struct Options {
    ttl: Duration,
    topic: Option<String>,
    is_urgent: bool,
}

impl Options {
    fn of(headers: &HeaderMap) -> Result<Self, Objection> {
        let bad = |reason: &str| refused(StatusCode::BAD_REQUEST, reason);
        let ttl_s = header(headers, "ttl").and_then(|ttl| ttl.parse().ok());
        let topic = headers.get("topic").map(|_| header(headers, "topic").unwrap_or_default());
        let is_topic = |topic: &str| {
            (1..=TOPIC_CHARS_MAX).contains(&topic.len())
                && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if topic.is_some_and(|topic| !is_topic(topic)) {
            return Err(bad("Topic isn't 1 to 32 characters of base64url"));
        }
        let is_urgent = match header(headers, "urgency") {
            None | Some("very-low" | "low" | "normal") => false,
            Some("high") => true,
            Some(_) => return Err(bad("Urgency is none of very-low, low, normal and high")),
        };
        if header(headers, "content-encoding") != Some("aes128gcm") {
            return Err(bad("Content-Encoding isn't aes128gcm"));
        }
        Ok(Self {
            ttl: Duration::from_secs(ttl_s.ok_or_else(|| bad("no TTL in seconds"))?),
            topic: topic.map(str::to_owned),
            is_urgent,
        })
    }
}

/// Makes the routers of connections.
pub fn router(web_push: &Arc<WebPush>) -> impl Fn() -> Router + Send + 'static {
    let router =
        Router::new().route("/push/{id}", post(send)).with_state(Arc::clone(web_push)).merge(web_push.desk.listing());
    move || router.clone()
}

async fn send(
    State(web_push): State<Arc<WebPush>>,
    Extension(cut): Extension<Cut>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let endpoint = web_push.endpoint(&id);
    let failure = |status| refused(status, "told to fail");
    web_push.desk.answer(&cut, Some(&endpoint), || web_push.judge(&id, &headers, &body), failure).await
}

fn refused(status: StatusCode, reason: impl Into<String>) -> Objection {
    let reason = reason.into();
    let body = json!({ "code": status.as_u16(), "message": reason });
    Objection { status, reason, body }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;

    use super::*;
    use crate::push_services::{
        PushServices,
        encrypted::tests::seal,
        tests::{changed, client, reasons, sign, start, tampered},
    };

    struct Sender<'a> {
        services: &'a PushServices,
        subscription: Subscription,
    }

    impl<'a> Sender<'a> {
        fn of(services: &'a PushServices) -> Self {
            Self { services, subscription: services.subscribe().unwrap() }
        }

        fn token(&self, changes: &Value) -> String {
            let key = std::fs::read(&self.services.credentials.web_push.file).unwrap();
            let claims = json!({
                "aud": self.services.url(Platform::WebPush), "exp": now_s() + 3600, "sub": "mailto:a@example.com",
            });
            sign(Algorithm::ES256, &EncodingKey::from_ec_pem(&key).unwrap(), "", &changed(claims, changes))
        }

        fn authorization(&self, token: &str) -> String {
            let key = BASE64.encode(&self.services.credentials.web_push.public);
            format!("vapid t={token}, k={key}")
        }

        fn sealed(&self, text: &str) -> Vec<u8> {
            let decode = |text: &str| BASE64.decode(text).unwrap();
            seal(&decode(&self.subscription.p256dh), &decode(&self.subscription.auth), text.as_bytes())
        }

        /// The status. `headers` replace those of a good request; an empty one is left out.
        async fn send(&self, headers: &[(&str, &str)], body: Vec<u8>) -> u16 {
            let authorization = self.authorization(&self.token(&json!({})));
            let mut given = vec![
                ("authorization", authorization.as_str()),
                ("ttl", "60"),
                ("topic", "key"),
                ("urgency", "high"),
                ("content-encoding", "aes128gcm"),
            ];
            given.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
            given.extend(headers);
            let mut request = client().post(&self.subscription.endpoint).body(body);
            for (name, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
                request = request.header(name, value);
            }
            request.send().await.unwrap().status().as_u16()
        }
    }

    const TEXT: &str = r#"{"kind":"message","conversation_id":"c","seq":7,"title":"Asha","body":"Hi","badge":3}"#;

    #[tokio::test]
    async fn a_notification_is_taken_and_opened() {
        let (_directory, services) = start().await;
        let sender = Sender::of(&services);
        assert_eq!(sender.send(&[], sender.sealed(TEXT)).await, 201, "{:?}", reasons(&services, Platform::WebPush));
        let received = services.received(Platform::WebPush).pop().unwrap();
        assert_eq!((received.token, received.collapse_key.as_deref()), (sender.subscription.endpoint, Some("key")));
        assert_eq!((received.title.as_deref(), received.body.as_deref()), (Some("Asha"), Some("Hi")));
        assert_eq!((received.badge, received.seq, received.is_alert), (Some(3), Some(7), true));
    }

    #[tokio::test]
    async fn only_the_sender_that_the_subscription_was_made_for_is_believed() {
        let (_directory, services) = start().await;
        let sender = Sender::of(&services);
        let good = sender.token(&json!({}));
        let other_key = Keys::generate().unwrap();
        let refused = [
            sender.authorization(&tampered(&good)),
            sender.authorization(&sender.token(&json!({ "exp": now_s() - 1 }))),
            sender.authorization(&sender.token(&json!({ "exp": now_s() + 25 * 3600 }))),
            sender.authorization(&sender.token(&json!({ "aud": "https://push.example.com" }))),
            sender.authorization(&sender.token(&json!({ "sub": "me" }))),
            format!("vapid t={good}, k={}", BASE64.encode(other_key.public())),
            format!("Bearer {good}"),
        ];
        for authorization in refused {
            assert_eq!(sender.send(&[("authorization", &authorization)], sender.sealed(TEXT)).await, 403);
        }
        assert_eq!(sender.send(&[("authorization", "")], sender.sealed(TEXT)).await, 401);
        assert!(services.received(Platform::WebPush).is_empty());
    }

    #[tokio::test]
    async fn wrong_headers_and_bodies_are_refused() {
        let (_directory, services) = start().await;
        let sender = Sender::of(&services);
        let long = "k".repeat(33);
        for header in [
            ("ttl", ""),
            ("ttl", "soon"),
            ("topic", long.as_str()),
            ("topic", "a+b"),
            ("urgency", "now"),
            ("content-encoding", "aesgcm"),
        ] {
            assert_eq!(sender.send(&[header], sender.sealed(TEXT)).await, 400, "{header:?}");
        }
        assert_eq!(sender.send(&[], Sender::of(&services).sealed(TEXT)).await, 400, "sealed for somebody else");
        assert_eq!(sender.send(&[], sender.sealed("not JSON")).await, 400);
        assert_eq!(sender.send(&[], sender.sealed(&"x".repeat(4000))).await, 413);
        services.kill_token(&sender.subscription.endpoint);
        assert_eq!(sender.send(&[], sender.sealed(TEXT)).await, 410);
        assert!(services.received(Platform::WebPush).is_empty());
    }
}
