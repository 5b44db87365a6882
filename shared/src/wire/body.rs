//! Bodies of the REST interface, some of which travel in frames too.

use serde::{Deserialize, Serialize};

use super::{
    BusinessProfile, Case, ConversationKind, ConversationName, Mute, MuteFields, Progress, Role, UserProfile, map,
};
use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    position::Seq,
    runs::Runs,
};

/// A message as clients see it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Message {
    /// The conversation it stands in.
    pub conversation_id: ConversationId,
    /// The id that its sender chose.
    pub message_id: MessageId,
    /// Who wrote it.
    pub sender_id: UserId,
    /// Its number in the conversation.
    pub seq: Seq,
    /// When it was accepted, in milliseconds since 1970. Never runs backwards along `seq`.
    pub sent_at: Timestamp,
    /// The text.
    pub text: String,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("conversation_id", &self.conversation_id)
            .field("message_id", &self.message_id)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// A user in a conversation. To a customer the business is one: its `user_id` is the `business_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Participant {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
}

/// A conversation as one of its participants sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Conversation {
    /// Which one.
    pub conversation_id: ConversationId,
    /// Direct, group or business.
    pub kind: ConversationKind,
    /// Grows by one with each change of the participants.
    pub version: u64,
    /// What to show as its name.
    #[serde(default)]
    pub name: ConversationName,
    /// Who takes part, in the order they joined.
    pub participants: Vec<Participant>,
    /// What the participants are called, in the same order.
    #[serde(default)]
    pub profiles: Vec<UserProfile>,
    /// Of a business conversation: the business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business: Option<Box<BusinessProfile>>,
    /// Of a business conversation: its current or last case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<Case>,
    /// Of a direct conversation: whether the asking user has blocked the other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_blocked: bool,
    /// The number of the last message; 0 before the first.
    pub last_seq: Seq,
    /// Messages up to here have been aged out.
    pub floor_seq: Seq,
    /// How far the asking user has read.
    pub read_seq: Seq,
    /// The message that the asking user read last, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read_message_id: Option<MessageId>,
    /// Messages of the asking user's own after `read_seq`, as runs of a first and a last number. They are not unread.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub own_runs: Runs,
    /// `last_seq − max(read_seq, floor_seq)`, less the messages of `own_runs` after `max(read_seq, floor_seq)`.
    pub unread: u64,
    /// How far the others have got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<Progress>,
    /// How long its messages cause the asking user no notifications; absent if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MuteFields>)]
    pub mute: Option<Mute>,
    /// The last message, unless there is none or it has been aged out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<Message>,
    /// When the conversation was made, in milliseconds since 1970.
    pub created_at: Timestamp,
    /// When the last message was accepted, or the conversation made if there is none; the list's order.
    pub last_activity_at: Timestamp,
}

/// A page of the user's conversations, latest activity first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConversationPage {
    /// The conversations.
    pub conversations: Vec<Conversation>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A page of a conversation's history, always in ascending `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryPage {
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether there is more in the direction asked for.
    pub has_more: bool,
    /// The number of the conversation's last message as this page was made.
    pub last_seq: Seq,
    /// Messages up to here have been aged out.
    pub floor_seq: Seq,
}

/// Asks for a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CreateConversation {
    /// The one with another user; made if it doesn't exist yet.
    Direct {
        /// The other one.
        user_id: UserId,
    },
    /// A new group, owned by the asking user.
    Group {
        /// One to seven others.
        user_ids: Vec<UserId>,
    },
    /// The one with a business; made if it doesn't exist yet.
    Business {
        /// The business.
        business_id: BusinessId,
    },
}

/// Asks for users to be added to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AddParticipants {
    /// Who; those already in it are passed over.
    pub user_ids: Vec<UserId>,
}

/// Sends a message by REST.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SendMessageBody {
    /// As in the `send_message` command.
    pub message_id: MessageId,
    /// As in the `send_message` command.
    pub text: String,
    /// As in the `send_message` command.
    #[serde(default, deserialize_with = "map::flag")]
    pub is_repeat: bool,
    /// As in the `send_message` command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_seq: Option<Seq>,
}
