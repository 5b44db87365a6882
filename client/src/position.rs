//! How far the application has come; what it keeps to go on after a restart.

use std::collections::BTreeMap;

use chat_shared::{ids::ConversationId, position::Seq, wire::Resume};
use serde::{Deserialize, Serialize};

/// How far the application has come. Keep it together with what was taken from
/// [`Events`](crate::Events), and give it back in
/// [`ClientOptions::resume_from`](crate::ClientOptions::resume_from).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The place in the inbox before which the application has taken everything. Absent while there is
    /// no such place, for instance during a reload; the next start then reloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<Resume>,
    /// The last message taken, or skipped, of each conversation.
    pub seqs: BTreeMap<ConversationId, Seq>,
    /// How far the user has read, and what there is to read, in each conversation that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reads: BTreeMap<ConversationId, ReadMark>,
}

/// The numbers that say what is unread in a conversation. Each only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// The last message.
    pub last_seq: Seq,
    /// Messages up to here have been aged out.
    pub floor_seq: Seq,
    /// The user has read up to here; what they wrote counts as read.
    pub read_seq: Seq,
}

impl ReadMark {
    /// `last_seq − max(read_seq, floor_seq)`.
    pub fn unread(&self) -> u64 {
        self.last_seq.0.saturating_sub(self.read_seq.max(self.floor_seq).0)
    }

    /// The further of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            last_seq: self.last_seq.max(other.last_seq),
            floor_seq: self.floor_seq.max(other.floor_seq),
            read_seq: self.read_seq.max(other.read_seq),
        }
    }
}
