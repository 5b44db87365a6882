//! How the stand-ins act when told to, and what the tests of each need.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::wire::Platform;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Behaviour, PushPorts, PushServices,
    desk::now_s,
    webhook::tests::{body, request},
};

/// Stand-ins with a directory of their own.
pub async fn start() -> (TempDir, PushServices) {
    let directory = tempfile::tempdir().unwrap();
    let services = PushServices::start(directory.path(), PushPorts::default()).await.unwrap();
    (directory, services)
}

pub fn client() -> reqwest::Client {
    reqwest::Client::new()
}

/// An object with some fields replaced, or with JSON `null` removed.
pub fn changed(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

pub fn sign(algorithm: Algorithm, key: &EncodingKey, key_id: &str, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = (!key_id.is_empty()).then(|| key_id.to_owned());
    encode(&header, claims, key).unwrap()
}

/// A token with a claim added after it was signed.
pub fn tampered(token: &str) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let claims: Value = serde_json::from_slice(&BASE64.decode(parts[1]).unwrap()).unwrap();
    let claims = changed(claims, &json!({ "jti": "1" }));
    format!("{}.{}.{}", parts[0], BASE64.encode(claims.to_string()), parts[2])
}

pub fn reasons(services: &PushServices, platform: Platform) -> Vec<String> {
    services.refused(platform).into_iter().map(|refused| refused.reason).collect()
}

async fn send(services: &PushServices) -> reqwest::Result<reqwest::Response> {
    request(services, None, now_s(), body()).send().await
}

#[tokio::test]
async fn what_arrived_is_listed_by_each() {
    let (_directory, services) = start().await;
    assert_eq!(send(&services).await.unwrap().status().as_u16(), 204);
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for platform in Platform::ALL {
        let client = if platform == Platform::Apns { http2.clone() } else { client() };
        let answer = client.get(services.url(platform)).send().await.unwrap();
        let list: Vec<Value> = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let tokens: Vec<_> = list.iter().map(|received| &received["token"]).collect();
        let expected: &[&str] = if platform == Platform::Webhook { &["phone-1"] } else { &[] };
        assert_eq!(tokens, expected, "{platform:?}");
    }
}

#[tokio::test]
async fn credentials_stay_the_same_through_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut lives = Vec::new();
    for _ in 0..2 {
        let services = PushServices::start(directory.path(), PushPorts::default()).await.unwrap();
        let credentials = &services.credentials;
        lives.push((
            credentials.fcm.public.clone(),
            credentials.apns.public.clone(),
            credentials.web_push.public.clone(),
            credentials.webhook.secret.clone(),
        ));
    }
    assert_eq!(lives[0], lives[1]);
}

#[tokio::test]
async fn a_failing_one_takes_nothing_and_says_when_to_come_back() {
    let (_directory, services) = start().await;
    let retry_after = Some(Duration::from_secs(7));
    services.behave(Platform::Webhook, Behaviour::Failing { status: 503, retry_after });
    let answer = send(&services).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "7"));
    assert!(services.received(Platform::Webhook).is_empty());
    assert_eq!(services.refused(Platform::Webhook)[0].status, 503);
    services.behave(Platform::Webhook, Behaviour::Normal);
    assert_eq!(send(&services).await.unwrap().status().as_u16(), 204);
}

#[tokio::test]
async fn one_that_is_down_cuts_every_connection_and_hears_nothing() {
    let (_directory, services) = start().await;
    let client = client();
    let send = async || client.execute(request(&services, None, now_s(), body()).build().unwrap()).await;
    assert_eq!(send().await.unwrap().status().as_u16(), 204);
    services.behave(Platform::Webhook, Behaviour::Down);
    // A connection that is cut may have carried a request; one that is refused has surely not.
    assert!(send().await.is_err());
    for _ in 0..5 {
        assert!(send().await.unwrap_err().is_connect());
    }
    assert_eq!(services.received(Platform::Webhook).len(), 1);
    services.behave(Platform::Webhook, Behaviour::Normal);
    assert_eq!(send().await.unwrap().status().as_u16(), 204);
}

#[tokio::test]
async fn a_silent_one_takes_a_notification_and_does_not_say_so() {
    let (_directory, services) = start().await;
    services.behave(Platform::Webhook, Behaviour::SilentAfterTaking);
    assert!(send(&services).await.is_err());
    assert_eq!(services.received(Platform::Webhook).len(), 1);
}

#[tokio::test]
async fn a_slow_one_takes_a_notification_long_before_it_says_so() {
    let (_directory, services) = start().await;
    services.behave(Platform::Webhook, Behaviour::Slow(Duration::from_hours(1)));
    let taken = services.wait_for("a notification at a slow webhook", |received| received.first().cloned());
    tokio::select! {
        answer = send(&services) => panic!("an hour has passed: {answer:?}"),
        taken = taken => assert_eq!(taken.unwrap().token, "phone-1"),
    }
}
