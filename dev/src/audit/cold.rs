//! The evidence of an audit of old texts that move to an object store. Records only.

use chat_client::{ids::ConversationId, positions::Seq};

/// Where the text of a message is found, opened by the key of its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPlace {
    /// In its row.
    Row,
    /// In a pack of its day, and not in its row.
    Pack,
    /// In neither, or there is no row.
    Nowhere,
}

/// A message of a day whose texts move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdMessage {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub days_ago: i32,
    pub place: TextPlace,
    /// Whether its text has to stay in its row: it is the newest of its conversation, or came while its day moved.
    pub stays: bool,
    /// Gateways whose history gives it with its text, and how many were asked.
    pub read: usize,
    pub asked: usize,
}

/// A pack that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdPack {
    pub name: String,
    /// Whether the store has the object with the recorded bytes.
    pub is_whole: bool,
}

/// A day whose texts move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdDay {
    pub days_ago: i32,
    /// Whether the rows with texts are replaced and dropped.
    pub is_moved: bool,
}

/// An object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdObject {
    pub name: String,
    /// Old texts in it, in clear.
    pub texts: u64,
}

/// Everything about old texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColdEvidence {
    pub messages: Vec<ColdMessage>,
    pub packs: Vec<ColdPack>,
    pub days: Vec<ColdDay>,
    pub objects: Vec<ColdObject>,
}
