//! What participants see of each other while it lasts: presence, typing, receipts.

use serde::{Deserialize, Serialize};

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
    /// What is unread in the conversation after it; only in your own `read`.
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
    /// Up to here they have read; their own messages count as read.
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
}

/// A conversation whose messages notify nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Mute {
    /// Until then, in milliseconds since 1970; for good if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a user has not read, over all conversations: the number for a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnreadTotal {
    /// Messages, muted conversations included.
    pub messages: u64,
    /// Conversations with at least one.
    pub conversations: u64,
}
