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
            return Outcome::NotAsked(Verdict::Gone);
        }
        let (Ok(url), Ok(topic)) = (self.url.join(&format!("3/device/{device_token}")), HeaderValue::from_str(app_id))
        else {
            return Outcome::NotAsked(Verdict::Refused("the app's id is no topic".to_owned()));
        };
        let is_message = matches!(notification.kind, Kind::Message { .. });
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
                .header("apns-priority", if is_message { "10" } else { "5" })
                .header("apns-expiration", notification.expires_at.0.div_euclid(1000))
                .header("apns-collapse-id", notification.collapse_key())
                .header("apns-id", notification.notification_id.to_string())
                .json(&payload);
            match outbound::send(request, deadline, &self.clock).await {
                Ok(answer) if reason(&answer) == "ExpiredProviderToken" && !is_token_new => {
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
        Kind::Badge => json!({ "aps": { "badge": badge } }),
        Kind::Message { conversation_id, message_id, seq, sender_id, title, body } => json!({
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
            "message_id": message_id,
            "seq": seq,
            "sender_id": sender_id,
        }),
    }
}

/// Apple's word for an error, if it is one.
fn reason(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        reason: String,
    }
    if answer.status.is_success() {
        return String::new();
    }
    let complaint = serde_json::from_slice::<Complaint>(&answer.body).map(|complaint| complaint.reason);
    complaint.ok().and_then(|reason| super::code(&reason).map(str::to_owned)).unwrap_or_default()
}

fn judge(answer: &Answer) -> Outcome {
    let (status, reason) = (answer.status.as_u16(), reason(answer));
    let why = || format!("APNs answered {status} {reason}");
    match (status, reason.as_str()) {
        (200..=299, _) => Outcome::Answered(Verdict::Sent),
        (410, _) | (_, "BadDeviceToken" | "Unregistered" | "ExpiredToken" | "DeviceTokenNotForTopic") => {
            Outcome::Answered(Verdict::Gone)
        }
        (429, _) | (_, "IdleTimeout") => Outcome::Answered(Verdict::Later(answer.retry_after)),
        // The provider token, its key or APNs itself: the device has nothing to do with it.
        (401 | 403 | 500.., _) => Outcome::Failed(Verdict::Later(answer.retry_after), why()),
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
    use reqwest::StatusCode;

    use super::*;
    use crate::providers::notification::tests::{largest, of_badge, of_message};

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
        for (status, reason) in [
            (410, "Unregistered"),
            (410, "ExpiredToken"),
            (410, ""),
            (400, "BadDeviceToken"),
            (400, "DeviceTokenNotForTopic"),
        ] {
            assert_eq!(outcome(status, reason), Outcome::Answered(Verdict::Gone), "{status} {reason}");
        }
        let later = Verdict::Later(Some(Duration::from_secs(5)));
        for reason in ["TooManyRequests", "TooManyProviderTokenUpdates"] {
            assert_eq!(outcome(429, reason), Outcome::Answered(later.clone()), "{reason}");
        }
        for (status, reason) in [
            (403, "ExpiredProviderToken"),
            (403, "InvalidProviderToken"),
            (403, "BadCertificate"),
            (500, "InternalServerError"),
            (503, "Shutdown"),
        ] {
            let expected = Outcome::Failed(later.clone(), format!("APNs answered {status} {reason}"));
            assert_eq!(outcome(status, reason), expected);
        }
        for (status, reason) in
            [(400, "BadTopic"), (400, "TopicDisallowed"), (413, "PayloadTooLarge"), (404, "BadPath")]
        {
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
