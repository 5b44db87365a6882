//! Keeps the gateway's lease in Redis, and notices when Redis was away or has lost its data.

use chat_shared::{inbox::Lease, limits, wire::CloseCode};

use crate::state::AppState;

/// Renews the lease until the gateway drains, then gives it back.
pub async fn keep(state: AppState) {
    let mut ticks = tokio::time::interval(limits::GATEWAY_LEASE_RENEWAL);
    // Cancel safe: a lost tick is made up by the next.
    while state.tasks.draining().run_until_cancelled(ticks.tick()).await.is_some() {
        match state.inboxes.renew_lease(state.gateway_id).await {
            Ok(Lease::Held) => close_unregistered(&state),
            Ok(Lease::Taken) => resume_all(&state),
            Err(error) => tracing::warn!(%error, "the gateway's lease could not be renewed"),
        }
    }
    // If it fails the lease runs out by itself.
    let _released = state.inboxes.release_lease(state.gateway_id).await;
}

/// Nobody counted as there while there was no lease, and Redis may have lost their sessions with it. When the gateway
/// starts nobody is here yet.
fn resume_all(state: &AppState) {
    let connections = state.connections.all();
    if !connections.is_empty() {
        tracing::warn!(connections = connections.len(), "Redis had no lease of this gateway: its clients resume");
    }
    for connection in connections {
        connection.close(CloseCode::InboxLost);
    }
}

/// Redis is there: whoever connected while it was away resumes now.
fn close_unregistered(state: &AppState) {
    for connection in state.connections.all() {
        if connection.is_unregistered() {
            connection.close(CloseCode::InboxLost);
        }
    }
}
