//! The platform's own sender: one URL, which gets every notification signed.

use std::{fmt::Write, time::Duration};

use aws_lc_rs::hmac;
use chat_shared::{
    clock::{Clock, Timestamp},
    wire::Platform,
};
use reqwest::{Client, Url, header::CONTENT_TYPE};
use serde::Serialize;
use uuid::Uuid;

use super::{
    SENDS_MAX, Verdict,
    line::{HeldBack, Line, Outcome},
    notification::{Content, Notification},
    outbound::{self, Answer, Deadline},
};

/// How long an idle connection is kept: shorter than servers do by default, of which some close one after five seconds.
/// What is sent while the server closes it may have been taken or not.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4);

/// Sends to the URL.
pub(super) struct Webhook {
    line: Line,
    http: Client,
    url: Url,
    keys: Vec<hmac::Key>,
    clock: Clock,
}

/// The body of a request.
#[derive(Serialize)]
struct Body<'a> {
    notification_id: Uuid,
    token: &'a str,
    app_id: &'a str,
    collapse_key: &'a str,
    expires_at: Timestamp,
    #[serde(flatten)]
    content: Content<'a>,
}

impl Webhook {
    /// By a client that connects to public addresses only. With one of `secrets` the receiver checks signatures.
    pub(super) fn new(http: Client, url: Url, secrets: &[String], clock: Clock) -> Self {
        let keys = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())).collect();
        Self { line: Line::new(Platform::Webhook, SENDS_MAX), http, url, keys, clock }
    }

    pub(super) async fn send(
        &self,
        token: &str,
        app_id: &str,
        notification: &Notification,
    ) -> Result<Verdict, HeldBack> {
        self.line.pass(self.attempt(token, app_id, notification)).await
    }

    async fn attempt(&self, token: &str, app_id: &str, notification: &Notification) -> Outcome {
        let now = self.clock.now();
        if notification.seconds_left(now).is_none() {
            return Outcome::late();
        }
        let body = match serde_json::to_vec(&body(token, app_id, notification)) {
            Ok(body) => body,
            Err(error) => return Outcome::NotAsked(Verdict::Refused(error.to_string())),
        };
        let timestamp = now.0.div_euclid(1000).to_string();
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Chat-Notification-Id", notification.notification_id.to_string())
            .header("Chat-Signature", signatures(&self.keys, &timestamp, &body))
            .header("Chat-Timestamp", timestamp)
            .body(body);
        match outbound::send(request, Deadline::new(), &self.clock).await {
            Ok(answer) => judge(&answer),
            Err(failure) => failure.into(),
        }
    }
}

fn body<'a>(token: &'a str, app_id: &'a str, notification: &'a Notification) -> Body<'a> {
    Body {
        notification_id: notification.notification_id,
        token,
        app_id,
        collapse_key: &notification.collapse_key,
        expires_at: notification.expires_at,
        content: notification.content(),
    }
}

/// One with each key, so that the receiver can change the secret at another time than we do.
fn signatures(keys: &[hmac::Key], timestamp: &str, body: &[u8]) -> String {
    let signatures: Vec<_> = keys.iter().map(|key| signature(key, timestamp, body)).collect();
    signatures.join(",")
}

