//! What is told to a device, whoever brings it there.

use std::borrow::Cow;

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    jobs::ReadUpTo,
    position::Seq,
    wire::NotificationAddress,
};
use serde::Serialize;
use uuid::Uuid;

/// Characters of a title; what is longer is cut. No phone shows more.
const TITLE_CHARS_MAX: usize = 100;
/// Characters of a text; what is longer is cut. So whatever is in it, a notification fits in the 4096 bytes that
/// providers take.
const BODY_CHARS_MAX: usize = 300;
/// Stands for what was cut.
const CUT: char = '…';

/// A notification for one device. It holds what people wrote, so it has no `Debug`.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "an id is called by what it is of")]
pub struct Notification {
    /// What it is about.
    pub kind: Kind,
    /// The user's unread messages in all conversations. Not sent if customers wait: the number stays as it is.
    pub badge: u64,
    /// What a later notification replaces, but at FCM: one for each conversation or business. At most 32 characters of base64url.
    pub collapse_key: String,
    /// After this nobody needs it any more.
    pub expires_at: Timestamp,
    /// Its id, the same for each attempt.
    pub notification_id: Uuid,
}

/// What a notification is about.
#[derive(Clone)]
pub enum Kind {
    /// A message, or an assignment of a case.
    Message {
        /// The conversation.
        conversation_id: ConversationId,
        /// The id of the message; none of an assignment.
        message_id: Option<MessageId>,
        /// The number of the message in the conversation; of an assignment that of the last message before it.
        seq: Seq,
        /// The sender as the user is shown it; of an assignment the customer.
        sender_id: UserId,
        /// What is shown first.
        title: String,
        /// What is shown below.
        body: String,
    },
    /// Customers of a business wait, and no agent is there.
    Waiting {
        /// The business.
        business_id: BusinessId,
        /// How many cases wait.
        waiting: u64,
        /// What is shown.
        title: String,
    },
    /// Nothing is shown: the number of unread messages changes, and the notification of what was read is taken down.
    Badge {
        /// What was read on another device.
        read: Option<ReadUpTo>,
    },
}

/// Whom a notification is for.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// The device.
    pub address: &'a NotificationAddress,
    /// The app on it.
    pub app_id: &'a str,
}

impl Notification {
    /// The same with title and text cut to their bounds.
    pub(super) fn cut(&self) -> Cow<'_, Self> {
        let Kind::Message { title, body, .. } = &self.kind else { return Cow::Borrowed(self) };
        let (Cow::Borrowed(_), Cow::Borrowed(_)) = (cut(title, TITLE_CHARS_MAX), cut(body, BODY_CHARS_MAX)) else {
            let mut shorter = self.clone();
            if let Kind::Message { title, body, .. } = &mut shorter.kind {
                *title = cut(title, TITLE_CHARS_MAX).into_owned();
                *body = cut(body, BODY_CHARS_MAX).into_owned();
            }
            return Cow::Owned(shorter);
        };
        Cow::Borrowed(self)
    }

    /// Seconds that it is of use from `now` on, with an upper bound that all providers take; none if it is too late.
    pub(super) fn seconds_left(&self, now: Timestamp) -> Option<u64> {
        const SECONDS_MAX: u64 = 28 * 24 * 60 * 60;
        let left = u64::try_from(self.expires_at.0.saturating_sub(now.0)).ok()?.div_ceil(1000);
        (left > 0).then(|| left.min(SECONDS_MAX))
    }

    /// As an object for those who make of it what they want: web pages and the platform's own sender.
    pub(super) fn content(&self) -> Content<'_> {
        match &self.kind {
            Kind::Message { conversation_id, message_id, seq, sender_id, title, body } => Content::Message {
                title,
                body,
                conversation_id: *conversation_id,
                message_id: *message_id,
                seq: *seq,
                sender_id: *sender_id,
                badge: self.badge,
            },
            Kind::Waiting { business_id, waiting, title } => {
                Content::Waiting { title, body: "", business_id: *business_id, waiting: *waiting }
            }
            Kind::Badge { read } => Content::Badge { badge: self.badge, read: *read },
        }
    }
}

