//! The evidence of an audit of days that age out. Records only.

use chat_client::{
    ids::{ConversationId, UserId},
    positions::Seq,
};

/// From the start of this day after it, nothing of a day is shown, and each of its rows is deleted.
pub const DELETED_FROM: i32 = 91;
/// From the start of this day after it, nothing of a day is left.
pub const GONE_FROM: i32 = 98;

/// A message that was stored in its day, as it is found after the day has aged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedMessage {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub sender_id: UserId,
    pub days_ago: i32,
    pub row: Option<AgedRow>,
    /// Whether a participant reads it in history; none if no one was asked.
    pub is_in_history: Option<bool>,
}

/// The row of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedRow {
    pub is_deleted: bool,
    /// Whether the key of its day opens it.
    pub is_opened: bool,
}

/// The key and the relations of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedDay {
    pub days_ago: i32,
    pub has_key: bool,
    /// Whether its partition belongs to the table of messages.
    pub is_attached: bool,
    /// Tables, indexes and types with the name of its partition.
    pub relations: u64,
}

/// A row of another table that ages out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedEntry {
    pub table: &'static str,
    pub days_ago: i32,
    /// The age in days from which on it is gone; none if it stays.
    pub gone_from: Option<i32>,
    pub is_there: bool,
}

/// The floor of a conversation that has messages of days that age out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedFloor {
    pub conversation_id: ConversationId,
    pub floor_seq: Seq,
}

/// An entry of the list of a participant of a conversation in which nothing was sent since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgedListing {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub read_seq: Seq,
    /// The number in the list; none if the list lacks the conversation.
    pub unread: Option<u64>,
}

/// A copy of a text whose day is gone, and the keys that were tried on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedCopy {
    /// The text and the place of the copy.
    pub name: String,
    pub keys: u64,
    pub opened: u64,
}

/// A search through files for bytes that must be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedSearch {
    /// The bytes and the place of the search.
    pub name: String,
    pub files: u64,
    pub hits: u64,
}

/// Everything about days that age out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgeingEvidence {
    pub messages: Vec<AgedMessage>,
    pub days: Vec<AgedDay>,
    pub entries: Vec<AgedEntry>,
    pub floors: Vec<AgedFloor>,
    pub listings: Vec<AgedListing>,
    pub copies: Vec<AgedCopy>,
    pub searches: Vec<AgedSearch>,
}
