//! What a request to FCM may contain.
//!
//! FCM takes field names in either spelling (`collapse_key`, `collapseKey`) and refuses those it doesn't know.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Objection, PLATFORM, invalid};
use crate::push_services::book::{Received, number, text};

/// Bytes of what is handed to the device.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// Four weeks.
const TTL_MAX: Duration = Duration::from_hours(4 * 7 * 24);

/// Characters of a registration token.
const TOKEN_CHARS_MAX: usize = 4096;

/// The collapse key of every message that has a `notification`, also if it names another key. FCM takes the app's package.
const APP_KEY: &str = "com.example.chat";

/// Digits after the point of a duration.
const NANOSECOND_DIGITS: usize = 9;

const REQUEST: &[&str] = &["message", "validate_only"];

const MESSAGE: &[&str] =
    &["name", "data", "notification", "android", "webpush", "apns", "fcm_options", "token", "topic", "condition"];

const NOTIFICATION: &[&str] = &["title", "body", "image"];

const ANDROID: &[&str] = &[
    "collapse_key",
    "priority",
    "ttl",
    "restricted_package_name",
    "data",
    "notification",
    "fcm_options",
    "direct_boot_ok",
    "bandwidth_constrained_ok",
    "restricted_satellite_ok",
];

const ANDROID_NOTIFICATION: &[&str] = &[
    "title",
    "body",
    "icon",
    "color",
    "sound",
    "tag",
    "click_action",
    "body_loc_key",
    "body_loc_args",
    "title_loc_key",
    "title_loc_args",
    "channel_id",
    "ticker",
    "sticky",
    "event_time",
    "local_only",
    "notification_priority",
    "default_sound",
    "default_vibrate_timings",
    "default_light_settings",
    "vibrate_timings",
    "visibility",
    "notification_count",
    "light_settings",
    "image",
    "bypass_proxy_notification",
    "proxy",
];

/// Checks a request and says what the device is told.
pub fn check(request: &Value) -> Result<Received, Objection> {
    let request = object(request, "request", REQUEST)?;
    let message = request.get("message").ok_or_else(|| invalid("Message is missing", "message"))?;
    let message = object(message, "message", MESSAGE)?;
    let token = token(&message)?;
    let data = data(message.get("data"), "message.data")?;
    let notification = section(&message, "notification", "message.notification", NOTIFICATION)?;
    let android = section(&message, "android", "message.android", ANDROID)?;
    let shown = section(&android, "notification", "message.android.notification", ANDROID_NOTIFICATION)?;
    let android_data = data_of(&android)?;
    let parts = [&data, &notification, &android_data, &shown];
    if parts.into_iter().map(bytes).sum::<usize>() > PAYLOAD_BYTES_MAX {
        return Err(invalid("Android message is too big", "message.data"));
    }
    let is_urgent = match android.get("priority").map(|priority| priority.as_str().unwrap_or("?")) {
        None | Some("NORMAL" | "normal") => false,
        Some("HIGH" | "high") => true,
        Some(_) => return Err(invalid("Invalid value at 'message.android.priority'", "message.android.priority")),
    };
    let ttl = android.get("ttl").map(|ttl| ttl.as_str().and_then(duration)).map_or(Ok(None), |ttl| {
        ttl.map(Some).ok_or_else(|| invalid("Illegal duration format", "message.android.ttl"))
    })?;
    let collapse_key = android.get("collapse_key");
    if collapse_key.is_some_and(|key| !key.is_string()) {
        return Err(invalid("Invalid value at 'message.android.collapse_key'", "message.android.collapse_key"));
    }
    let (notification, shown) = (Value::Object(notification), Value::Object(shown));
    let told = |name| text(&shown, name).or_else(|| text(&notification, name));
    let is_notification =
        [&notification, &shown].into_iter().any(|part| part.as_object().is_some_and(|it| !it.is_empty()));
    let collapse_key = if is_notification { Some(APP_KEY) } else { collapse_key.and_then(Value::as_str) };
    let received = Received::of(PLATFORM, &token, &Value::Object(data));
    Ok(Received {
        collapse_key: collapse_key.map(str::to_owned),
        is_alert: is_notification || received.is_alert,
        title: told("title").or(received.title),
        body: told("body").or(received.body),
        badge: received.badge.or_else(|| number(&shown, "notification_count")),
        is_urgent,
        ttl,
        payload: Value::Object(message),
        ..received
    })
}