/// The object.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Content<'a> {
    Message {
        title: &'a str,
        body: &'a str,
        conversation_id: ConversationId,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        seq: Seq,
        sender_id: UserId,
        badge: u64,
    },
    Waiting {
        title: &'a str,
        body: &'a str,
        business_id: BusinessId,
        waiting: u64,
    },
    Badge {
        badge: u64,
        #[serde(flatten)]
        read: Option<ReadUpTo>,
    },
}

/// At most `chars_max` characters of `text`, of which the last says that something was cut.
fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    if text.char_indices().nth(chars_max).is_none() {
        return Cow::Borrowed(text);
    }
    let end = text.char_indices().nth(chars_max - 1).map_or(text.len(), |(at, _)| at);
    let mut short = text[..end].trim_end().to_owned();
    short.push(CUT);
    Cow::Owned(short)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use chat_shared::clock::Clock;

    use super::*;

    /// A message's notification that expires in an hour.
    pub(in crate::providers) fn of_message(title: &str, body: &str) -> Notification {
        Notification {
            kind: Kind::Message {
                conversation_id: ConversationId::random(),
                message_id: Some(MessageId::random()),
                seq: Seq(7),
                sender_id: UserId::random(),
                title: title.to_owned(),
                body: body.to_owned(),
            },
            badge: 3,
            collapse_key: "AAECAwQFBgcICQoLDA0ODw".to_owned(),
            expires_at: Clock::System.now().after(Duration::from_hours(1)),
            notification_id: Uuid::new_v4(),
        }
    }

    /// The notification of an assignment.
    pub(in crate::providers) fn of_assignment() -> Notification {
        let mut notification = of_message("New message", "");
        if let Kind::Message { message_id, .. } = &mut notification.kind {
            *message_id = None;
        }
        notification
    }

    /// The notification of customers that wait.
    pub(in crate::providers) fn of_waiting(business_id: BusinessId) -> Notification {
        let title = "Customers are waiting".to_owned();
        Notification { kind: Kind::Waiting { business_id, waiting: 3, title }, badge: 0, ..of_message("", "") }
    }

    /// A change of the number of unread messages, which expires in an hour.
    pub(in crate::providers) fn of_badge(badge: u64) -> Notification {
        Notification { kind: Kind::Badge { read: None }, badge, collapse_key: "badge".to_owned(), ..of_message("", "") }
    }

    /// The same because of what was read.
    pub(in crate::providers) fn of_read(badge: u64, read: ReadUpTo) -> Notification {
        Notification { kind: Kind::Badge { read: Some(read) }, ..of_badge(badge) }
    }

    /// The largest that there is once it is cut: each character takes six bytes of JSON.
    pub(in crate::providers) fn largest() -> Notification {
        let mut largest = of_message(&"\u{1}".repeat(1000), &"\u{1}".repeat(9000)).cut().into_owned();
        largest.badge = u64::MAX;
        if let Kind::Message { seq, .. } = &mut largest.kind {
            *seq = Seq(u64::MAX);
        }
        largest
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("", 5), "");
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello!", 5), "hell…");
        assert_eq!(cut("hi there", 4), "hi…");
        assert_eq!(cut("नमस्ते, साथी", 6), "नमस्त…");
        let long = of_message("Asha", &"😀".repeat(BODY_CHARS_MAX + 1));
        let Kind::Message { title, body, .. } = &long.cut().kind else { panic!("it is a message") };
        assert_eq!((title.as_str(), body.chars().count()), ("Asha", BODY_CHARS_MAX));
        assert!(matches!(of_message("Asha", "hi").cut(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_late_has_no_seconds_left() {
        let notification = of_badge(1);
        let left = |before_ms: i64| notification.seconds_left(Timestamp(notification.expires_at.0 - before_ms));
        assert_eq!([left(-1), left(0), left(1), left(1000), left(1001)], [None, None, Some(1), Some(1), Some(2)]);
        assert_eq!(left(i64::MAX / 2), Some(28 * 24 * 60 * 60));
    }
}
