//! Firebase Cloud Messaging, by its HTTP v1 interface.

use chat_shared::{clock::Clock, wire::Platform};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

use super::{
    SENDS_MAX, Verdict,
    access_token::AccessTokens,
    line::{HeldBack, Line, Outcome},
    notification::{Kind, Notification},
    outbound::{self, Answer, Deadline},
};

/// When to come back if FCM says that there is too much and not until when; what its documentation asks for.
const QUOTA_REST: Duration = Duration::from_mins(1);

/// A 401 that concerns the credentials of Apple or of browsers that are deposited in the Firebase project, and not the access
/// token.
const THIRD_PARTY_AUTH_ERROR: &str = "THIRD_PARTY_AUTH_ERROR";

/// Sends to FCM.
pub(super) struct Fcm {
    line: Line,
    http: Client,
    url: Url,
    tokens: AccessTokens,
    clock: Clock,
}

impl Fcm {
    /// To the messages of a project, which are at `url`.
    pub(super) fn new(http: Client, url: Url, tokens: AccessTokens, clock: Clock) -> Self {
        Self { line: Line::new(Platform::Fcm, SENDS_MAX), http, url, tokens, clock }
    }

    pub(super) async fn send(&self, token: &str, notification: &Notification) -> Result<Verdict, HeldBack> {
        self.line.pass(self.attempt(token, notification)).await
    }

    async fn attempt(&self, token: &str, notification: &Notification) -> Outcome {
        let Some(seconds) = notification.seconds_left(self.clock.now()) else { return Outcome::late() };
        let (deadline, payload) = (Deadline::new(), payload(token, notification, seconds));
        let mut is_token_new = false;
        loop {
            let access_token = match self.tokens.get(deadline).await {
                Ok(access_token) => access_token,
                Err(failure) => return failure.into(),
            };
            let request = self.http.post(self.url.clone()).bearer_auth(&access_token).json(&payload);
            match outbound::send(request, deadline, &self.clock).await {
                Ok(answer)
                    if answer.status == StatusCode::UNAUTHORIZED
                        && complained(&answer).code() != THIRD_PARTY_AUTH_ERROR
                        && !is_token_new =>
                {
                    self.tokens.forget(&access_token).await;
                    is_token_new = true;
                }
                Ok(answer) => return judge(&answer),
                Err(failure) => return failure.into(),
            }
        }
    }
}

/// A data message without a collapse key, which the app shows. For a device that is offline FCM keeps four messages with
/// different collapse keys at the most, and only one that has a `notification`: those always share the app's key.
fn payload(token: &str, notification: &Notification, seconds: u64) -> Value {
    let badge = notification.badge.to_string();
    let mut message = json!({
        "token": token,
        "data": { "kind": "badge", "badge": badge },
        "android": { "priority": "NORMAL", "ttl": format!("{seconds}s") },
    });
    if let Kind::Badge { read: Some(read) } = &notification.kind {
        message["data"]["conversation_id"] = json!(read.conversation_id);
        message["data"]["read_seq"] = json!(read.read_seq.0.to_string());
    }
    if let Kind::Message { conversation_id, message_id, seq, sender_id, title, body } = &notification.kind {
        message["data"] = json!({
            "kind": "message",
            "title": title,
            "body": body,
            "conversation_id": conversation_id,
            "seq": seq.0.to_string(),
            "sender_id": sender_id,
            "badge": badge,
        });
        if let Some(message_id) = message_id {
            message["data"]["message_id"] = json!(message_id);
        }
        message["android"]["priority"] = json!("HIGH");
    }
    if let Kind::Waiting { business_id, waiting, title } = &notification.kind {
        message["data"] = json!({
            "kind": "waiting",
            "title": title,
            "body": "",
            "business_id": business_id,
            "waiting": waiting.to_string(),
        });
        message["android"]["priority"] = json!("HIGH");
    }
    json!({ "message": message })
}

/// What FCM says of an error; all of it may be missing.
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    error: Complained,
}

#[derive(Default, Deserialize)]
struct Complained {
    #[serde(default)]
    status: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    #[serde(default)]
    error_code: String,
}

impl Complained {
    /// FCM's own code if there is one, or that of all Google's interfaces.
    fn code(&self) -> &str {
        let own = self.details.iter().map(|detail| detail.error_code.as_str()).find(|code| !code.is_empty());
        super::code(own.unwrap_or(&self.status)).unwrap_or_default()
    }
}

fn complained(answer: &Answer) -> Complained {
    serde_json::from_slice::<Complaint>(&answer.body).unwrap_or_default().error
}

