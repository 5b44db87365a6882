//! What a client asks.

use serde::{Deserialize, Serialize};

use super::map;
use crate::{
    ids::{BusinessId, ConversationId, DeviceId, Epoch, MessageId, UserId},
    position::{Cursor, Seq},
};

/// One frame from a client: a command, and the reference that its reply will carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFrame {
    /// Chosen by the client and echoed in the reply. Without it a `done` is not sent.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// A client's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// The first command of a connection; answered by `ready`.
    Hello(Hello),
    /// Appends a message; answered by `accepted`.
    SendMessage(SendMessage),
    /// Says that everything up to a cursor has arrived.
    Confirm(Confirm),
    /// Says that the client is there.
    Heartbeat(Heartbeat),
    /// Brings a newer token for the same user.
    RenewToken(RenewToken),
    /// Says how far the user has read.
    MarkRead(MarkRead),
    /// Says that the user writes, or has stopped.
    SetTyping(SetTyping),
    /// Says whose presence this connection is told of from now on.
    WatchPresence(WatchPresence),
    /// Replaces the list of businesses of which this connection is pushed the availability.
    WatchBusinesses(WatchBusinesses),
}

impl Command {
    /// The names of all commands, as they stand in `type`.
    pub const NAMES: [&'static str; 9] = [
        "hello",
        "send_message",
        "confirm",
        "heartbeat",
        "renew_token",
        "mark_read",
        "set_typing",
        "watch_presence",
        "watch_businesses",
    ];
}

/// Says which device this is, and where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The client installation; a second connection of the same device ends the first.
    pub device_id: DeviceId,
    /// Where the client stopped, if it has been connected before.
    #[serde(default, deserialize_with = "map::optional", skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// A position in the user's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The epoch that `ready` gave.
    pub epoch: Epoch,
    /// The last cursor that the client has taken in.
    pub cursor: Cursor,
}

/// Sends a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// Where to.
    pub conversation_id: ConversationId,
    /// Chosen by the client, new for each message and the same for each repeat of it.
    pub message_id: MessageId,
    /// The text; see the limits for its size.
    pub text: String,
    /// True when this id may have been sent before. Then the gateway looks further back than the log's own window.
    #[serde(default, deserialize_with = "map::flag", skip_serializing_if = "std::ops::Not::not")]
    pub is_repeat: bool,
    /// The device had shown the messages up to this one: the user has read them. Without it the user has read nothing by
    /// sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_seq: Option<Seq>,
}

/// Confirms pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Everything up to here has been taken in by this device.
    pub cursor: Cursor,
}

/// Shows that the client is there; due every `heartbeat_interval_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// As in `confirm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// Replaces the connection's token before it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewToken {
    /// A token of the same user.
    pub token: String,
}

impl std::fmt::Debug for RenewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RenewToken")
    }
}

/// Marks everything up to a message as read. Only forward: a message before the last one read changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRead {
    /// Where.
    pub conversation_id: ConversationId,
    /// The last message that the user has seen.
    pub message_id: MessageId,
    /// Its number. With it the gateway needs no search for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

/// Says that the user writes. Said again every 3 seconds while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTyping {
    /// Where.
    pub conversation_id: ConversationId,
    /// False when they stop before they send.
    pub is_typing: bool,
}

/// Replaces the list of users whose presence this connection is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchPresence {
    /// At most 100, each in some conversation with the user. None ends it.
    pub user_ids: Vec<UserId>,
}

/// Replaces the list of businesses of which this connection is pushed the availability and, to staff, the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchBusinesses {
    /// At most 20. An empty list ends the pushes.
    pub business_ids: Vec<BusinessId>,
}
