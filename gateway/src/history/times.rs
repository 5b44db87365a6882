//! Remembers when the messages at the edges of pages were accepted, since the next page begins beside one of them.

use chat_shared::{clock::Timestamp, ids::ConversationId, position::Seq};
use moka::{policy::EvictionPolicy, sync::Cache};

use super::{
    range::Place,
    stored::{Search, StoredMessage},
};

/// Messages whose times are remembered. The least recently used is dropped, and the page beside it is searched for from
/// the conversation's newest message.
const TIMES_MAX: u64 = 100_000;

/// The times of messages at the edges of pages.
#[derive(Clone)]
pub(super) struct Times(Cache<(ConversationId, Seq), Timestamp>);

impl Default for Times {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(TIMES_MAX).eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl Times {
    /// Remembers both edges of a page.
    pub(super) fn remember<'a>(
        &self,
        conversation_id: ConversationId,
        mut page: impl DoubleEndedIterator<Item = &'a StoredMessage>,
    ) {
        for edge in [page.next(), page.next_back()].into_iter().flatten() {
            self.0.insert((conversation_id, edge.seq), edge.sent_at);
        }
    }

    /// The search for a page's rows, from as near as is known; `last` is the time of the conversation's last message.
    pub(super) fn search(&self, conversation_id: ConversationId, place: Place, last: Timestamp) -> Search {
        let known = |seq| self.0.get(&(conversation_id, seq));
        match place {
            Place::Newest => Search::Back(last),
            Place::Before(seq) => Search::Back(known(seq).map_or(last, |time| time.min(last))),
            Place::After(seq) => known(seq).map_or(Search::Back(last), |time| Search::Forward(time.min(last), last)),
        }
    }
}
