//! Stand-in for the Apple Push Notification service, with provider tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use chat_shared::wire::Platform;
use jsonwebtoken::{Algorithm, DecodingKey, decode_header};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    APP_IDS,
    book::{Received, text},
    credentials::{APNS_KEY_ID, APNS_TEAM_ID},
    desk::{Desk, Objection, Taken, header, now_s},
};
use crate::stand_in::{
    json_web_token::{SKEW_MAX_S, verify},
    lock,
    server::Cut,
};

/// How old a provider token may be.
const TOKEN_AGE_MAX_S: i64 = 3600;

/// In how long a provider token may be changed only a few times.
const UPDATE_PERIOD: Duration = Duration::from_mins(20);

/// Provider tokens that may be seen on one connection in that time.
const UPDATES_MAX: usize = 3;

/// Device tokens whose apps are remembered; with more, all are forgotten.
const TOPICS_MAX: usize = 10_000;

/// Bytes of a notification.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// Bytes of a collapse id.
const COLLAPSE_ID_BYTES_MAX: usize = 64;

/// Characters of a device token, in hexadecimal.
const DEVICE_TOKEN_CHARS: std::ops::RangeInclusive<usize> = 64..=200;

const PUSH_TYPES: [&str; 9] =
    ["alert", "background", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity", "pushtotalk"];

/// Its state.
#[derive(Debug)]
pub struct Apns {
    desk: Desk,
    /// Uncompressed point.
    public_key: Vec<u8>,
    /// The app that a device token was first used for.
    topics: Mutex<HashMap<String, String>>,
}

/// Provider tokens that were seen on a connection, and when first.
type SeenTokens = Arc<Mutex<Vec<(String, Instant)>>>;

impl Apns {
    pub fn new(desk: Desk, public_key: Vec<u8>) -> Self {
        Self { desk, public_key, topics: Mutex::default() }
    }

    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    fn judge(&self, device: &str, headers: &HeaderMap, body: &[u8], seen: &SeenTokens) -> Result<Taken, Objection> {
        self.check_provider_token(headers, seen)?;
        if !DEVICE_TOKEN_CHARS.contains(&device.len()) || !device.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad_request("BadDeviceToken", "a device token is 64 to 200 hexadecimal digits"));
        }
        let options = Options::of(headers)?;
        let received = notification(device, &options, body)?;
        if let Some(since) = self.desk.dead_since(device) {
            let mut objection = refused(StatusCode::GONE, "Unregistered", "the token is dead");
            objection.body["timestamp"] = json!(since);
            return Err(objection);
        }
        if self.desk.is_foreign(device) {
            return Err(bad_request("BadDeviceToken", "the token is of the other one of sandbox and production"));
        }
        self.check_topic(device, &options.topic)?;
        let mut answer = StatusCode::OK.into_response();
        answer.headers_mut().insert("apns-id", options.id);
        Ok(Taken { received, answer })
    }

    /// A device has another token for each app.
    fn check_topic(&self, device: &str, topic: &str) -> Result<(), Objection> {
        let mut topics = lock(&self.topics);
        if topics.len() >= TOPICS_MAX {
            topics.clear();
        }
        let own = topics.entry(device.to_owned()).or_insert_with(|| topic.to_owned());
        if own == topic { Ok(()) } else { Err(bad_request("DeviceTokenNotForTopic", "it was used for another app")) }
    }

    fn check_provider_token(&self, headers: &HeaderMap, seen: &SeenTokens) -> Result<(), Objection> {
        let forbidden = |code: &str, detail: &str| refused(StatusCode::FORBIDDEN, code, detail);
        let token = header(headers, "authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let token = token.ok_or_else(|| forbidden("MissingProviderToken", "no Authorization with bearer"))?;
        let invalid = |detail: &str| forbidden("InvalidProviderToken", detail);
        if decode_header(token).is_ok_and(|header| header.kid.as_deref() != Some(APNS_KEY_ID)) {
            return Err(invalid("kid isn't the key's id"));
        }
        let key = DecodingKey::from_ec_der(&self.public_key);
        let claims = verify(token, Algorithm::ES256, &key).map_err(|reason| invalid(&reason))?.claims;
        if claims["iss"] != APNS_TEAM_ID {
            return Err(invalid("iss isn't the team's id"));
        }
        let issued_s = claims["iat"].as_i64().ok_or_else(|| invalid("iat is missing"))?;
        let now_s = now_s();
        if issued_s > now_s + SKEW_MAX_S {
            return Err(invalid("iat is ahead"));
        }
        if issued_s < now_s - TOKEN_AGE_MAX_S {
            return Err(forbidden("ExpiredProviderToken", "the token is more than an hour old"));
        }
        check_updates(token, seen)
    }
}

