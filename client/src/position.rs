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
}