/// Over time and body, so that neither can be changed, nor a request be repeated much later.
fn signature(key: &hmac::Key, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign().as_ref().iter().fold("v1=".to_owned(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn judge(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    let why = || format!("the webhook answered {status}");
    match status {
        200..=299 => Outcome::Answered(Verdict::Sent),
        410 => Outcome::Answered(Verdict::Gone { since: None }),
        // The signature, and with it the secret.
        401 | 403 => Outcome::Denied(answer.retry_after, why()),
        429 => Outcome::Answered(Verdict::Later(answer.retry_after)),
        500.. => Outcome::Failed(Verdict::Later(answer.retry_after), why()),
        _ => Outcome::Answered(Verdict::Refused(why())),
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{ids::BusinessId, jobs::ReadUpTo, position::Seq};
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::providers::notification::{
        Kind,
        tests::{of_assignment, of_badge, of_message, of_read, of_waiting},
    };

    #[test]
    fn the_body_says_all_that_a_sender_needs() {
        let message = of_message("Asha", "New message");
        let Kind::Message { conversation_id, message_id, sender_id, .. } = message.kind else { panic!() };
        let expected = json!({
            "notification_id": message.notification_id,
            "kind": "message",
            "token": "token",
            "app_id": "com.example.chat",
            "title": "Asha",
            "body": "New message",
            "conversation_id": conversation_id,
            "message_id": message_id,
            "seq": 7,
            "sender_id": sender_id,
            "badge": 3,
            "collapse_key": message.collapse_key,
            "expires_at": message.expires_at,
        });
        assert_eq!(serde_json::to_value(body("token", "com.example.chat", &message)).unwrap(), expected);
        let assignment = serde_json::to_value(body("token", "com.example.chat", &of_assignment())).unwrap();
        assert_eq!((&assignment["kind"], assignment.get("message_id")), (&json!("message"), None));
        let business_id = BusinessId::random();
        let waiting = of_waiting(business_id);
        let expected = json!({
            "notification_id": waiting.notification_id,
            "kind": "waiting",
            "token": "token",
            "app_id": "com.example.chat",
            "title": "Customers are waiting",
            "body": "",
            "business_id": business_id,
            "waiting": 3,
            "collapse_key": waiting.collapse_key,
            "expires_at": waiting.expires_at,
        });
        assert_eq!(serde_json::to_value(body("token", "com.example.chat", &waiting)).unwrap(), expected);
        let badge = of_badge(0);
        let expected = json!({
            "notification_id": badge.notification_id,
            "kind": "badge",
            "token": "token",
            "app_id": "com.example.chat",
            "badge": 0,
            "collapse_key": "badge",
            "expires_at": badge.expires_at,
        });
        assert_eq!(serde_json::to_value(body("token", "com.example.chat", &badge)).unwrap(), expected);
        let read = of_read(0, ReadUpTo { conversation_id, read_seq: Seq(7) });
        let sent = serde_json::to_value(body("token", "com.example.chat", &read)).unwrap();
        assert_eq!((&sent["conversation_id"], &sent["read_seq"]), (&json!(conversation_id), &json!(7)));
    }

    #[test]
    fn the_signature_is_what_receivers_compute() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"it is a secret");
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'it is a secret'
        let expected = "v1=e13ca661150ed628f4ae657a91356a99ce1d89519ed99c20a90f567c6f061275";
        assert_eq!(signature(&key, "1700000000", br#"{"a":1}"#), expected);
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"it is another secret");
        let two = signatures(&[key, other.clone()], "1700000000", br#"{"a":1}"#);
        assert_eq!(two, format!("{expected},{}", signature(&other, "1700000000", br#"{"a":1}"#)));
    }

    #[test]
    fn answers_of_the_webhook() {
        let outcome = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(&Answer { status, retry_after: Some(Duration::from_secs(9)), body: Vec::new() })
        };
        for status in [200, 202, 204] {
            assert_eq!(outcome(status), Outcome::Answered(Verdict::Sent));
        }
        assert_eq!(outcome(410), Outcome::Answered(Verdict::Gone { since: None }));
        for status in [401, 403] {
            let expected = Outcome::Denied(Some(Duration::from_secs(9)), format!("the webhook answered {status}"));
            assert_eq!(outcome(status), expected);
        }
        let later = Verdict::Later(Some(Duration::from_secs(9)));
        assert_eq!(outcome(429), Outcome::Answered(later.clone()));
        for status in [500, 503] {
            assert_eq!(outcome(status), Outcome::Failed(later.clone(), format!("the webhook answered {status}")));
        }
        for status in [302, 400, 404, 413] {
            let refused = Verdict::Refused(format!("the webhook answered {status}"));
            assert_eq!(outcome(status), Outcome::Answered(refused));
        }
    }
}
