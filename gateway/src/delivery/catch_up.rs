//! Reads a user's inbox where live pushes don't reach: after hello, after a gap, after a lost connection to NATS.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    event::{Event, Fact},
    ids::{Epoch, UserId},
    inbox::{InboxEntry, Page},
    lifecycle::Panicked,
    limits,
    position::Cursor,
    wire::{CloseCode, ErrorCode, ProfileList},
};
use futures_util::{StreamExt, stream};

use super::{DirectMessage, Shown, decoded, events::Named, one};
use crate::{connection::Connection, refusal::Refusal, state::AppState};

/// Entries that are read at a time.
const PAGE_ENTRIES: usize = 16;
/// How long subscriptions may take until every NATS server knows them.
const SUBSCRIPTIONS_SETTLE: Duration = Duration::from_secs(1);
/// Inboxes that are read at a time when all connections catch up.
const CATCH_UPS_MAX: usize = 64;

/// Pushes what stands in the inbox after the connection's position, up to its end. The connection has begun a
/// catch-up. If the inbox was lost or trimmed the connection ends and the client resumes.
pub async fn catch_up(state: &AppState, connection: &Connection) {
    let mut has_looked_ahead = false;
    while let Some((epoch, cursor)) = connection.catch_up_from() {
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
        note_removals(state, connection.user_id, &page);
        if let Some(last) = page.last().filter(|_| page.len() == PAGE_ENTRIES && !has_looked_ahead) {
            look_ahead(state, connection.user_id, epoch, last.cursor).await;
            has_looked_ahead = true;
        }
        let profiles = profiles(state, connection.user_id, &page).await;
        for entry in page {
            // A text may grow sixfold when it is written as JSON, so there must be room before each entry.
            connection.room().await;
            if connection.is_closing() {
                return;
            }
            let cursor = entry.cursor;
            match one(|| take_entry(state, connection, &entry, &profiles)) {
                Ok(Ok(())) => {}
                // What is out of reach for now is there when the client resumes.
                Ok(Err(refusal)) if refusal.code == ErrorCode::Unavailable => {
                    return connection.close(CloseCode::InboxLost);
                }
                // It is logged where it failed. History tells the client the same; those after it must not wait.
                Ok(Err(_)) | Err(Panicked) => connection.skip_entry(cursor),
            }
        }
    }
}

/// Pushes an entry, or skips one that isn't for this user: it doesn't belong here, whoever put it in.
fn take_entry(
    state: &AppState,
    connection: &Connection,
    entry: &InboxEntry,
    profiles: &ProfileList,
) -> Result<(), Refusal> {
    let event = Event::decode(&entry.event).map_err(|error| Refusal::internal(&error))?;
    if event.audience().all(|user_id| user_id != connection.user_id) {
        connection.skip_entry(entry.cursor);
        return Ok(());
    }
    super::forget_changed(state, &event);
    state.receipts.learn(&event);
    state.watches.check(state, &event);
    let named = Named::by(&event, connection.user_id);
    let user = |user_id| profiles.users.iter().find(|profile| profile.user_id == user_id).cloned();
    let business = |business_id| profiles.businesses.iter().find(|profile| profile.business_id == business_id).cloned();
    let named = ProfileList {
        users: named.users.into_iter().filter_map(user).collect(),
        businesses: named.businesses.into_iter().filter_map(business).collect(),
    };
    connection.push_entry(entry.cursor, &Shown::new(&state.content, event)?.with_profiles(named));
    Ok(())
}

/// The profiles that entries show, with one batch for all.
async fn profiles(state: &AppState, viewer: UserId, entries: &[InboxEntry]) -> ProfileList {
    let events = entries.iter().filter_map(|entry| decoded(&entry.event));
    let mut all = Named::default();
    for Named { users, businesses } in events.map(|event| Named::by(&event, viewer)) {
        all.users.extend(users);
        all.businesses.extend(businesses);
    }
    if all.is_empty() { ProfileList::default() } else { state.profiles.list(viewer, &all.users, &all.businesses).await }
}

/// Looks for removals in the rest of an inbox, so that nothing is pushed from where its user was removed since. Those that
/// come into the inbox from now on are told to this gateway by whoever removes.
async fn look_ahead(state: &AppState, user_id: UserId, epoch: Epoch, after: Cursor) {
    // If it is lost or out of reach, so is the next page.
    if let Ok(Page::Entries(rest)) = state.inboxes.read(user_id, epoch, after, limits::INBOX_ENTRIES_MAX).await {
        note_removals(state, user_id, &rest);
    }
}

fn note_removals(state: &AppState, user_id: UserId, entries: &[InboxEntry]) {
    for event in entries.iter().filter_map(|entry| decoded(&entry.event)) {
        let Fact::ParticipantsChanged(change) = &event.fact else { continue };
        if change.removed.contains(&user_id) && event.participants.find(user_id).is_none() {
            state.connections.removed(user_id, event.conversation_id, event.participants.version);
        }
    }
}

/// Takes the entries of an inbox that a device had by the time it came back, and had no time to confirm, as delivered.
pub async fn made_up_for(state: &AppState, user_id: UserId, epoch: Epoch, mut after: Cursor, up_to: Cursor) {
    while after < up_to {
        // Without Redis, or what has been dropped by now, the next message that is delivered makes up for them.
        let Ok(Page::Entries(entries)) = state.inboxes.read(user_id, epoch, after, PAGE_ENTRIES).await else { return };
        let Some(last) = entries.last() else { return };
        after = last.cursor;
        let taken = entries.iter().take_while(|entry| entry.cursor <= up_to);
        let messages = taken.filter_map(|entry| DirectMessage::of(&decoded(&entry.event)?));
        let of_others = messages.filter(|message| message.sender_id != user_id);
        state.receipts.delivered(user_id, of_others.map(Arc::new).collect());
    }
}

/// Lets every connection catch up whenever something may have been lost: at once, and again when the subscriptions
/// surely stand everywhere, since a message that finds none is gone. However often it is rung for, one at a time.
pub async fn resync(state: AppState) {
    let draining = state.tasks.draining();
    // Cancel safe: whoever drains sends all connections away.
    while draining.run_until_cancelled(state.resync.notified()).await.is_some() {
        let twice = async {
            // Also removals and blocks may have gone unheard. PostgreSQL is asked once, when all that come will be heard.
            state.watches.withhold_all();
            catch_up_all(&state).await;
            tokio::time::sleep(SUBSCRIPTIONS_SETTLE).await;
            state.watches.suspect_all();
            catch_up_all(&state).await;
        };
        if draining.run_until_cancelled(twice).await.is_none() {
            return;
        }
    }
}

/// Lets every connection catch up, so many at a time: something may have been lost on the way to this gateway.
async fn catch_up_all(state: &AppState) {
    let connections = state.connections.all();
    tracing::info!(connections = connections.len(), "every connection catches up");
    state.sender.forget_all();
    state.watches.refresh();
    state.businesses.look_again_at_all();
    state.revocations.look_soon();
    state.profiles.forget_all();
    stream::iter(connections)
        .for_each_concurrent(CATCH_UPS_MAX, async |connection: Arc<Connection>| {
            if connection.begin_catch_up().is_some() {
                catch_up(state, &connection).await;
            }
        })
        .await;
}