fn judge(answer: &Answer) -> Outcome {
    if answer.status.is_success() {
        return Outcome::Answered(Verdict::Sent);
    }
    let complained = complained(answer);
    let (status, code) = (answer.status.as_u16(), complained.code());
    let why = || format!("FCM answered {status} {code}");
    match (status, code) {
        (404, "UNREGISTERED") => Outcome::Answered(Verdict::Gone { since: None }),
        // Tokens of another project, or of apps whose own credentials Firebase lacks.
        (403, "SENDER_ID_MISMATCH") | (401, THIRD_PARTY_AUTH_ERROR) => Outcome::Mismatched(why()),
        (429, _) => Outcome::Answered(Verdict::Later(Some(answer.retry_after.unwrap_or(QUOTA_REST)))),
        // The account or the project: the token has nothing to do with it.
        (401 | 403 | 404, _) => Outcome::Denied(answer.retry_after, why()),
        (500.., _) => Outcome::Failed(Verdict::Later(answer.retry_after), why()),
        _ => Outcome::Answered(Verdict::Refused(why())),
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        ids::{BusinessId, ConversationId},
        jobs::ReadUpTo,
        position::Seq,
    };

    use super::*;
    use crate::providers::notification::tests::{largest, of_assignment, of_badge, of_message, of_read, of_waiting};

    #[test]
    fn a_message_is_data_that_replaces_none_of_another_conversation() {
        let notification = of_message("Asha", "New message");
        let Kind::Message { conversation_id, message_id, sender_id, .. } = notification.kind else { panic!() };
        let sent = payload("token", &notification, 60);
        let expected = json!({ "message": {
            "token": "token",
            "data": {
                "kind": "message",
                "title": "Asha",
                "body": "New message",
                "conversation_id": conversation_id,
                "message_id": message_id,
                "seq": "7",
                "sender_id": sender_id,
                "badge": "3",
            },
            "android": { "priority": "HIGH", "ttl": "60s" },
        }});
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_assignment_names_no_message_r7_2() {
        let data = payload("token", &of_assignment(), 60)["message"]["data"].clone();
        assert_eq!((data["kind"].as_str(), data["seq"].as_str()), (Some("message"), Some("7")));
        assert!(data.as_object().unwrap().values().all(Value::is_string) && data.get("message_id").is_none());
    }

    #[test]
    fn customers_that_wait_are_data_with_the_business_and_their_number_r7_2() {
        let business_id = BusinessId::random();
        let expected = json!({ "message": {
            "token": "token",
            "data": {
                "kind": "waiting",
                "title": "Customers are waiting",
                "body": "",
                "business_id": business_id,
                "waiting": "3",
            },
            "android": { "priority": "HIGH", "ttl": "60s" },
        }});
        assert_eq!(payload("token", &of_waiting(business_id), 60), expected);
    }

    #[test]
    fn a_badge_is_told_to_the_app_alone_r5_2() {
        let expected = json!({ "message": {
            "token": "token",
            "data": { "kind": "badge", "badge": "4" },
            "android": { "priority": "NORMAL", "ttl": "60s" },
        }});
        assert_eq!(payload("token", &of_badge(4), 60), expected);
        let read = ReadUpTo { conversation_id: ConversationId::random(), read_seq: Seq(7) };
        let data = &payload("token", &of_read(4, read), 60)["message"]["data"];
        let expected =
            json!({ "kind": "badge", "badge": "4", "conversation_id": read.conversation_id, "read_seq": "7" });
        assert_eq!(*data, expected);
    }

    #[test]
    fn the_largest_notification_fits() {
        assert!(payload(&"t".repeat(400), &largest(), u64::MAX).to_string().len() <= 4096);
    }

    #[test]
    fn only_what_fcm_says_of_the_token_removes_a_device() {
        let outcome = |status: u16, body: Value| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(&Answer { status, retry_after: None, body: body.to_string().into_bytes() })
        };
        let coded = |code: &str| json!({ "error": { "status": "X", "details": [{}, { "errorCode": code }] }});
        let answered = |verdict| Outcome::Answered(verdict);
        assert_eq!(outcome(200, json!({ "name": "projects/p/messages/1" })), answered(Verdict::Sent));
        assert_eq!(outcome(404, coded("UNREGISTERED")), answered(Verdict::Gone { since: None }));
        let refused = Verdict::Refused("FCM answered 400 INVALID_ARGUMENT".to_owned());
        assert_eq!(outcome(400, coded("INVALID_ARGUMENT")), answered(refused));
        assert_eq!(outcome(429, coded("QUOTA_EXCEEDED")), answered(Verdict::Later(Some(QUOTA_REST))));
        for (status, code) in [(403, "SENDER_ID_MISMATCH"), (401, "THIRD_PARTY_AUTH_ERROR")] {
            let expected = Outcome::Mismatched(format!("FCM answered {status} {code}"));
            assert_eq!(outcome(status, coded(code)), expected);
        }
        for (status, body) in [
            (401, json!({ "error": { "status": "UNAUTHENTICATED" }})),
            (403, json!({ "error": { "status": "PERMISSION_DENIED" }})),
            (404, json!({ "error": { "status": "NOT_FOUND" }})),
            (404, json!("no such page")),
        ] {
            let outcome = outcome(status, body);
            assert!(matches!(outcome, Outcome::Denied(None, _)), "{status}: {outcome:?}");
        }
        for (status, body) in [(500, coded("INTERNAL")), (503, coded("UNAVAILABLE"))] {
            let outcome = outcome(status, body);
            assert!(matches!(outcome, Outcome::Failed(Verdict::Later(None), _)), "{status}: {outcome:?}");
        }
    }
}
