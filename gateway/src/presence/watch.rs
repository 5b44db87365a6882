//! Lets connections watch users' presence, and pushes what changes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chat_shared::{
    delivery::PresenceChange,
    event::{Event, Fact},
    ids::{SessionId, UserId},
    inbox::Seen,
    limits,
    wire::{Presence, Push},
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    authorise::{allowed, authorise},
    lists::{Allowed, Lists, Pushes, Suspect},
};
use crate::{connection::Connection, distinct::distinct, refusal::Refusal, state::AppState, telemetry};

/// Lists that are authorised again by one statement.
const AUTHORISED_TOGETHER_MAX: usize = 32;
/// Statements at a time.
const STATEMENTS_MAX: usize = 4;
/// How long to wait when something could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// How often everything watched is read again unasked, for the case that an announcement was lost unseen.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);

/// Who watches whom on this gateway.
#[derive(Default)]
pub struct Watches {
    lists: Mutex<Lists<Arc<Connection>>>,
    suspected: Notify,
    stale: Notify,
}

/// A list that is authorised and read, to be put in place once the command has been answered.
pub struct Prepared {
    list: Vec<UserId>,
    looked: Looked,
}

/// What was found of users.
#[derive(Default)]
struct Looked {
    read: Vec<Seen>,
    /// Who of them is shown as away all the same.
    hidden: HashSet<UserId>,
}

impl Watches {
    /// Makes the list that a connection asks for; until it begins, the earlier one stays.
    pub async fn prepare(
        &self,
        state: &AppState,
        connection: &Arc<Connection>,
        user_ids: Vec<UserId>,
    ) -> Result<Prepared, Refusal> {
        let list = checked(user_ids)?;
        state.rate.check_watch(connection.user_id)?;
        // First, so that nothing is missed between reading and beginning.
        self.lists.lock().prepare(connection.session_id, connection.user_id, Arc::clone(connection), &list);
        match look(state, connection.user_id, &list).await {
            Ok(looked) => Ok(Prepared { list, looked }),
            Err(refusal) => {
                self.lists.lock().give_up(connection.session_id, &list);
                self.suspected.notify_one();
                Err(refusal)
            }
        }
    }

    /// Puts the list in place, and pushes how all of them are.
    pub fn begin(&self, connection: &Connection, prepared: &Prepared) {
        let mut lists = self.lists.lock();
        let Prepared { list, looked: Looked { read, hidden } } = prepared;
        push(lists.replace(connection.session_id, list, hidden, read));
        note_pairs(&lists);
        drop(lists);
        // A removal may have come while the list was made.
        self.suspected.notify_one();
    }

    /// Forgets what a connection watches.
    pub fn forget(&self, session_id: SessionId) {
        let mut lists = self.lists.lock();
        lists.forget(session_id);
        note_pairs(&lists);
    }

    /// Takes in what was announced, and pushes it to those whom it concerns.
    pub fn learn(&self, changes: &[PresenceChange]) {
        push(self.lists.lock().learn(changes));
    }

    /// Looks for users whom somebody must not watch any more, if an event is a reason to.
    pub fn check(&self, state: &AppState, event: &Event) {
        if !matches!(&event.fact, Fact::ParticipantsChanged(change) if !change.removed.is_empty()) {
            return;
        }
        self.suspect(state, event.audience());
    }

    /// Looks whether the connections of users may still watch whom they watch.
    pub fn suspect(&self, state: &AppState, user_ids: impl IntoIterator<Item = UserId>) {
        let connections = user_ids.into_iter().flat_map(|user_id| state.connections.of(user_id));
        let mut lists = self.lists.lock();
        connections.for_each(|connection| lists.suspect(connection.session_id));
        drop(lists);
        self.suspected.notify_one();
    }

    /// Pushes nothing to anybody until `suspect_all`, which has to follow.
    pub fn withhold_all(&self) {
        self.lists.lock().withhold_all();
    }

    /// Looks whether everybody may still watch whom they watch: a removal or a block may have gone unheard.
    pub fn suspect_all(&self) {
        self.lists.lock().suspect_all();
        self.suspected.notify_one();
    }

    /// Pairs of a connection and a user whom it watches.
    #[cfg(test)]
    pub fn pairs(&self) -> usize {
        self.lists.lock().pairs()
    }

    /// Says that announcements may have been lost.
    pub fn refresh(&self) {
        self.stale.notify_one();
    }
}

/// What is pushed is pushed under the lock, so that it is pushed in order.
fn push(pushes: Pushes<Arc<Connection>>) {
    for (connection, users) in pushes {
        let count = u64::try_from(users.len()).unwrap_or(u64::MAX);
        metrics::counter!(telemetry::PRESENCE_PUSHED_TOTAL).increment(count);
        connection.tell(&Push::Presence { users });
    }
}

fn note_pairs(lists: &Lists<Arc<Connection>>) {
    metrics::gauge!(telemetry::WATCHES).set(f64::from(u32::try_from(lists.pairs()).unwrap_or(u32::MAX)));
}

