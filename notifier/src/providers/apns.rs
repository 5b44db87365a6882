//! Apple Push Notification service, by HTTP/2 with provider tokens.

use std::{path::Path, time::Duration};

use anyhow::Context;
use chat_shared::{
    clock::{Clock, Timestamp},
    wire::Platform,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use reqwest::{Client, Url, header::HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    SENDS_MAX, Verdict,
    line::{HeldBack, Line, Outcome},
    notification::{Kind, Notification},
    outbound::{self, Answer, Deadline},
};

/// How long a provider token is used. Apple refuses those that are older than an hour, and those who make a new one more
/// often than every 20 minutes.
const TOKEN_AGE_MAX: Duration = Duration::from_mins(50);
/// Characters of a device token. Apple says no number; it has been 64 for long.
const DEVICE_TOKEN_CHARS_MAX: usize = 200;

/// Sends to APNs.
pub(super) struct Apns {
    line: Line,
    http: Client,
    url: Url,
    token: ProviderToken,
    clock: Clock,
}

impl Apns {
    /// To the service at `url`.
    pub(super) fn new(http: Client, url: Url, token: ProviderToken, clock: Clock) -> Self {
        Self { line: Line::new(Platform::Apns, SENDS_MAX), http, url, token, clock }
    }

    pub(super) async fn send(
        &self,
        device_token: &str,
        app_id: &str,
        notification: &Notification,
    ) -> Result<Verdict, HeldBack> {
        self.line.pass(self.attempt(device_token, app_id, notification)).await
    }

    async fn attempt(&self, device_token: &str, app_id: &str, notification: &Notification) -> Outcome {
        let now = self.clock.now();
        if notification.seconds_left(now).is_none() {
            return Outcome::late();
        }
        // It becomes a part of the URL.
        if !is_device_token(device_token) {
            return Outcome::NotAsked(Verdict::Refused("the token is no device token".to_owned()));
        }
        let (Ok(url), Ok(topic)) = (self.url.join(&format!("3/device/{device_token}")), HeaderValue::from_str(app_id))
        else {
            return Outcome::NotAsked(Verdict::Refused("the app's id is no topic".to_owned()));
        };
        let is_shown = !matches!(notification.kind, Kind::Badge { .. });
        let (deadline, payload) = (Deadline::new(), payload(notification));
        let mut is_token_new = false;
        loop {
            let token = match self.token.at(self.clock.now()) {
                Ok(token) => token,
                Err(error) => return Outcome::Failed(Verdict::Later(None), error.to_string()),
            };
            let request = self
                .http
                .post(url.clone())
                .bearer_auth(&token)
                .header("apns-topic", topic.clone())
                .header("apns-push-type", "alert")
                .header("apns-priority", if is_shown { "10" } else { "5" })
                .header("apns-expiration", notification.expires_at.0.div_euclid(1000))
                .header("apns-collapse-id", &notification.collapse_key)
                .header("apns-id", notification.notification_id.to_string())
                .json(&payload);
            match outbound::send(request, deadline, &self.clock).await {
                Ok(answer) if complaint(&answer).reason() == "ExpiredProviderToken" && !is_token_new => {
                    self.token.forget(&token);
                    is_token_new = true;
                }
                Ok(answer) => return judge(&answer),
                Err(failure) => return failure.into(),
            }
        }
    }
}

fn is_device_token(text: &str) -> bool {
    (1..=DEVICE_TOKEN_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn payload(notification: &Notification) -> Value {
    let badge = notification.badge;
    match &notification.kind {
        Kind::Badge { read: None } => json!({ "aps": { "badge": badge } }),
        Kind::Badge { read: Some(read) } => json!({
            // The number changes by itself; the app is woken besides, if the system allows it.
            "aps": { "badge": badge, "content-available": 1 },
            "kind": "badge",
            "conversation_id": read.conversation_id,
            "read_seq": read.read_seq,
        }),
        Kind::Waiting { business_id, waiting, title } => json!({
            // Without a badge: the number stays as it is.
            "aps": {
                "alert": { "title": title, "body": "" },
                "sound": "default",
                "thread-id": business_id,
                "mutable-content": 1,
            },
            "kind": "waiting",
            "business_id": business_id,
            "waiting": waiting,
        }),
        Kind::Message { conversation_id, message_id, seq, sender_id, title, body } => {
            let mut payload = json!({
                "aps": {
                    "alert": { "title": title, "body": body },
                    "badge": badge,
                    "sound": "default",
                    "thread-id": conversation_id,
                    // So that the app may change what is shown before it is.
                    "mutable-content": 1,
                },
                "kind": "message",
                "conversation_id": conversation_id,
                "seq": seq,
                "sender_id": sender_id,
            });
            if let Some(message_id) = message_id {
                payload["message_id"] = json!(message_id);
            }
            payload
        }
    }
}

/// What Apple says of an error; all of it may be missing.
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    reason: String,
    /// When Apple found that a token is not valid any more.
    timestamp: Option<Timestamp>,
}

impl Complaint {
    /// Apple's word for the error, if it is one.
    fn reason(&self) -> &str {
        super::code(&self.reason).unwrap_or_default()
    }
}

fn complaint(answer: &Answer) -> Complaint {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn judge(answer: &Answer) -> Outcome {
    let (status, complaint) = (answer.status.as_u16(), complaint(answer));
    let reason = complaint.reason();
    let why = || format!("APNs answered {status} {reason}");
    match (status, reason) {
        (200..=299, _) => Outcome::Answered(Verdict::Sent),
        (410, _) => Outcome::Answered(Verdict::Gone { since: complaint.timestamp }),
        // A token of the other one of sandbox and production is a bad one too.
        (_, "BadDeviceToken" | "DeviceTokenNotForTopic" | "TopicDisallowed" | "BadTopic") => Outcome::Mismatched(why()),
        (429, _) | (_, "IdleTimeout") => Outcome::Answered(Verdict::Later(answer.retry_after)),
        // The provider token or its key: the device has nothing to do with it.
        (401 | 403, _) => Outcome::Denied(answer.retry_after, why()),
        (500.., _) => Outcome::Failed(Verdict::Later(answer.retry_after), why()),
        _ => Outcome::Answered(Verdict::Refused(why())),
    }
}

/// Says who the provider is; the same for many notifications.
pub(super) struct ProviderToken {
    key: EncodingKey,
    header: Header,
    team_id: String,
    made: Mutex<Option<(String, Timestamp)>>,
}

impl ProviderToken {
    /// With the key in a file, as Apple hands it out.
    pub(super) fn read(path: &Path, key_id: &str, team_id: &str) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let key = EncodingKey::from_ec_pem(&text)
            .with_context(|| format!("{} is not a .p8 file as Apple hands it out", path.display()))?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key_id.to_owned());
        let token = Self { key, header, team_id: team_id.to_owned(), made: Mutex::default() };
        token.make(Timestamp(0)).with_context(|| format!("the key in {} can't sign", path.display()))?;
        Ok(token)
    }

    fn at(&self, now: Timestamp) -> jsonwebtoken::errors::Result<String> {
        let mut made = self.made.lock();
        if let Some((token, _)) = made.as_ref().filter(|(_, at)| now < at.after(TOKEN_AGE_MAX)) {
            return Ok(token.clone());
        }
        let token = self.make(now)?;
        *made = Some((token.clone(), now));
        Ok(token)
    }

    /// Drops a token that was refused, if no newer one has been made.
    fn forget(&self, refused: &str) {
        let mut made = self.made.lock();
        if made.as_ref().is_some_and(|(token, _)| token == refused) {
            *made = None;
        }
    }

    fn make(&self, now: Timestamp) -> jsonwebtoken::errors::Result<String> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            iat: i64,
        }
        let claims = Claims { iss: &self.team_id, iat: now.0.div_euclid(1000) };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{ids::BusinessId, jobs::ReadUpTo, position::Seq};
    use reqwest::StatusCode;

    use super::*;
    use crate::providers::notification::tests::{largest, of_assignment, of_badge, of_message, of_read, of_waiting};

    #[test]
    fn a_message_is_shown_and_told_to_the_app() {
        let notification = of_message("Asha", "New message");
        let Kind::Message { conversation_id, message_id, sender_id, .. } = notification.kind else { panic!() };
        let expected = json!({
            "aps": {
                "alert": { "title": "Asha", "body": "New message" },
                "badge": 3,
                "sound": "default",
                "thread-id": conversation_id,
                "mutable-content": 1,
            },
            "kind": "message",
            "conversation_id": conversation_id,
            "message_id": message_id,
            "seq": 7,
            "sender_id": sender_id,
        });
        assert_eq!(payload(&notification), expected);
        assert_eq!(payload(&of_badge(0)), json!({ "aps": { "badge": 0 } }));
        let expected = json!({
            "aps": { "badge": 1, "content-available": 1 },
            "kind": "badge",
            "conversation_id": conversation_id,
            "read_seq": 7,
        });
        assert_eq!(payload(&of_read(1, ReadUpTo { conversation_id, read_seq: Seq(7) })), expected);
    }

    #[test]
    fn an_assignment_names_no_message_r7_2() {
        let notification = of_assignment();
        let Kind::Message { conversation_id, sender_id, .. } = notification.kind else { panic!() };
        let mut sent = payload(&notification);
        assert_eq!(sent["aps"]["alert"], json!({ "title": "New message", "body": "" }));
        sent["aps"] = json!(null);
        let (kind, seq) = ("message", 7);
        let expected = json!({
            "aps": null, "kind": kind, "conversation_id": conversation_id, "seq": seq, "sender_id": sender_id,
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn customers_that_wait_are_shown_and_leave_the_badge_r7_2() {
        let business_id = BusinessId::random();
        let expected = json!({
            "aps": {
                "alert": { "title": "Customers are waiting", "body": "" },
                "sound": "default",
                "thread-id": business_id,
                "mutable-content": 1,
            },
            "kind": "waiting",
            "business_id": business_id,
            "waiting": 3,
        });
        assert_eq!(payload(&of_waiting(business_id)), expected);
    }

    #[test]
    fn the_largest_notification_fits() {
        assert!(payload(&largest()).to_string().len() <= 4096);
    }

    #[test]
    fn what_could_change_the_path_is_no_device_token() {
        assert!(is_device_token(&"0aF".repeat(20)));
        for wrong in ["", "../../secret", "00?x", "00#x", "00%2f", "00 ", &"0".repeat(201)] {
            assert!(!is_device_token(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_what_apple_says_of_the_device_removes_it() {
        let outcome = |status: u16, reason: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = Some(Duration::from_secs(5));
            judge(&Answer { status, retry_after, body: json!({ "reason": reason }).to_string().into_bytes() })
        };
        assert_eq!(outcome(200, ""), Outcome::Answered(Verdict::Sent));
        for reason in ["Unregistered", "ExpiredToken", ""] {
            assert_eq!(outcome(410, reason), Outcome::Answered(Verdict::Gone { since: None }), "{reason}");
        }
        let later = Verdict::Later(Some(Duration::from_secs(5)));
        for reason in ["TooManyRequests", "TooManyProviderTokenUpdates"] {
            assert_eq!(outcome(429, reason), Outcome::Answered(later.clone()), "{reason}");
        }
        for reason in ["BadDeviceToken", "DeviceTokenNotForTopic", "TopicDisallowed", "BadTopic"] {
            assert_eq!(outcome(400, reason), Outcome::Mismatched(format!("APNs answered 400 {reason}")));
        }
        for reason in ["ExpiredProviderToken", "InvalidProviderToken", "BadCertificate"] {
            let expected = Outcome::Denied(Some(Duration::from_secs(5)), format!("APNs answered 403 {reason}"));
            assert_eq!(outcome(403, reason), expected);
        }
        for (status, reason) in [(500, "InternalServerError"), (503, "Shutdown")] {
            let expected = Outcome::Failed(later.clone(), format!("APNs answered {status} {reason}"));
            assert_eq!(outcome(status, reason), expected);
        }
        for (status, reason) in [(413, "PayloadTooLarge"), (404, "BadPath")] {
            let refused = Verdict::Refused(format!("APNs answered {status} {reason}"));
            assert_eq!(outcome(status, reason), Outcome::Answered(refused));
        }
    }

    #[test]
    fn a_provider_token_is_used_for_most_of_an_hour() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key.p8");
        std::fs::write(&path, crate::providers::tests::ec_key()).unwrap();
        let token = ProviderToken::read(&path, "KEY", "TEAM").unwrap();
        let at = |minutes: i64| token.at(Timestamp(minutes * 60_000)).unwrap();
        let first = at(0);
        assert_eq!(at(49), first);
        let second = at(50);
        assert_ne!(second, first);
        token.forget(&first);
        assert_eq!(at(51), second, "it was not the one that was refused");
        token.forget(&second);
        assert_ne!(at(51), second);
    }
}
