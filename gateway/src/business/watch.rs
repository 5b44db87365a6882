//! Pushes the availability of businesses, and to their staff the queue, to the connections that watch them (R7.1, R7.3).
//!
//! One task looks at the watched businesses and pushes what has changed, so the pushes of a business are in order.

mod lists;

use std::{collections::HashSet, sync::Arc, time::Duration};

use chat_shared::{
    delivery::{Delivery, PresenceChange, all_gateways_subject},
    ids::{BusinessId, SessionId},
    limits,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::lists::{Lists, Pushes};
use super::{Businesses, look::LOOKED_AT_TOGETHER_MAX, staff::NotConfirmed, store};
use crate::{
    connection::Connection, delivery::publish, distinct::distinct, refusal::Refusal, state::AppState, telemetry,
};

/// How often changes are announced, and businesses looked at that have changed.
const TICK: Duration = Duration::from_millis(500);
/// Changed businesses of one announcement.
const ANNOUNCED_TOGETHER_MAX: usize = 1000;
/// Changed businesses that wait for their announcement. One more is looked at when its time comes.
const CHANGED_MAX: usize = 10_000;

/// The connections of this gateway that watch businesses, and the businesses that this gateway has changed.
#[derive(Default)]
pub(super) struct Watches {
    lists: Mutex<Lists<Arc<Connection>>>,
    changed: Mutex<HashSet<BusinessId>>,
}

impl Businesses {
    /// Replaces the businesses that a connection watches. Their states are pushed after `answer`.
    pub async fn watch(
        &self,
        connection: &Arc<Connection>,
        business_ids: Vec<BusinessId>,
        answer: impl FnOnce(),
    ) -> Result<(), Refusal> {
        let list = checked(business_ids)?;
        if !list.is_empty() {
            let mut database = self.database.connection().await?;
            if store::count(&mut database, &list).await? < list.len() {
                return Err(Refusal::no_such_business());
            }
        }
        answer();
        let mut lists = self.watches.lists.lock();
        for business_id in lists.list_of(connection.session_id) {
            connection.take_back_business(*business_id);
        }
        push(lists.replace(connection.session_id, connection.user_id, connection, &list, Instant::now()));
        note_pairs(&lists);
        Ok(())
    }

    /// Forgets the businesses that a connection watches.
    pub fn forget_watches(&self, session_id: SessionId) {
        let mut lists = self.watches.lists.lock();
        lists.forget(session_id);
        note_pairs(&lists);
    }

    /// Lets changed businesses be looked at soon. With `of_staff`, states that were found before are neither pushed nor written
    /// any more.
    pub fn learn_changed(&self, business_ids: &[BusinessId], of_staff: bool) {
        let mut lists = self.watches.lists.lock();
        for business_id in business_ids {
            lists.changed(*business_id, of_staff, Instant::now());
            if of_staff {
                lists.watchers(*business_id).for_each(|connection| connection.take_back_business(*business_id));
            }
        }
    }

    /// Drops the known states of all watched businesses: a change of their staff may have been lost.
    pub fn look_again_at_all(&self) {
        self.watches.lists.lock().all_changed(Instant::now());
    }

    /// Lets the businesses be looked at soon whose staff came or went.
    pub fn learn_presence(&self, changes: &[PresenceChange]) {
        let mut lists = self.watches.lists.lock();
        for change in changes {
            lists.came_or_went(change.presence.user_id, Instant::now());
        }
    }

    /// Whether a change lets a watched business be looked at before its time.
    #[cfg(test)]
    pub fn is_looked_at_early(&self, business_id: BusinessId) -> bool {
        self.watches.lists.lock().is_looked_at_early(business_id)
    }

    /// Lets all gateways look soon at a business that this one has changed.
    pub(super) fn note_changed(&self, business_id: BusinessId) {
        let mut changed = self.watches.changed.lock();
        if changed.len() < CHANGED_MAX {
            changed.insert(business_id);
        }
    }

    /// Waits until no gateway pushes the queue of a business to former members of its staff.
    pub(super) async fn announce_staff(&self, business_id: BusinessId) -> Result<(), Refusal> {
        let delivery = Delivery::BusinessesChanged { business_ids: vec![business_id], of_staff: true };
        let is_confirmed = self.gateways.tell(&delivery).await;
        if is_confirmed { Ok(()) } else { Err(Refusal::unavailable("a gateway", &NotConfirmed)) }
    }

    /// Looks at watched businesses whose time has come, and pushes what has changed.
    pub async fn look_at_watched(&self) {
        let due = self.watches.lists.lock().take_due(Instant::now());
        for some in due.chunks(LOOKED_AT_TOGETHER_MAX) {
            let ids: Vec<_> = some.iter().map(|due| due.business_id).collect();
            let looks = self.look(&ids).await;
            let mut lists = self.watches.lists.lock();
            match looks {
                Ok(looks) => push(lists.learn(some, looks, Instant::now())),
                Err(refusal) => {
                    tracing::debug!(%refusal, "watched businesses can't be looked at now, trying again");
                    lists.give_back(some, Instant::now());
                }
            }
        }
    }
}

/// Announces changes of this gateway and looks at watched businesses, until the gateway drains.
pub async fn run(state: AppState) {
    let draining = state.tasks.draining();
    // Cancel safe: connections are sent away when the gateway drains, and watch again at another one.
    while draining.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        announce_changed(&state).await;
        if draining.run_until_cancelled(state.businesses.look_at_watched()).await.is_none() {
            return;
        }
    }
}

/// Announces to all gateways which businesses this one has changed.
pub async fn announce_changed(state: &AppState) {
    let changed: Vec<_> = std::mem::take(&mut *state.businesses.watches.changed.lock()).into_iter().collect();
    for some in changed.chunks(ANNOUNCED_TOGETHER_MAX) {
        let delivery = Delivery::BusinessesChanged { business_ids: some.to_vec(), of_staff: false };
        publish(state, all_gateways_subject(&state.namespace), &delivery).await;
    }
}

/// Each business once, and not too many.
fn checked(business_ids: Vec<BusinessId>) -> Result<Vec<BusinessId>, Refusal> {
    let business_ids = distinct(business_ids);
    if business_ids.len() > limits::WATCHED_BUSINESSES_MAX {
        return Err(Refusal::invalid(format!("`business_ids`: at most {}", limits::WATCHED_BUSINESSES_MAX)));
    }
    Ok(business_ids)
}

/// Pushes under the lock of the lists, so that the pushes of a business are in order.
fn push(pushes: Pushes<Arc<Connection>>) {
    metrics::counter!(telemetry::BUSINESSES_PUSHED_TOTAL).increment(pushes.len() as u64);
    for (connection, business) in pushes {
        connection.push_business(business);
    }
}

fn note_pairs(lists: &Lists<Arc<Connection>>) {
    metrics::gauge!(telemetry::BUSINESS_WATCHES).set(f64::from(u32::try_from(lists.pairs()).unwrap_or(u32::MAX)));
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    #[test]
    fn businesses_named_twice_count_once_and_too_many_are_refused() {
        let many: Vec<_> = std::iter::repeat_with(BusinessId::random).take(limits::WATCHED_BUSINESSES_MAX).collect();
        assert_eq!(checked([many.clone(), many.clone()].concat()).unwrap(), many);
        let more = [many, vec![BusinessId::random()]].concat();
        assert_eq!(checked(more).unwrap_err().code, ErrorCode::Invalid);
    }
}
