//! What a gateway says: replies to commands, and pushes.

use serde::{Deserialize, Serialize};

use super::{
    BusinessProfile, Case, ConversationKind, ConversationName, ErrorCode, Message, Participant, Presence, ProfileList,
    Receipt, Typing, UserProfile, WatchedBusiness,
};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, Epoch, MessageId, SessionId, UserId},
    limits,
    position::{Cursor, Seq},
};

/// One frame from a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ServerFrame {
    /// The answer to one command.
    Reply(Reply),
    /// An unasked frame.
    Push(Push),
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The message is kept.
    Accepted(Accepted),
    /// The command is carried out.
    Done {
        /// The command's reference.
        #[serde(rename = "ref")]
        reference: u64,
    },
    /// The command was not carried out.
    Rejected(Rejected),
}

/// The message is in the log, durably, under its final number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// The command's reference; absent in REST.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// Where it stands.
    pub conversation_id: ConversationId,
    /// The id that the client chose.
    pub message_id: MessageId,
    /// Its number in the conversation.
    pub seq: Seq,
    /// When it was accepted, in milliseconds since 1970.
    pub sent_at: Timestamp,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The command's reference, if it had one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// From the closed list.
    pub code: ErrorCode,
    /// For the developer who reads it: what is wrong and what to do.
    pub message: String,
    /// When to try again, where that can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// An unasked frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Push {
    /// The connection is registered; the first frame after `hello`.
    Ready(Connected),
    /// A message in one of the user's conversations, their own included.
    Message {
        /// Its place in the inbox; absent while the inbox is out of reach.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
        /// The sender has read the messages up to this one; absent if the sender's device did not give it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen_seq: Option<Seq>,
        /// The message.
        message: Message,
    },
    /// A conversation was made, or its participants changed.
    Conversation {
        /// Its place in the inbox; absent while the inbox is out of reach.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
        /// How it is now.
        conversation: ChangedConversation,
    },
    /// A participant's messages were delivered or read.
    Receipt {
        /// Its place in the inbox; absent while the inbox is out of reach.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
        /// How far.
        receipt: Receipt,
    },
    /// A participant writes, or has stopped.
    Typing {
        /// Who and where.
        typing: Typing,
    },
    /// Users whom this connection watches: all of them after `watch_presence`, then those that changed.
    Presence {
        /// How they are now.
        users: Vec<Presence>,
    },
    /// A business that this connection watches: after `watch_businesses`, and when something of it changed.
    Business {
        /// Its state now.
        business: WatchedBusiness,
    },
    /// An entry of the inbox that this user is not shown: it can't be read, or is of a conversation that they were removed
    /// from. Count it as taken.
    Skipped {
        /// Its place in the inbox.
        cursor: Cursor,
    },
    /// Names or pictures of users or businesses in the user's conversations have changed, or are known at last.
    Profile {
        /// As they are now.
        profiles: ProfileList,
    },
    /// The gateway is there, and this is how far it has pushed.
    Heartbeat {
        /// The last cursor pushed on this connection.
        cursor: Cursor,
    },
    /// The gateway is about to stop. Connect to another one after the delay.
    GoingAway {
        /// How long to wait first.
        reconnect_after_ms: u64,
    },
}

/// The state of a connection after `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// This connection's registration.
    pub session_id: SessionId,
    /// The inbox' epoch; give it back in `hello.resume`. Absent while the inbox is out of reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Pushes with larger cursors follow.
    pub cursor: Cursor,
    /// True: everything missed follows. False: reload the conversation list, then fill gaps by `seq`.
    pub resumed: bool,
    /// How often the gateway pushes a heartbeat, which the client answers; twice as long a silence ends the connection.
    pub heartbeat_interval_ms: u64,
    /// The bounds that concern a client.
    pub limits: WireLimits,
}

/// The bounds that concern a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLimits {
    /// The largest frame, in bytes.
    pub frame_bytes_max: usize,
    /// The largest text, in bytes of UTF-8.
    pub text_bytes_max: usize,
    /// Commands a second that a user may send over a longer time.
    pub commands_per_second_max: u32,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            text_bytes_max: limits::TEXT_BYTES_MAX,
            commands_per_second_max: limits::COMMANDS_PER_SECOND_MAX,
        }
    }
}

/// A conversation after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedConversation {
    /// Which one.
    pub conversation_id: ConversationId,
    /// Direct, group or business.
    pub kind: ConversationKind,
    /// Grows by one with each change of the participants; drop what is older than what you have.
    pub version: u64,
    /// What to show as its name.
    #[serde(default)]
    pub name: ConversationName,
    /// Who takes part now. A user who isn't listed has been removed or has left.
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
    /// Of a direct conversation: whether this user has blocked the other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_blocked: bool,
    /// Who was added by this change.
    pub added: Vec<UserId>,
    /// Who was removed or left by this change.
    pub removed: Vec<UserId>,
    /// Those of `added` that took part before: their `read_seq` is the one that they had. The others begin with `last_seq`
    /// as their `read_seq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<UserId>,
    /// The number of the last message before the change.
    pub last_seq: Seq,
    /// When it happened, in milliseconds since 1970.
    pub changed_at: Timestamp,
}
