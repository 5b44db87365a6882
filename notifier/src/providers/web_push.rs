//! Web Push (RFC 8030): to browsers by the push services that they name, encrypted for the browser alone (RFC 8291).

use std::{sync::Arc, time::Duration};

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chat_shared::{clock::Clock, outbound::check_url, wire::Platform};
use moka::sync::Cache;
use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use web_push_native::{Auth, p256::PublicKey};

use super::{
    SENDS_MAX, Verdict,
    line::{HeldBack, Line, Outcome},
    notification::{Kind, Notification},
    outbound::{self, Answer, Deadline, Failure},
    vapid::Vapid,
};

/// Sends at once to one push service. One that doesn't answer leaves room for the others.
const SENDS_PER_SERVICE_MAX: usize = SENDS_MAX / 2;
/// Push services that are remembered. Anybody can name more; then the least used is known no more.
const SERVICES_MAX: u64 = 1000;
/// How long a push service is remembered without being used.
const SERVICE_IDLE_MAX: Duration = Duration::from_mins(10);

/// Why an endpoint is refused that leads to no public address.
const NOT_PUBLIC: &str = "a push service has no public address";

/// As browsers write keys, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Sends to push services.
pub(super) struct WebPush {
    line: Line,
    services: Cache<String, Arc<Line>>,
    http: Client,
    vapid: Vapid,
    allow_loopback: bool,
    clock: Clock,
}

/// What a browser gave to be reached by.
#[derive(Clone, Copy)]
pub(super) struct Subscription<'a> {
    pub(super) endpoint: &'a str,
    pub(super) p256dh: &'a str,
    pub(super) auth: &'a str,
}

impl WebPush {
    /// By a client that connects to public addresses only.
    pub(super) fn new(http: Client, vapid: Vapid, allow_loopback: bool, clock: Clock) -> Self {
        let services = Cache::builder().max_capacity(SERVICES_MAX).time_to_idle(SERVICE_IDLE_MAX).build();
        Self { line: Line::new(Platform::WebPush, SENDS_MAX), services, http, vapid, allow_loopback, clock }
    }

    /// Sends a notification that is shown. Browsers want every one of them to be seen, and Safari ends subscriptions that get
    /// others, so a change of the number of unread messages is not sent: the page learns it when it is opened.
    pub(super) async fn send(
        &self,
        subscription: Subscription<'_>,
        notification: &Notification,
    ) -> Result<Verdict, HeldBack> {
        if matches!(notification.kind, Kind::Badge { .. }) {
            return Ok(Verdict::Sent);
        }
        let Ok(endpoint) = check_url(subscription.endpoint, self.allow_loopback) else {
            return Ok(Verdict::Refused(NOT_PUBLIC.to_owned()));
        };
        // A service that fails must not stand in the way of the others, least of all one that a client made up.
        let _room = self.line.room()?;
        let origin = endpoint.origin().ascii_serialization();
        let service = self.services.get_with(origin, || Arc::new(Line::new(Platform::WebPush, SENDS_PER_SERVICE_MAX)));
        service.pass(self.attempt(endpoint, subscription, notification)).await
    }

    async fn attempt(&self, endpoint: Url, subscription: Subscription<'_>, notification: &Notification) -> Outcome {
        let now = self.clock.now();
        let Some(seconds) = notification.seconds_left(now) else { return Outcome::late() };
        let Some(encrypted) = encrypted(subscription, notification) else {
            return Outcome::NotAsked(Verdict::Refused("a subscription's keys are none".to_owned()));
        };
        let authorization = match self.vapid.authorization(&endpoint, now) {
            Ok(authorization) => authorization,
            Err(error) => return Outcome::Failed(Verdict::Later(None), error.to_string()),
        };
        let request = self
            .http
            .post(endpoint)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("TTL", seconds)
            .header("Urgency", "high")
            .header("Topic", &notification.collapse_key)
            .body(encrypted);
        match outbound::send(request, Deadline::new(), &self.clock).await {
            Ok(answer) => judge(&answer),
            Err(Failure::NotPublic) => Outcome::NotAsked(Verdict::Refused(NOT_PUBLIC.to_owned())),
            // What went wrong may name the host, which is a part of the endpoint.
            Err(Failure::NotSent(_)) => {
                Outcome::Failed(Verdict::Later(None), "a push service can't be connected to".to_owned())
            }
            Err(Failure::NoAnswer(_)) => Outcome::Failed(Verdict::Unknown, "a push service gave no answer".to_owned()),
        }
    }
}