/// Apple wants a provider token to be used again, and not be made for each notification.
fn check_updates(token: &str, seen: &SeenTokens) -> Result<(), Objection> {
    let now = Instant::now();
    let mut seen = lock(seen);
    seen.retain(|(_, at)| now.duration_since(*at) < UPDATE_PERIOD);
    if seen.iter().any(|(known, _)| known == token) {
        return Ok(());
    }
    if seen.len() >= UPDATES_MAX {
        let detail = "a provider token is to be used for 20 minutes at least";
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, "TooManyProviderTokenUpdates", detail));
    }
    seen.push((token.to_owned(), now));
    Ok(())
}

/// What a request's headers say.
struct Options {
    topic: String,
    id: HeaderValue,
    is_background: bool,
    is_urgent: bool,
    ttl: Option<Duration>,
    collapse_id: Option<String>,
}

impl Options {
    fn of(headers: &HeaderMap) -> Result<Self, Objection> {
        let topic = header(headers, "apns-topic").ok_or_else(|| bad_request("MissingTopic", "no apns-topic"))?;
        if !APP_IDS.contains(&topic) {
            return Err(bad_request("TopicDisallowed", &format!("the team's apps are {APP_IDS:?}")));
        }
        let id = match header(headers, "apns-id") {
            None => Uuid::new_v4(),
            Some(id) => Uuid::parse_str(id).map_err(|_| bad_request("BadMessageId", "apns-id isn't a UUID"))?,
        };
        let push_type = header(headers, "apns-push-type").filter(|given| PUSH_TYPES.contains(given));
        let push_type = push_type.ok_or_else(|| bad_request("InvalidPushType", "no valid apns-push-type"))?;
        let is_background = push_type == "background";
        let is_urgent = match header(headers, "apns-priority") {
            None | Some("10") => !is_background,
            Some("1" | "5") => false,
            Some(_) => return Err(bad_request("BadPriority", "apns-priority is 1, 5 or 10")),
        };
        if is_background && header(headers, "apns-priority") == Some("10") {
            return Err(bad_request("BadPriority", "a background notification has priority 5"));
        }
        let expiration = header(headers, "apns-expiration").map(str::parse::<i64>).transpose();
        let expiration = expiration.map_err(|_| bad_request("BadExpirationDate", "it isn't seconds since 1970"))?;
        let collapse_id = header(headers, "apns-collapse-id");
        if headers.contains_key("apns-collapse-id") && collapse_id.is_none_or(|id| id.len() > COLLAPSE_ID_BYTES_MAX) {
            return Err(bad_request("BadCollapseId", "it has more than 64 bytes"));
        }
        Ok(Self {
            topic: topic.to_owned(),
            id: HeaderValue::from_str(&id.to_string().to_uppercase()).expect("digits and hyphens are a header's text"),
            is_background,
            is_urgent,
            ttl: expiration.map(|at_s| Duration::from_secs(u64::try_from(at_s - now_s()).unwrap_or_default())),
            collapse_id: collapse_id.map(str::to_owned),
        })
    }
}

fn notification(device: &str, options: &Options, body: &[u8]) -> Result<Received, Objection> {
    if body.is_empty() {
        return Err(bad_request("PayloadEmpty", "no payload"));
    }
    if body.len() > PAYLOAD_BYTES_MAX {
        let detail = format!("{} bytes, at most {PAYLOAD_BYTES_MAX} are allowed", body.len());
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", &detail));
    }
    // Apple has no code for these: the real one takes such a payload, and the device drops it.
    let bad_payload = |detail: &str| bad_request("BadPayload", detail);
    let payload: Value = serde_json::from_slice(body).map_err(|error| bad_payload(&error.to_string()))?;
    let aps = &payload["aps"];
    if !aps.is_object() {
        return Err(bad_payload("no aps"));
    }
    if aps.get("badge").is_some_and(|badge| badge.as_u64().is_none()) {
        return Err(bad_payload("badge isn't a number"));
    }
    let alert = &aps["alert"];
    if options.is_background && (aps["content-available"] != 1 || !alert.is_null()) {
        return Err(bad_payload("a background notification has content-available and no alert"));
    }
    let received = Received::of(Platform::Apns, device, &payload);
    Ok(Received {
        collapse_key: options.collapse_id.clone(),
        is_alert: !alert.is_null(),
        title: text(alert, "title"),
        body: text(alert, "body").or_else(|| alert.as_str().map(str::to_owned)),
        badge: aps["badge"].as_u64(),
        is_urgent: options.is_urgent,
        ttl: options.ttl,
        ..received
    })
}