/// Each user once, and not too many.
fn checked(user_ids: Vec<UserId>) -> Result<Vec<UserId>, Refusal> {
    let user_ids = distinct(user_ids);
    if user_ids.len() > limits::PRESENCE_USERS_MAX {
        return Err(Refusal::invalid(format!("{} users at the most", limits::PRESENCE_USERS_MAX)));
    }
    Ok(user_ids)
}

/// The presence of users as somebody asks for it who has to share a conversation with each.
async fn look(state: &AppState, user_id: UserId, list: &[UserId]) -> Result<Looked, Refusal> {
    if list.is_empty() {
        return Ok(Looked::default());
    }
    let hidden = authorise(&state.database, user_id, list).await?;
    let read = state.inboxes.presence(list).await.map_err(|error| Refusal::unavailable("presence", &error))?;
    Ok(Looked { read, hidden })
}

/// The presence of users, for somebody who asks once.
pub async fn presence_of(state: &AppState, user_id: UserId, user_ids: Vec<UserId>) -> Result<Vec<Presence>, Refusal> {
    let Looked { read, hidden } = look(state, user_id, &checked(user_ids)?).await?;
    let shown = |Seen { presence, .. }: Seen| {
        let is_shown = !hidden.contains(&presence.user_id);
        if is_shown { presence } else { Presence { is_online: false, last_seen_at: None, ..presence } }
    };
    Ok(read.into_iter().map(shown).collect())
}

/// Authorises lists again after removals, until the gateway drains.
pub async fn keep_authorised(state: AppState) {
    let (watches, draining) = (&state.watches, state.tasks.draining());
    // Cancel safe: whoever drains sends all connections away.
    while draining.run_until_cancelled(watches.suspected.notified()).await.is_some() {
        let batches = batches(watches.lists.lock().take_suspects());
        let checking = batches.into_iter().map(async |suspects| check_again(&state, &suspects).await);
        let checked: Vec<bool> = stream::iter(checking).buffer_unordered(STATEMENTS_MAX).collect().await;
        if checked.contains(&false) {
            let _waited = draining.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            watches.suspected.notify_one();
        }
    }
}

fn batches(mut suspects: Vec<Suspect>) -> Vec<Vec<Suspect>> {
    let mut batches = Vec::with_capacity(suspects.len().div_ceil(AUTHORISED_TOGETHER_MAX));
    while !suspects.is_empty() {
        batches.push(suspects.split_off(suspects.len().saturating_sub(AUTHORISED_TOGETHER_MAX)));
    }
    batches
}

/// False if they could not be looked up; then they are suspect as before.
async fn check_again(state: &AppState, suspects: &[Suspect]) -> bool {
    let asked: Vec<_> = suspects.iter().map(|suspect| (suspect.user_id, &suspect.list[..])).collect();
    let found = allowed(&state.database, &asked).await;
    let mut lists = state.watches.lists.lock();
    let Ok(allowed) = found else {
        for suspect in suspects {
            lists.suspect(suspect.session_id);
        }
        return false;
    };
    let nobody = Allowed::default();
    for suspect in suspects {
        push(lists.settle(suspect, allowed.get(&suspect.user_id).unwrap_or(&nobody)));
    }
    note_pairs(&lists);
    true
}

/// Reads presence again whenever announcements may have been lost, and now and then, until the gateway drains.
pub async fn keep_fresh(state: AppState) {
    let (watches, draining) = (&state.watches, state.tasks.draining());
    let mut wait = REFRESH_INTERVAL;
    loop {
        // Cancel safe: each branch only waits.
        tokio::select! {
            () = draining.cancelled() => return,
            () = watches.stale.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = match read_all(&state).await {
            Ok(false) => REFRESH_INTERVAL,
            Ok(true) => limits::PRESENCE_GRACE,
            Err(_) => RETRY,
        };
    }
}

/// Reads the presence of everybody who is watched; true if it is to be read again soon.
async fn read_all(state: &AppState) -> Result<bool, chat_shared::inbox::InboxError> {
    let watched = state.watches.lists.lock().watched();
    let mut is_unsettled = false;
    for some in watched.chunks(limits::PRESENCE_USERS_MAX) {
        let read = state.inboxes.presence(some).await?;
        let mut lists = state.watches.lists.lock();
        let (pushes, is_some_unsettled) = lists.learn_read(&read);
        push(pushes);
        is_unsettled |= is_some_unsettled;
    }
    Ok(is_unsettled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_named_twice_count_once_and_too_many_are_refused() {
        let many: Vec<_> = std::iter::repeat_with(UserId::random).take(limits::PRESENCE_USERS_MAX).collect();
        let twice = [many.clone(), many.clone()].concat();
        assert_eq!(checked(twice).unwrap(), many);
        let more = [many, vec![UserId::random()]].concat();
        assert_eq!(checked(more).unwrap_err().code, chat_shared::wire::ErrorCode::Invalid);
    }
}