fn token(message: &Map<String, Value>) -> Result<String, Objection> {
    if message.contains_key("topic") || message.contains_key("condition") {
        return Err(invalid("the stand-in takes messages to tokens only", "message"));
    }
    let token = message.get("token").and_then(Value::as_str);
    let token = token.ok_or_else(|| invalid("Recipient of the message is not set.", "message"))?;
    let is_well_formed = (1..=TOKEN_CHARS_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte));
    if !is_well_formed {
        let message = "The registration token is not a valid FCM registration token";
        return Err(invalid(message, "message.token"));
    }
    Ok(token.to_owned())
}

/// The object in a field, empty if there is none.
fn section(
    parent: &Map<String, Value>,
    name: &str,
    path: &str,
    fields: &[&str],
) -> Result<Map<String, Value>, Objection> {
    parent.get(name).map_or_else(|| Ok(Map::new()), |value| object(value, path, fields))
}

/// An object with none but these fields, all in their first spelling.
fn object(value: &Value, path: &str, fields: &[&str]) -> Result<Map<String, Value>, Objection> {
    let Value::Object(entries) = value else {
        return Err(invalid(&format!("Invalid value at '{path}'"), path));
    };
    let mut known = Map::new();
    for (given, entry) in entries {
        let Some(name) = fields.iter().find(|name| *given == **name || *given == camel_case(name)) else {
            let message = format!("Invalid JSON payload received. Unknown name \"{given}\" at '{path}'");
            return Err(invalid(&format!("{message}: Cannot find field."), path));
        };
        known.insert((*name).to_owned(), entry.clone());
    }
    Ok(known)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut joined = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        joined.push_str(&first.to_uppercase());
        joined.push_str(rest);
    }
    joined
}

fn data_of(android: &Map<String, Value>) -> Result<Map<String, Value>, Objection> {
    data(android.get("data"), "message.android.data")
}

/// What is handed to the app: texts under names that aren't reserved.
fn data(value: Option<&Value>, path: &str) -> Result<Map<String, Value>, Objection> {
    let Some(value) = value else { return Ok(Map::new()) };
    let Value::Object(entries) = value else {
        return Err(invalid(&format!("Invalid value at '{path}'"), path));
    };
    for (name, entry) in entries {
        if !entry.is_string() {
            return Err(invalid(&format!("Invalid value at '{path}[{name}]' (TYPE_STRING)"), path));
        }
        let is_reserved = matches!(name.as_str(), "from" | "message_type");
        if is_reserved || name.starts_with("google.") || name.starts_with("gcm.notification.") {
            return Err(invalid(&format!("Invalid data payload key: {name}"), path));
        }
    }
    Ok(entries.clone())
}

fn bytes(fields: &Map<String, Value>) -> usize {
    let value_bytes = |value: &Value| value.as_str().map_or_else(|| value.to_string().len(), str::len);
    fields.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// Such as `3.5s`, up to four weeks.
fn duration(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.strip_suffix('s').map(|text| text.split_once('.').unwrap_or((text, "0")))?;
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(seconds) || !are_digits(fraction) || fraction.len() > NANOSECOND_DIGITS {
        return None;
    }
    let nanoseconds = format!("{fraction:0<NANOSECOND_DIGITS$}").parse().ok()?;
    let duration = Duration::new(seconds.parse().ok()?, nanoseconds);
    (duration <= TTL_MAX).then_some(duration)
}