/// Makes the routers of connections.
pub fn router(apns: &Arc<Apns>) -> impl Fn() -> Router + Send + 'static {
    let router =
        Router::new().route("/3/device/{token}", post(send)).with_state(Arc::clone(apns)).merge(apns.desk.listing());
    move || router.clone().layer(Extension(SeenTokens::default()))
}

async fn send(
    State(apns): State<Arc<Apns>>,
    Extension(cut): Extension<Cut>,
    Extension(seen): Extension<SeenTokens>,
    Path(device): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    apns.desk.answer(&cut, Some(&device), || apns.judge(&device, &headers, &body, &seen), failure).await
}

/// A failure of the service itself.
fn failure(status: StatusCode) -> Objection {
    let code = match status.as_u16() {
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    };
    refused(status, code, "told to fail")
}

fn bad_request(code: &str, detail: &str) -> Objection {
    refused(StatusCode::BAD_REQUEST, code, detail)
}

fn refused(status: StatusCode, code: &str, detail: &str) -> Objection {
    Objection { status, reason: format!("{code}: {detail}"), body: json!({ "reason": code }) }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use reqwest::{Client, RequestBuilder};

    use super::*;
    use crate::push_services::{
        Behaviour, PushServices,
        tests::{changed, reasons, sign, start, tampered},
    };

    struct Apple<'a> {
        services: &'a PushServices,
        client: Client,
    }

    impl<'a> Apple<'a> {
        fn of(services: &'a PushServices) -> Self {
            Self { services, client: Client::builder().http2_prior_knowledge().build().unwrap() }
        }

        fn token(&self, changes: &Value) -> String {
            let key = std::fs::read(&self.services.credentials.apns.file).unwrap();
            let claims = changed(json!({ "iss": APNS_TEAM_ID, "iat": now_s() }), changes);
            sign(Algorithm::ES256, &EncodingKey::from_ec_pem(&key).unwrap(), APNS_KEY_ID, &claims)
        }

        /// `headers` replace those of a good request.
        fn request(&self, token: &str, headers: &[(&str, &str)], device: &str, payload: &Value) -> RequestBuilder {
            let mut given = vec![
                ("apns-topic", APP_IDS[0]),
                ("apns-push-type", "alert"),
                ("apns-priority", "10"),
                ("apns-collapse-id", "key"),
            ];
            given.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
            given.extend(headers);
            let url = format!("{}/3/device/{device}", self.services.url(Platform::Apns));
            let mut request = self.client.post(url).bearer_auth(token).json(payload);
            for (name, value) in given {
                request = request.header(name, value);
            }
            request
        }

        /// The status and the reason.
        async fn send(&self, token: &str, headers: &[(&str, &str)], device: &str, payload: &Value) -> (u16, String) {
            let answer = self.request(token, headers, device, payload).send().await.unwrap();
            assert!(answer.status() != StatusCode::OK || answer.headers().contains_key("apns-id"));
            let status = answer.status().as_u16();
            let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
            (status, text(&body, "reason").unwrap_or_default())
        }
    }

    fn device() -> String {
        "0f".repeat(32)
    }

    fn payload(body: &str) -> Value {
        json!({ "aps": { "alert": { "title": "Asha", "body": body }, "badge": 3 }, "conversation_id": "c", "seq": 7 })
    }

    #[tokio::test]
    async fn a_notification_is_taken_whole_and_another_is_refused_as_apple_does() {
        let (_directory, services) = start().await;
        let apple = Apple::of(&services);
        let (token, good) = (apple.token(&json!({})), payload("Hi"));
        assert_eq!(apple.send(&token, &[], &device(), &good).await.0, 200, "{:?}", reasons(&services, Platform::Apns));
        let received = services.received(Platform::Apns).pop().unwrap();
        assert_eq!((received.token, received.collapse_key.as_deref()), (device(), Some("key")));
        assert_eq!((received.title.as_deref(), received.body.as_deref()), (Some("Asha"), Some("Hi")));
        assert_eq!((received.badge, received.seq, received.is_alert), (Some(3), Some(7), true));

        let long = "k".repeat(65);
        for (header, value, reason) in [
            ("apns-topic", "com.example.other", "TopicDisallowed"),
            ("apns-topic", APP_IDS[1], "DeviceTokenNotForTopic"),
            ("apns-push-type", "loud", "InvalidPushType"),
            ("apns-priority", "7", "BadPriority"),
            ("apns-expiration", "tomorrow", "BadExpirationDate"),
            ("apns-collapse-id", &long, "BadCollapseId"),
            ("apns-id", "1", "BadMessageId"),
        ] {
            let answer = apple.send(&token, &[(header, value)], &device(), &good).await;
            assert_eq!(answer, (400, reason.to_owned()));
        }
        let answer = apple.send(&token, &[], &device(), &payload(&"x".repeat(4096))).await;
        assert_eq!(answer, (413, "PayloadTooLarge".to_owned()));
        assert_eq!(apple.send(&token, &[], &device(), &json!({ "seq": 7 })).await.0, 400);
        assert_eq!(apple.send(&token, &[], "not-a-token", &good).await, (400, "BadDeviceToken".to_owned()));
        services.kill_token(&device());
        assert_eq!(apple.send(&token, &[], &device(), &good).await, (410, "Unregistered".to_owned()));
        assert_eq!(services.received(Platform::Apns).len(), 1);
    }

    #[tokio::test]
    async fn only_the_teams_own_fresh_token_is_believed() {
        let (_directory, services) = start().await;
        let good = Apple::of(&services).token(&json!({}));
        for (token, reason) in [
            (tampered(&good), "InvalidProviderToken"),
            (Apple::of(&services).token(&json!({ "iss": "OTHER" })), "InvalidProviderToken"),
            (Apple::of(&services).token(&json!({ "iat": now_s() - 3700 })), "ExpiredProviderToken"),
            (Apple::of(&services).token(&json!({ "iat": null })), "InvalidProviderToken"),
        ] {
            let answer = Apple::of(&services).send(&token, &[], &device(), &payload("Hi")).await;
            assert_eq!(answer, (403, reason.to_owned()));
        }
        assert!(services.received(Platform::Apns).is_empty());
    }

    #[tokio::test]
    async fn a_token_for_each_notification_is_refused_after_a_few() {
        let (_directory, services) = start().await;
        let apple = Apple::of(&services);
        let mut first_token = String::new();
        for _ in 0..UPDATES_MAX {
            first_token = apple.token(&json!({}));
            assert_eq!(apple.send(&first_token, &[], &device(), &payload("Hi")).await.0, 200);
        }
        let answer = apple.send(&apple.token(&json!({})), &[], &device(), &payload("Hi")).await;
        assert_eq!(answer, (429, "TooManyProviderTokenUpdates".to_owned()));
        assert_eq!(apple.send(&first_token, &[], &device(), &payload("Hi")).await.0, 200);
    }

    #[tokio::test]
    async fn a_silent_one_cuts_the_connection() {
        let (_directory, services) = start().await;
        services.behave(Platform::Apns, Behaviour::SilentAfterTaking);
        let apple = Apple::of(&services);
        let request = apple.request(&apple.token(&json!({})), &[], &device(), &payload("Hi"));
        assert!(request.send().await.is_err());
        assert_eq!(services.received(Platform::Apns).len(), 1);
        services.behave(Platform::Apns, Behaviour::Normal);
        assert_eq!(apple.send(&apple.token(&json!({})), &[], &device(), &payload("Hi")).await.0, 200);
    }

    #[tokio::test]
    async fn the_first_version_of_http_is_not_spoken() {
        let (_directory, services) = start().await;
        let old = Apple { client: Client::builder().http1_only().build().unwrap(), services: &services };
        let url = format!("{}/3/device/{}", services.url(Platform::Apns), device());
        assert!(old.client.post(url).bearer_auth(old.token(&json!({}))).send().await.is_err());
    }
}
