//! How far the application has come; what it keeps to go on after a restart.

use std::collections::BTreeMap;

use chat_shared::{ids::ConversationId, position::Seq, runs::Runs, wire::Resume};
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// The last message.
    pub last_seq: Seq,
    /// Messages up to here have been aged out.
    pub floor_seq: Seq,
    /// The user has read up to here.
    pub read_seq: Seq,
    /// Messages of the user's own after `read_seq`. They are not unread.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub own_runs: Runs,
}

impl ReadMark {
    /// `last_seq − max(read_seq, floor_seq)`, less the user's own messages among those.
    pub fn unread(&self) -> u64 {
        let seen = self.read_seq.max(self.floor_seq);
        self.last_seq.0.saturating_sub(seen.0).saturating_sub(self.own_runs.count_after(seen))
    }

    /// The user has read up to a message.
    pub(crate) fn read(&mut self, seq: Seq) {
        self.read_seq = self.own_runs.settle(self.read_seq.max(seq));
    }

    /// The user wrote a message.
    pub(crate) fn wrote(&mut self, seq: Seq) {
        self.own_runs.insert(seq, seq);
        self.read(Seq::ZERO);
    }

    /// Takes the further of each number.
    pub(crate) fn raise(&mut self, other: &Self) {
        self.last_seq = self.last_seq.max(other.last_seq);
        self.floor_seq = self.floor_seq.max(other.floor_seq);
        self.own_runs.extend(&other.own_runs);
        self.read(other.read_seq);
    }
}
