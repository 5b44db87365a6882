//! What participants see of each other while it lasts: presence, typing, receipts.

use serde::{Deserialize, Serialize};

use super::map;
use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    position::Seq,
};

/// Whether a user is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Presence {
    /// Who.
    pub user_id: UserId,
    /// Whether any of their devices is connected.
    pub is_online: bool,
    /// When the last of their devices went, in milliseconds since 1970. Absent while they are online, and after 14 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// The presence of several users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PresenceList {
    /// One for each user asked for.
    pub users: Vec<Presence>,
}

/// Somebody writes, or has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Typing {
    /// Where.
    pub conversation_id: ConversationId,
    /// Who.
    pub user_id: UserId,
    /// Whether they are writing now. Said once more as false after 5 seconds without news of it.
    pub is_typing: bool,
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// A device of the user has the messages. Of direct conversations only.
    Delivered,
    /// The user has read them.
    Read,
    /// A kind of a later version: pass it over.
    #[serde(other)]
    Unknown,
}

/// How far a participant has got. Receipts only go forward: drop one that is behind what you have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Receipt {
    /// Where.
    pub conversation_id: ConversationId,
    /// Whose progress it is.
    pub user_id: UserId,
    /// Delivered or read.
    pub kind: ReceiptKind,
    /// Up to and with this message.
    pub seq: Seq,
    /// The message that was read last; absent in `delivered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The number of messages after it; only in your own `read`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
}

/// How far a participant has got, as the conversation shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// Who.
    pub user_id: UserId,
    /// Messages after this number were sent to the user. A tick of an earlier message does not wait for the user.
    #[serde(default)]
    pub since_seq: Seq,
    /// Up to here they have read.
    pub read_seq: Seq,
    /// The message that they read last, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read_message_id: Option<MessageId>,
    /// Up to here a device of theirs has the messages; only of the other one in a direct conversation, and at least
    /// `read_seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_seq: Option<Seq>,
}

/// Marks a conversation as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MarkReadBody {
    /// As in the `mark_read` command.
    pub message_id: MessageId,
    /// The number of this message. With it the gateway needs no search for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

/// How long a conversation's messages cause no notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MuteFields", into = "MuteFields")]
pub enum Mute {
    /// Until a moment.
    Until(Timestamp),
    /// Until it is unmuted.
    ForGood,
}

/// How long a conversation's messages cause no notifications: exactly one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Mute)]
pub struct MuteFields {
    /// Until then, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// True: until it is unmuted.
    #[serde(default, deserialize_with = "map::flag", skip_serializing_if = "std::ops::Not::not")]
    for_good: bool,
}

impl TryFrom<MuteFields> for Mute {
    type Error = &'static str;

    fn try_from(MuteFields { until, for_good }: MuteFields) -> Result<Self, Self::Error> {
        match (until, for_good) {
            (Some(until), false) => Ok(Self::Until(until)),
            (None, true) => Ok(Self::ForGood),
            _ => Err("give either `until` or `\"for_good\": true`"),
        }
    }
}

impl From<Mute> for MuteFields {
    fn from(mute: Mute) -> Self {
        match mute {
            Mute::Until(until) => Self { until: Some(until), for_good: false },
            Mute::ForGood => Self { until: None, for_good: true },
        }
    }
}

/// What a user has not read, over all conversations: the number for a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnreadTotal {
    /// Messages, muted conversations included.
    pub messages: u64,
    /// Conversations with at least one.
    pub conversations: u64,
}
