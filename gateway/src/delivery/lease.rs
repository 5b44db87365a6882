//! Keeps the gateway's lease in Redis, and brings its connections back when Redis was away or has lost data.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chat_shared::{inbox::Lease, limits, wire::CloseCode};
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::time::{interval, sleep};

use crate::{
    connection::{Connection, Returned},
    state::AppState,
};

/// How soon a renewal that failed is repeated.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// Connections that are registered again at a time.
const RETURNS_MAX: usize = 64;
/// Clients that have to reload are told one after the other, at this distance;
const RELOAD_INTERVAL: Duration = Duration::from_millis(10);
/// if that took longer than this, evenly spread over it.
const RELOADS_WITHIN: Duration = Duration::from_secs(30);

/// Which connections have to be registered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    /// Those that came while Redis was out of reach.
    Unregistered,
    /// All: there was no lease, so nobody counted as there, and Redis may have lost their sessions.
    All,
}

/// Renews the lease until the gateway drains, then gives it back. It is renewed also whenever a connection to Redis was
/// opened, which may lead to another server, and soon after a renewal failed.
pub async fn keep(state: AppState) {
    let mut ticks = interval(limits::GATEWAY_LEASE_RENEWAL);
    let mut links = state.inboxes.links_opened();
    let (mut missing, mut has_failed) = (None, false);
    let mut rounds = FuturesUnordered::new();
    loop {
        // Cancel safe: each branch only waits, and a round is kept across turns.
        tokio::select! {
            () = state.tasks.draining().cancelled() => break,
            _ = ticks.tick() => {}
            Ok(()) = links.changed() => {}
            () = sleep(RENEW_AGAIN), if has_failed => {}
            Some(left) = rounds.next() => {
                missing = missing.max(left);
                continue;
            }
        }
        match state.inboxes.renew_lease(state.gateway_id).await {
            Ok(lease) => {
                has_failed = false;
                let found = if lease == Lease::Taken { Missing::All } else { Missing::Unregistered };
                missing = missing.max(Some(found));
            }
            Err(error) => {
                if !has_failed {
                    tracing::warn!(%error, "the gateway's lease could not be renewed");
                }
                has_failed = true;
            }
        }
        if !has_failed && rounds.is_empty() {
            rounds.extend(missing.take().map(|which| bring_back(&state, which)));
        }
    }
    // If it fails the lease runs out by itself.
    let _released = state.inboxes.release_lease(state.gateway_id).await;
}

/// Registers connections in place; what is left to be done if Redis fails again.
async fn bring_back(state: &AppState, which: Missing) -> Option<Missing> {
    let mut connections = state.connections.all();
    connections.retain(|connection| which == Missing::All || connection.is_unregistered());
    if connections.is_empty() {
        return None;
    }
    if which == Missing::All {
        state.revocations.look_soon();
    }
    let count = connections.len();
    let has_failed = AtomicBool::new(false);
    let lost: Vec<_> = stream::iter(connections)
        .map(|connection| bring_one_back(state, connection, &has_failed))
        .buffer_unordered(RETURNS_MAX)
        .filter_map(std::future::ready)
        .collect()
        .await;
    tracing::warn!(connections = count, lost = lost.len(), "connections were registered in Redis again");
    tell_to_reload(state, lost);
    has_failed.into_inner().then_some(which)
}

/// The connection, if its client has to reload.
async fn bring_one_back(
    state: &AppState,
    connection: Arc<Connection>,
    has_failed: &AtomicBool,
) -> Option<Arc<Connection>> {
    // After a failure the others are left to the next round.
    if has_failed.load(Ordering::Relaxed) {
        return None;
    }
    match connection.register_again(state).await {
        Ok(Returned::Lost) => Some(connection),
        // An inbox that can't be used concerns its user only, and is reset when the client comes back.
        Err(error) if error.is_of_user() => Some(connection),
        Ok(Returned::Intact | Returned::Passed) => None,
        Err(error) => {
            if !has_failed.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "a connection could not be registered again");
            }
            None
        }
    }
}

/// Ends connections whose inboxes are lost, spread over time: else all their clients would reload at once. One that is
/// delivered something meanwhile ends at that moment.
fn tell_to_reload(state: &AppState, lost: Vec<Arc<Connection>>) {
    let Some(distance) = u32::try_from(lost.len()).ok().and_then(|count| RELOADS_WITHIN.checked_div(count)) else {
        return;
    };
    let mut ticks = interval(distance.min(RELOAD_INTERVAL));
    let draining = state.tasks.draining().clone();
    state.tasks.best_effort("reloads", async move {
        for connection in lost {
            // Cancel safe: it only waits. At the end all are sent away.
            if draining.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
            }
            connection.close(CloseCode::InboxLost);
        }
    });
}
