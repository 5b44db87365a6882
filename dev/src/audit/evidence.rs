//! Everything that an audit looks at, gathered from outside. Records only.

use std::collections::{BTreeMap, BTreeSet};

use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::Message,
};
use tokio::time::Instant;

use super::ledger::{Attempt, Key};

/// A conversation and who is in it from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub id: ConversationId,
    pub members: Vec<UserId>,
}

/// A row of `messages`, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub sent_at: Timestamp,
    pub message_id: MessageId,
    pub sender_id: UserId,
}

impl Row {
    /// Which message it is.
    pub const fn key(&self) -> Key {
        Key { conversation_id: self.conversation_id, sender_id: self.sender_id, message_id: self.message_id }
    }
}

/// What a row of `conversations` says of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub conversation_id: ConversationId,
    pub last_seq: Seq,
    pub floor_seq: Seq,
    /// Grows by one with each change of the participants, and with each block.
    pub version: u64,
}

/// How far a participant has read, as a row of `participants` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub read_seq: Seq,
    /// The participant was added after this message.
    pub since_seq: Seq,
}

/// A conversation in a user's list, as a gateway gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub last_seq: Seq,
    pub unread: u64,
}

/// What one device was shown by its client, in the order it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    pub name: String,
    pub user_id: UserId,
    pub messages: Vec<Message>,
    /// Messages that the client gave up on.
    pub skipped: u64,
    /// The newest version of each conversation that its client knows.
    pub versions: BTreeMap<ConversationId, u64>,
    /// How far others have read, as its client was told.
    pub reads: BTreeMap<(ConversationId, UserId), Seq>,
    /// When its client last took in the conversation list.
    pub reloaded_at: Option<Instant>,
}

/// How often gateways pushed messages to one device, before its client has filtered repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub device: String,
    /// Connections that the device has had. Each may begin with what the one before had not confirmed.
    pub connections: u64,
    /// Of each message, how often it was pushed.
    pub times: Vec<u64>,
}

/// How far a participant has marked a conversation as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    /// The furthest mark that was answered.
    pub answered: Seq,
    /// The furthest mark that was sent.
    pub tried: Seq,
    /// When the furthest answer came.
    pub answered_at: Option<Instant>,
}

/// Whether the device of a user who was added to a conversation or removed from it was shown a message in time. Whoever is
/// added again may read everything, so this is seen before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    pub key: Key,
    pub user_id: UserId,
    /// Whether the user took part when the message was sent.
    pub is_for_them: bool,
    pub is_shown: bool,
}

/// A registered device of somebody who is away the whole time, and what its provider has taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwayDevice {
    pub name: String,
    pub user_id: UserId,
    /// The messages that it was notified of, in the order of their arrival.
    pub notified: Vec<(ConversationId, MessageId)>,
    /// Those whose notification was on its way as a notifier died: nobody knows whether they were sent, and they never are
    /// again.
    pub unknown: BTreeSet<MessageId>,
}

/// What somebody is told of somebody's presence at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Who is told, and how.
    pub watcher: String,
    pub user_id: UserId,
    /// Whether the other one is online; none if they know nothing.
    pub told: Option<bool>,
    /// Whether the other one is connected.
    pub is_there: bool,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The conversations that are looked at.
    pub rooms: Vec<Room>,
    /// What was sent in them.
    pub attempts: Vec<Attempt>,
    /// What PostgreSQL has of them, by conversation and number.
    pub rows: Vec<Row>,
    pub heads: Vec<Head>,
    pub reads: Vec<ReadMark>,
    /// What the lists of all their participants say.
    pub listed: Vec<Listed>,
    /// The whole history of each, as one participant reads it.
    pub history: Vec<Message>,
    /// All devices of all participants.
    pub devices: Vec<DeviceRecord>,
    /// All registered devices of participants who are away.
    pub away: Vec<AwayDevice>,
    /// What participants are told of each other's presence.
    pub sights: Vec<Sight>,
    /// Pushes of gateways to each device.
    pub pushed: Vec<Pushed>,
    pub marked: Vec<Marked>,
    /// Participants who muted a conversation before its first message.
    pub muted: BTreeSet<(ConversationId, UserId)>,
    /// Users whose devices have to know the newest version of a conversation: its participants and whom it lost last.
    pub informed: Vec<(ConversationId, UserId)>,
    /// Messages sent just after a user was added or removed.
    pub observed: Vec<Observed>,
    /// Messages of those who were removed or blocked. None may be accepted.
    pub forbidden: BTreeSet<Key>,
    /// Dead letters that came meanwhile, and how many had to.
    pub dead_letters: u64,
    pub dead_letters_expected: u64,
}
