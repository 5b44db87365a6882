//! What the session asks of REST: the conversation list after a reload, and pages of history to fill gaps.

use chat_shared::{
    ids::ConversationId,
    position::Seq,
    wire::{Conversation, ErrorCode, HistoryPage},
};

use crate::{
    error::RestError,
    limits::{HINT_MAX, PAGE_ROWS, SHORT_PAGE_ROWS},
    rest::{HistoryRange, Rest},
    token::Tokens,
};
use std::sync::Arc;

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// The conversation list, of the load with this number.
    List { load: u64, outcome: Result<Vec<Conversation>, RestError> },
    /// A page of a conversation's history.
    Page { conversation_id: ConversationId, outcome: Result<HistoryPage, RestError> },
    /// A conversation that was met halfway.
    Conversation { conversation_id: ConversationId, outcome: Box<Result<Conversation, RestError>> },
    /// A token to replace the one in use.
    Token(Result<Arc<str>, crate::TokenError>),
}

/// Loads all pages of the conversation list.
pub(crate) async fn list(rest: Rest, load: u64) -> Loaded {
    Loaded::List { load, outcome: all_pages(&rest).await }
}

/// All pages, as fast as the gateway's limits allow: a list of thousands is not begun again because of one page.
async fn all_pages(rest: &Rest) -> Result<Vec<Conversation>, RestError> {
    let mut conversations = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = match rest.list_conversations(Some(PAGE_ROWS), cursor.as_deref()).await {
            Err(RestError::Refused { code: ErrorCode::RateLimited, retry_after: Some(wait), .. })
                if wait <= HINT_MAX =>
            {
                tokio::time::sleep(wait).await;
                continue;
            }
            page => page?,
        };
        conversations.extend(page.conversations);
        // The same cursor again would go round for ever.
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(conversations),
        }
    }
}

/// Loads the page of history after a number: a short one first, which costs a fifth of the user's rate and is enough for
/// most gaps.
pub(crate) async fn page(rest: Rest, conversation_id: ConversationId, after: Seq) -> Loaded {
    let page = async |rows| rest.history(conversation_id, HistoryRange::After(after), Some(rows)).await;
    let outcome = match page(SHORT_PAGE_ROWS).await {
        Ok(short) if short.has_more => page(PAGE_ROWS).await,
        outcome => outcome,
    };
    Loaded::Page { conversation_id, outcome }
}

/// Loads one conversation.
pub(crate) async fn conversation(rest: Rest, conversation_id: ConversationId) -> Loaded {
    Loaded::Conversation { conversation_id, outcome: Box::new(rest.conversation(conversation_id).await) }
}

/// Gets a token other than `stale`.
pub(crate) async fn token(tokens: Arc<Tokens>, stale: Arc<str>) -> Loaded {
    Loaded::Token(tokens.renewed(&stale).await)
}
