//! Stand-in for a platform's own sender of notifications, which checks that they come from this installation.

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::{constant_time, hmac};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use chat_shared::wire::Platform;
use serde_json::{Value, json};

use super::{
    book::{Received, text},
    desk::{Desk, Objection, Taken, header, now_s},
};
use crate::stand_in::server::Cut;

/// How far the time of a notification may be from now.
const AGE_MAX_S: i64 = 5 * 60;

/// Bytes of a notification.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Its state.
#[derive(Debug)]
pub struct Webhook {
    desk: Desk,
    key: hmac::Key,
}

impl Webhook {
    pub fn new(desk: Desk, secret: &str) -> Self {
        Self { desk, key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) }
    }

    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    fn judge(&self, headers: &HeaderMap, body: &[u8]) -> Result<Taken, Objection> {
        self.check_signature(headers, body).map_err(|reason| refused(StatusCode::UNAUTHORIZED, reason))?;
        let bad = |reason: &str| refused(StatusCode::BAD_REQUEST, reason);
        let notification_id = header(headers, "chat-notification-id").filter(|id| !id.is_empty());
        let notification_id = notification_id.ok_or_else(|| bad("no Chat-Notification-Id"))?;
        if body.len() > BODY_BYTES_MAX {
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("{} bytes", body.len())));
        }
        let payload: Value = serde_json::from_slice(body).map_err(|error| bad(&format!("not JSON: {error}")))?;
        if text(&payload, "notification_id").is_some_and(|id| id != notification_id) {
            return Err(bad("header and body differ in the notification's id"));
        }
        let token = text(&payload, "token").unwrap_or_default();
        if self.desk.dead_since(&token).is_some() {
            return Err(refused(StatusCode::GONE, "the token is dead"));
        }
        let received = Received {
            collapse_key: text(&payload, "collapse_key"),
            notification_id: Some(notification_id.to_owned()),
            ..Received::of(Platform::Webhook, &token, &payload)
        };
        Ok(Taken { received, answer: StatusCode::NO_CONTENT.into_response() })
    }

    fn check_signature(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        let timestamp = header(headers, "chat-timestamp").ok_or("no Chat-Timestamp")?;
        let signatures = header(headers, "chat-signature").ok_or("no Chat-Signature")?;
        let signed = [timestamp.as_bytes(), b".", body].concat();
        let mut expected = String::new();
        for byte in hmac::sign(&self.key, &signed).as_ref() {
            _ = write!(expected, "{byte:02x}");
        }
        // Several may be given while the secret is changed.
        let is_right = |given: &str| {
            let given = given.trim().strip_prefix("v1=").unwrap_or_default();
            constant_time::verify_slices_are_equal(given.as_bytes(), expected.as_bytes()).is_ok()
        };
        if !signatures.split(',').any(is_right) {
            return Err("the signature is wrong");
        }
        let at_s: i64 = timestamp.parse().map_err(|_| "Chat-Timestamp isn't seconds since 1970")?;
        if at_s.abs_diff(now_s()) > AGE_MAX_S.unsigned_abs() {
            return Err("Chat-Timestamp is too far from now");
        }
        Ok(())
    }
}

/// Makes the routers of connections.
pub fn router(webhook: &Arc<Webhook>) -> impl Fn() -> Router + Send + 'static {
    let router =
        Router::new().route("/notifications", post(send)).with_state(Arc::clone(webhook)).merge(webhook.desk.listing());
    move || router.clone()
}

async fn send(
    State(webhook): State<Arc<Webhook>>,
    Extension(cut): Extension<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = serde_json::from_slice::<Value>(&body).ok().and_then(|payload| text(&payload, "token"));
    let failure = |status| refused(status, "told to fail");
    webhook.desk.answer(&cut, token.as_deref(), || webhook.judge(&headers, &body), failure).await
}

fn refused(status: StatusCode, reason: &str) -> Objection {
    Objection { status, reason: reason.to_owned(), body: json!({ "error": reason }) }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::push_services::{
        PushServices,
        tests::{client, start},
    };

    /// A good request, but for what is given.
    pub fn request(services: &PushServices, secret: Option<&str>, at_s: i64, body: String) -> reqwest::RequestBuilder {
        let own = std::fs::read_to_string(&services.credentials.webhook.file).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.unwrap_or(own.trim()).as_bytes());
        let mut signature = String::from("v1=");
        for byte in hmac::sign(&key, format!("{at_s}.{body}").as_bytes()).as_ref() {
            _ = write!(signature, "{byte:02x}");
        }
        client()
            .post(format!("{}/notifications", services.url(Platform::Webhook)))
            .header("chat-timestamp", at_s)
            .header("chat-signature", signature)
            .header("chat-notification-id", "n-1")
            .body(body)
    }

    /// A notification's text.
    pub fn body() -> String {
        json!({ "kind": "badge", "notification_id": "n-1", "token": "phone-1", "badge": 3 }).to_string()
    }

    #[tokio::test]
    async fn only_what_is_signed_now_and_in_order_is_taken() {
        let (_directory, services) = start().await;
        let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
        assert_eq!(status(request(&services, None, now_s(), body())).await, 204);
        let received = services.received(Platform::Webhook).pop().unwrap();
        assert_eq!((received.token.as_str(), received.notification_id.as_deref()), ("phone-1", Some("n-1")));
        assert_eq!((received.badge, received.is_alert), (Some(3), false));

        assert_eq!(status(request(&services, Some("other"), now_s(), body())).await, 401);
        assert_eq!(status(request(&services, None, now_s(), body()).body("{}")).await, 401);
        assert_eq!(status(request(&services, None, now_s() - 301, body())).await, 401);
        assert_eq!(status(request(&services, None, now_s() + 301, body())).await, 401);
        assert_eq!(status(request(&services, None, now_s(), "hello".to_owned())).await, 400);
        assert_eq!(status(request(&services, None, now_s(), "x".repeat(BODY_BYTES_MAX + 1))).await, 413);
        services.kill_token("phone-1");
        assert_eq!(status(request(&services, None, now_s(), body())).await, 410);
        assert_eq!((services.received(Platform::Webhook).len(), services.refused(Platform::Webhook).len()), (1, 7));
    }
}
