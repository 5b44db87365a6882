//! Reads a user's inbox where live pushes don't reach: after hello, after a gap, after a lost connection to NATS.

use std::sync::Arc;

use chat_shared::{event::Event, inbox::Page, wire::CloseCode};
use futures_util::{StreamExt, stream};

use super::events::push_of;
use crate::{app::AppState, connection::Connection};

/// Entries that are read at a time; with the largest texts they fit in an outbox that has room.
const PAGE_ENTRIES: usize = 16;
/// Inboxes that are read at a time when all connections catch up.
const CATCH_UPS_MAX: usize = 64;

/// Pushes what stands in the inbox after the connection's position, up to its end. The connection has begun a
/// catch-up. If the inbox was lost or trimmed the connection ends and the client resumes.
pub async fn catch_up(state: &AppState, connection: &Connection) {
    while let Some((epoch, cursor)) = connection.catch_up_from() {
        connection.room().await;
        let page = match state.inboxes.read(connection.user_id, epoch, cursor, PAGE_ENTRIES).await {
            Ok(Page::Entries(entries)) => entries,
            Ok(Page::Lost) => return connection.close(CloseCode::InboxLost),
            Err(error) => {
                tracing::warn!(%error, "an inbox can't be read; the client will resume");
                return connection.close(CloseCode::InboxLost);
            }
        };
        if page.is_empty() && connection.end_catch_up() {
            return;
        }
        for entry in page {
            let event = Event::decode(&entry.event).map_err(|error| crate::refusal::Refusal::internal(&error));
            match event.and_then(|event| push_of(&state.content, event)) {
                Ok(push) => connection.push_entry(entry.cursor, &push),
                // It is logged where it failed. History tells the client the same; those after it must not wait.
                Err(_) => connection.skip_entry(entry.cursor),
            }
        }
    }
}

/// Lets every connection catch up, so many at a time: something may have been lost on the way to this gateway.
pub async fn catch_up_all(state: &AppState) {
    let connections = state.connections.all();
    tracing::info!(connections = connections.len(), "every connection catches up");
    stream::iter(connections)
        .for_each_concurrent(CATCH_UPS_MAX, async |connection: Arc<Connection>| {
            if connection.begin_catch_up().is_some() {
                catch_up(state, &connection).await;
            }
        })
        .await;
}
