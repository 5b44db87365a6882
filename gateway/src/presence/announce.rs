//! Tells all gateways, this one included, who came and who went.
//!
//! Changes gather for a moment and travel together. What NATS doesn't take is kept and published later.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use chat_shared::{
    delivery::{Delivery, PresenceChange, all_gateways_subject},
    ids::UserId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{delivery, state::AppState, telemetry};

/// How long changes gather.
const GATHER: Duration = Duration::from_millis(50);
/// How long to wait when NATS takes nothing.
const RETRY: Duration = Duration::from_secs(1);
/// Users whose changes wait. Over it a change is dropped and counted; watchers see it when presence is read again.
const WAITING_MAX: usize = 50_000;
/// Changes of one message: about a tenth of what NATS takes.
const MESSAGE_CHANGES_MAX: usize = 1000;

/// The changes that are still to be announced: the newest of each user.
#[derive(Default)]
pub struct Announcer {
    waiting: Mutex<HashMap<UserId, PresenceChange>>,
    rung: Notify,
}

/// Whether a change says something later than another one. Of two with one number, as different readings of Redis may be,
/// the one that shows the user counts.
pub fn supersedes(change: &PresenceChange, known: &PresenceChange) -> bool {
    let order = |change: &PresenceChange| (change.at, change.presence.is_online);
    order(change) > order(known)
}

impl Announcer {
    /// Announces a change soon.
    pub fn announce(&self, change: PresenceChange) {
        self.keep(change);
        self.rung.notify_one();
    }

    fn keep(&self, change: PresenceChange) {
        let mut waiting = self.waiting.lock();
        let count = waiting.len();
        match waiting.entry(change.presence.user_id) {
            Entry::Occupied(mut known) if supersedes(&change, known.get()) => {
                known.insert(change);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) if count < WAITING_MAX => {
                free.insert(change);
            }
            Entry::Vacant(_) => metrics::counter!(telemetry::PRESENCE_DROPPED_TOTAL).increment(1),
        }
    }

    /// Publishes what waits. False if NATS didn't take all of it; then the rest waits on.
    pub async fn publish(&self, state: &AppState) -> bool {
        let changes: Vec<_> = std::mem::take(&mut *self.waiting.lock()).into_values().collect();
        let mut is_taken = true;
        for some in changes.chunks(MESSAGE_CHANGES_MAX) {
            let subject = all_gateways_subject(&state.namespace);
            is_taken = is_taken && delivery::publish(state, subject, &Delivery::PresenceChanged(some.to_vec())).await;
            if is_taken {
                let count = u64::try_from(some.len()).unwrap_or(u64::MAX);
                metrics::counter!(telemetry::PRESENCE_ANNOUNCED_TOTAL).increment(count);
            } else {
                for change in some {
                    self.keep(*change);
                }
            }
        }
        is_taken
    }
}

/// Announces until the gateway stops.
pub async fn announce(state: AppState) {
    let stopping = state.tasks.stopping();
    let announcer = &state.announcer;
    // Cancel safe: what waits is published at the end.
    while stopping.run_until_cancelled(announcer.rung.notified()).await.is_some() {
        let _gathered = stopping.run_until_cancelled(tokio::time::sleep(GATHER)).await;
        if !announcer.publish(&state).await {
            let _waited = stopping.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            announcer.rung.notify_one();
        }
    }
    announcer.publish(&state).await;
}

#[cfg(test)]
mod tests {
    use chat_shared::{clock::Timestamp, wire::Presence};

    use super::*;

    #[test]
    fn of_several_changes_of_a_user_the_latest_is_announced_r8_1() {
        let announcer = Announcer::default();
        let [ana, ben] = [UserId::random(), UserId::random()];
        let change = |user_id, is_online, at| PresenceChange {
            presence: Presence { user_id, is_online, last_seen_at: None },
            at: Timestamp(at),
        };
        let said = [change(ana, true, 1), change(ana, false, 3), change(ana, true, 2), change(ben, true, 5)];
        said.into_iter().chain([change(ben, false, 5)]).for_each(|change| announcer.announce(change));
        let waiting = announcer.waiting.lock();
        assert_eq!(waiting[&ana], change(ana, false, 3));
        assert_eq!(waiting[&ben], change(ben, true, 5), "coming and going in one millisecond");
    }
}