/// The notification for the browser alone; nothing if its keys are none.
fn encrypted(subscription: Subscription<'_>, notification: &Notification) -> Option<Vec<u8>> {
    let public = PublicKey::from_sec1_bytes(&BASE64.decode(subscription.p256dh).ok()?).ok()?;
    let auth: [u8; 16] = BASE64.decode(subscription.auth).ok()?.try_into().ok()?;
    let content = serde_json::to_vec(&notification.content()).ok()?;
    web_push_native::encrypt(content, &public, &Auth::from(auth)).ok()
}

fn judge(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    let why = || format!("a push service answered {status}");
    match status {
        200..=299 => Outcome::Answered(Verdict::Sent),
        404 | 410 => Outcome::Answered(Verdict::Gone { since: None }),
        // The subscription was made for another key.
        401 | 403 => Outcome::Mismatched(why()),
        429 => Outcome::Answered(Verdict::Later(answer.retry_after)),
        500.. => Outcome::Failed(Verdict::Later(answer.retry_after), why()),
        _ => Outcome::Answered(Verdict::Refused(why())),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::providers::notification::tests::largest;

    /// The example of RFC 8291.
    const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn subscription(p256dh: &'static str, auth: &'static str) -> Subscription<'static> {
        Subscription { endpoint: "https://push.example.com/1", p256dh, auth }
    }

    #[test]
    fn the_largest_notification_fits_when_it_is_encrypted() {
        let encrypted = encrypted(subscription(P256DH, AUTH), &largest()).unwrap();
        assert!(encrypted.len() <= 4096, "{}", encrypted.len());
    }

    #[test]
    fn keys_that_are_none_are_found_out() {
        let padded = "BTBZMqHH6r4Tts7J_aSIgg==";
        assert!(encrypted(subscription(P256DH, padded), &largest()).is_some());
        let off_the_curve = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw8";
        for (p256dh, auth) in
            [("", ""), (P256DH, ""), (P256DH, "BTBZMqHH6r4Tts7J"), ("!", AUTH), (AUTH, AUTH), (off_the_curve, AUTH)]
        {
            assert!(encrypted(subscription(p256dh, auth), &largest()).is_none(), "{p256dh} {auth}");
        }
    }

    #[test]
    fn answers_of_push_services() {
        let outcome = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(&Answer { status, retry_after: Some(Duration::from_secs(9)), body: Vec::new() })
        };
        for status in [200, 201, 202, 204] {
            assert_eq!(outcome(status), Outcome::Answered(Verdict::Sent));
        }
        for status in [404, 410] {
            assert_eq!(outcome(status), Outcome::Answered(Verdict::Gone { since: None }));
        }
        let later = Verdict::Later(Some(Duration::from_secs(9)));
        assert_eq!(outcome(429), Outcome::Answered(later.clone()));
        for status in [500, 502, 503] {
            assert_eq!(outcome(status), Outcome::Failed(later.clone(), format!("a push service answered {status}")));
        }
        for status in [401, 403] {
            assert_eq!(outcome(status), Outcome::Mismatched(format!("a push service answered {status}")));
        }
        for status in [301, 307, 400, 413] {
            let refused = Verdict::Refused(format!("a push service answered {status}"));
            assert_eq!(outcome(status), Outcome::Answered(refused));
        }
    }
}
