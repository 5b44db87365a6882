//! The export of a user's data, page by page. Nothing of an export is kept between pages: any gateway answers the next one.
//!
//! **Invariants:** no text that another user has written is in it, and no id of staff that a customer does not see. A message is
//! exported once, whatever is sent meanwhile.

mod cursor;
mod page;

pub use cursor::ExportCursor;
pub use page::{Bounds, ExportLine};

use std::sync::Arc;

use chat_shared::{
    ids::{ConversationId, UserId},
    position::Seq,
};
use tokio::{sync::Semaphore, time::timeout};

use self::page::{ExportedUser, Page};
use crate::{refusal::Refusal, state::AppState, telemetry};

/// Pages that a gateway makes at once, since each reads for seconds from the servers that users read from.
const PAGES_MAX: usize = 2;
/// Conversations that one statement reads.
const CONVERSATIONS_MAX: usize = 100;

/// Makes pages.
#[derive(Clone)]
pub struct Exports {
    state: AppState,
    bounds: Bounds,
    turns: Arc<Semaphore>,
}

/// Nothing more than before was gathered in time.
#[derive(Debug, thiserror::Error)]
#[error("a page of an export took too long")]
struct TooSlow;

/// Whether a page holds all that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Whole,
    Full,
}

impl Exports {
    /// Pages within `bounds`, of the data that this gateway reads.
    pub fn new(state: AppState, bounds: Bounds) -> Self {
        Self { state, bounds, turns: Arc::new(Semaphore::new(PAGES_MAX)) }
    }

    /// The page after a cursor, or the first one. A part that can't be read now ends the page; if the
    /// page is empty, the request is refused.
    pub async fn page(&self, user_id: UserId, after: Option<ExportCursor>) -> Result<Vec<u8>, Refusal> {
        let _turn = self.turns.try_acquire().map_err(|_| Refusal::too_many_exports())?;
        let mut page = Page::new(self.bounds, after);
        let filled = timeout(self.bounds.time_max, self.fill(&mut page, user_id)).await;
        let filled = filled.unwrap_or_else(|_| Err(Refusal::unavailable("the export in time", &TooSlow)));
        let (messages, place) = (page.messages, page.place);
        let bytes = match (filled, place.filter(|place| Some(*place) != after)) {
            (Ok(Filled::Whole), _) => page.end(),
            (_, Some(place)) => page.continued(place),
            (Ok(Filled::Full), None) => Err(Refusal::unavailable("the export in time", &TooSlow)),
            (Err(refusal), None) => Err(refusal),
        }?;
        metrics::counter!(telemetry::EXPORTED_MESSAGES_TOTAL).increment(messages);
        Ok(bytes)
    }

    async fn fill(&self, page: &mut Page, user_id: UserId) -> Result<Filled, Refusal> {
        if page.place.is_none() {
            page.begin(self.user(user_id).await?)?;
        }
        loop {
            let from = page.place.map_or_else(uuid::Uuid::nil, ExportCursor::next_id);
            let memberships = self.state.conversations.memberships(user_id, from, CONVERSATIONS_MAX).await?;
            let is_last = memberships.len() < CONVERSATIONS_MAX;
            for conversation in memberships {
                let id = conversation.conversation_id;
                let has_begun = page.place.is_some_and(|place| place.conversation_id == id);
                if !has_begun && !page.add_conversation(conversation)? {
                    return Ok(Filled::Full);
                }
                if self.fill_messages(page, user_id, id).await? == Filled::Full {
                    return Ok(Filled::Full);
                }
            }
            if is_last {
                return Ok(Filled::Whole);
            }
        }
    }

    /// Adds the messages of a conversation after those that are exported.
    async fn fill_messages(
        &self,
        page: &mut Page,
        user_id: UserId,
        conversation_id: ConversationId,
    ) -> Result<Filled, Refusal> {
        loop {
            let after = page.place.map_or(Seq::ZERO, |place| place.seq);
            let part = Box::pin(self.state.history.export(user_id, conversation_id, after)).await?;
            for message in part.messages {
                if !page.add_message(message)? {
                    return Ok(Filled::Full);
                }
            }
            // Numbers that belong to no exported message are passed over too.
            let Some(seq) = part.next else {
                page.place = Some(ExportCursor::end_of(conversation_id));
                return Ok(Filled::Whole);
            };
            page.place = Some(ExportCursor { conversation_id, seq });
        }
    }

    async fn user(&self, user_id: UserId) -> Result<ExportedUser, Refusal> {
        Ok(ExportedUser {
            user_id,
            exported_at: self.state.clock.now(),
            blocks: self.state.conversations.blocks(user_id).await?.blocks,
            devices: self.state.devices.list(user_id).await?.devices,
        })
    }
}
