//! What arrived at the stand-ins, and what they refused.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use chat_shared::wire::Platform;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{stand_in::lock, terminal::Prefix};

/// Notifications kept; when there are more, the oldest tenth is forgotten.
const RECEIVED_MAX: usize = 50_000;

/// Notifications of a platform that are listed.
const LISTED_MAX: usize = 100;

/// Refusals kept; when there are more, the oldest is forgotten.
const REFUSED_MAX: usize = 10_000;

/// A notification that a stand-in took.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Who took it.
    pub platform: Platform,
    /// The device's token, or the endpoint of its subscription.
    pub token: String,
    /// Those with the same key replace each other on the device.
    pub collapse_key: Option<String>,
    /// Whether the device shows something, other than a number on the app's icon.
    pub is_alert: bool,
    /// Heading of what is shown.
    pub title: Option<String>,
    /// Text of what is shown.
    pub body: Option<String>,
    /// Number on the app's icon.
    pub badge: Option<u64>,
    /// Whether it asks to be delivered at once, even to a device at rest.
    pub is_urgent: bool,
    /// How long the provider tries to deliver it. `None` if it doesn't say.
    pub ttl: Option<Duration>,
    /// The conversation it tells of.
    pub conversation_id: Option<String>,
    /// The message it tells of.
    pub message_id: Option<String>,
    /// That message's number.
    pub seq: Option<u64>,
    /// The business it tells of.
    pub business_id: Option<String>,
    /// How many of that business' customers wait.
    pub waiting: Option<u64>,
    /// Up to where the user has read in the conversation, if it tells that.
    pub read_seq: Option<u64>,
    /// What makes repeats of it recognizable, where the platform has such a thing.
    pub notification_id: Option<String>,
    /// All that was sent, decrypted.
    pub payload: Value,
    /// When it arrived.
    #[serde(skip)]
    pub at: Instant,
}

impl Received {
    /// Its device and what that shows, for people.
    fn in_a_line(&self) -> String {
        let shown = match (&self.title, self.badge) {
            (Some(title), _) => title.clone(),
            (None, Some(badge)) => format!("badge {badge}"),
            (None, None) => "nothing to show".to_owned(),
        };
        format!("{} {}: {shown}", self.platform.as_str(), self.token)
    }

    /// With what the app's own `fields` tell, whose numbers may be written as texts.
    pub(super) fn of(platform: Platform, token: &str, fields: &Value) -> Self {
        Self {
            platform,
            token: token.to_owned(),
            collapse_key: None,
            is_alert: fields["kind"] != "badge",
            title: text(fields, "title"),
            body: text(fields, "body"),
            badge: number(fields, "badge"),
            is_urgent: false,
            ttl: None,
            conversation_id: text(fields, "conversation_id"),
            message_id: text(fields, "message_id"),
            seq: number(fields, "seq"),
            business_id: text(fields, "business_id"),
            waiting: number(fields, "waiting"),
            read_seq: number(fields, "read_seq"),
            notification_id: text(fields, "notification_id"),
            payload: fields.clone(),
            at: Instant::now(),
        }
    }
}

/// A notification that a stand-in didn't take.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Who refused it.
    pub platform: Platform,
    /// The device's token or the endpoint of its subscription, as far as known.
    pub token: Option<String>,
    /// Status of the answer.
    pub status: u16,
    /// What it objected to.
    pub reason: String,
    /// When.
    pub at: Instant,
}

/// A text field of an object.
pub fn text(fields: &Value, name: &str) -> Option<String> {
    fields[name].as_str().map(str::to_owned)
}

/// A field that is a whole number, or a text that says one.
pub fn number(fields: &Value, name: &str) -> Option<u64> {
    let field = &fields[name];
    field.as_u64().or_else(|| field.as_str()?.parse().ok())
}

/// What all stand-ins took and refused.
#[derive(Debug, Default)]
pub struct Book {
    received: Mutex<Vec<Received>>,
    refused: Mutex<VecDeque<Refused>>,
    /// Begins the line that is printed for each arrival; none is printed without it.
    prefix: OnceLock<Prefix>,
}

impl Book {
    /// Prints a line for each arrival from now on.
    pub fn print_arrivals(&self, prefix: Prefix) {
        _ = self.prefix.set(prefix);
    }

    /// Notes what was taken.
    pub fn take(&self, notification: Received) {
        if let Some(prefix) = self.prefix.get() {
            prefix.print(&notification.in_a_line());
        }
        let mut received = lock(&self.received);
        if received.len() >= RECEIVED_MAX {
            received.drain(..RECEIVED_MAX / 10);
        }
        received.push(notification);
    }

    /// Notes what was refused.
    pub fn refuse(&self, refusal: Refused) {
        let mut refused = lock(&self.refused);
        if refused.len() >= REFUSED_MAX {
            refused.pop_front();
        }
        refused.push_back(refusal);
    }

    /// What one stand-in took.
    pub fn received(&self, platform: Platform) -> Vec<Received> {
        lock(&self.received).iter().filter(|received| received.platform == platform).cloned().collect()
    }

    /// The last of what one stand-in took, the newest at the end.
    pub fn last_received(&self, platform: Platform) -> Vec<Received> {
        let mut received = self.received(platform);
        received.drain(..received.len().saturating_sub(LISTED_MAX));
        received
    }

    /// What one stand-in refused.
    pub fn refused(&self, platform: Platform) -> Vec<Refused> {
        lock(&self.refused).iter().filter(|refused| refused.platform == platform).cloned().collect()
    }

    /// What `check` says of all that was taken.
    pub fn look<T>(&self, check: impl Fn(&[Received]) -> Option<T>) -> Option<T> {
        check(&lock(&self.received))
    }

    /// The last refusals in words.
    pub fn last_refusals(&self, max: usize) -> String {
        let refused = lock(&self.refused);
        let mut told = format!("{} notifications were refused", refused.len());
        for Refused { platform, status, reason, .. } in refused.iter().rev().take(max) {
            _ = write!(told, "; {} answered {status}: {reason}", platform.as_str());
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_names_the_device_and_what_it_shows() {
        let line = |fields: Value| Received::of(Platform::Fcm, "phone-1", &fields).in_a_line();
        assert_eq!(line(json!({ "title": "New message", "badge": 3 })), "fcm phone-1: New message");
        assert_eq!(line(json!({ "kind": "badge", "badge": "2" })), "fcm phone-1: badge 2");
        let waiting = json!({ "kind": "waiting", "title": "Customers are waiting", "waiting": "2" });
        assert_eq!(line(waiting), "fcm phone-1: Customers are waiting");
        assert_eq!(line(json!({})), "fcm phone-1: nothing to show");
    }

    #[test]
    fn the_last_ones_are_listed() {
        let book = Book::default();
        for number in 0..=LISTED_MAX {
            book.take(Received::of(Platform::Fcm, &number.to_string(), &json!({})));
            book.take(Received::of(Platform::Apns, "other", &json!({})));
        }
        let listed = book.last_received(Platform::Fcm);
        assert_eq!((listed.len(), listed[0].token.as_str()), (LISTED_MAX, "1"));
    }
}
