//! What the end of a session sets going: the user is offline, at once or after a while; what nobody confirmed may have to
//! be notified; and when nothing is left to be settled the user is detached from this gateway.
//!
//! What fails is kept and tried again. What is still to be settled when the gateway ends is left to whoever finds its lease
//! run out: the user is attached until then.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use chat_shared::{
    delivery::{Delivery, PresenceChange, gateway_subject},
    ids::{SessionId, UserId},
    inbox::{Departure, Ended, InboxError, Inboxes},
    jobs::{Added, Job, Jobs},
    limits,
    position::Cursor,
    wire::Presence,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{deadlines::Deadlines, delivery, state::AppState, telemetry};

/// How long ends gather until they are settled together.
const GATHER: Duration = Duration::from_millis(50);
/// How long to wait when something could not be settled.
const RETRY: Duration = Duration::from_secs(1);
/// Ends of each sort that wait; more than a gateway has connections. What happens over it stands where it is counted.
const WAITING_MAX: usize = 50_000;
/// Jobs that are added, and sessions that are removed, at a time.
const TOGETHER_MAX: usize = 128;
/// Users who are detached at a time.
const DETACHED_MAX: usize = 1000;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The client said goodbye, or was silent for longer than one who comes back.
    Final,
    /// It broke, or was ended here: the client may be on its way back.
    Broken,
}

/// A session that has ended.
#[derive(Debug, Clone, Copy)]
pub struct EndedSession {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub session_id: SessionId,
}

/// What is still to be settled of sessions that ended here.
pub struct Departures {
    queue: Jobs,
    unsettled: Mutex<Unsettled>,
    rung: Notify,
}

#[derive(Default)]
struct Unsettled {
    /// Users whose last connection broke. When they are due it is looked whether they are back.
    away: Deadlines<UserId>,
    /// Sessions that Redis has not been seen to remove.
    registered: VecDeque<EndedSession>,
    /// What is still to be put in the queue of notifications.
    jobs: VecDeque<Job>,
    /// Users to be detached, unless they are here again.
    settled: HashSet<UserId>,
}

impl Departures {
    /// None yet; jobs go to `queue`.
    pub fn new(queue: Jobs) -> Self {
        Self { queue, unsettled: Mutex::default(), rung: Notify::new() }
    }

    /// Removes a session that has ended, and settles what that leads to.
    ///
    /// Whom a gateway sends away because it stops is on the way to another one, and neither gone nor to be notified for
    /// as long as its lease runs on: the session stays until it is replaced, or found with the gateway.
    pub async fn end(&self, state: &AppState, session: EndedSession, parting: Parting) {
        if parting == Parting::Broken && state.tasks.draining().is_cancelled() {
            return;
        }
        match state.inboxes.unregister(session.user_id, Ended::Session(session.session_id)).await {
            Ok(departure) => {
                self.departed(state, session, departure, parting);
                if let Some(unconfirmed) = departure.unconfirmed.filter(|_| departure.left > 0) {
                    await_confirmations(state, session.user_id, unconfirmed.up_to).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a session could not be removed; it is tried again");
                self.keep(session);
            }
        }
        self.rung.notify_one();
    }

    /// Keeps a session to be removed later. Over the bound it stays until its device connects again or this gateway ends.
    fn keep(&self, session: EndedSession) {
        let mut unsettled = self.unsettled.lock();
        if unsettled.registered.len() < WAITING_MAX {
            unsettled.registered.push_back(session);
        } else {
            tracing::warn!("too many sessions wait to be removed; one is left registered");
        }
    }

    fn departed(&self, state: &AppState, session: EndedSession, departure: Departure, parting: Parting) {
        let user_id = session.user_id;
        let mut unsettled = self.unsettled.lock();
        if let Some(unconfirmed) = departure.unconfirmed {
            unsettled.add_job(Job::session_ended(user_id, unconfirmed));
        }
        if departure.left > 0 {
            // They are there all the same; if on a gateway that died, whoever settles that one says so.
            unsettled.settle(user_id);
        } else if parting == Parting::Broken && unsettled.away.len() < WAITING_MAX {
            unsettled.away.set(user_id, Instant::now() + limits::PRESENCE_GRACE);
        } else {
            // If this didn't remove it, whoever did announces.
            if departure.removed > 0 {
                let presence = Presence { user_id, is_online: false, last_seen_at: Some(departure.now) };
                state.announcer.announce(PresenceChange { presence, at: departure.at });
            }
            unsettled.away.remove(user_id);
            unsettled.settle(user_id);
        }
    }

    /// Settles what can be. False if something has to be tried again.
    async fn settle(&self, state: &AppState) -> bool {
        let is_added = self.add_jobs().await;
        let is_removed = self.remove_registered(state).await;
        let is_looked = self.look_for_away(state).await;
        let is_detached = self.detach(state).await;
        is_added && is_removed && is_looked && is_detached
    }

    async fn add_jobs(&self) -> bool {
        loop {
            let jobs: Vec<_> = self.unsettled.lock().jobs.iter().take(TOGETHER_MAX).cloned().collect();
            if jobs.is_empty() {
                return true;
            }
            match self.queue.add(&jobs).await {
                Ok(added) => {
                    let dropped = if let Added::Dropped(dropped) = added { dropped } else { 0 };
                    count(telemetry::SESSION_ENDED_JOBS_TOTAL, jobs.len().saturating_sub(dropped));
                    count(telemetry::SESSION_ENDED_JOBS_LOST_TOTAL, dropped);
                    // Only this task takes jobs; others only put them behind these.
                    self.unsettled.lock().jobs.drain(..jobs.len());
                }
                Err(error) => {
                    tracing::warn!(%error, jobs = jobs.len(), "the ends of sessions can't be queued; it is tried again");
                    return false;
                }
            }
        }
    }

    async fn remove_registered(&self, state: &AppState) -> bool {
        loop {
            let sessions: Vec<_> = {
                let registered = &mut self.unsettled.lock().registered;
                let count = registered.len().min(TOGETHER_MAX);
                registered.drain(..count).collect()
            };
            if sessions.is_empty() {
                return true;
            }
            let removing = sessions.into_iter().map(async |session| self.remove_again(state, session).await);
            let outcomes: Vec<bool> = stream::iter(removing).buffer_unordered(TOGETHER_MAX).collect().await;
            if outcomes.contains(&false) {
                return false;
            }
        }
    }

    async fn remove_again(&self, state: &AppState, session: EndedSession) -> bool {
        let Ok(departure) = unregister(&state.inboxes, session).await else {
            self.keep(session);
            return false;
        };
        self.departed(state, session, departure, Parting::Broken);
        true
    }

    /// Announces those who broke off a while ago and aren't back.
    async fn look_for_away(&self, state: &AppState) -> bool {
        loop {
            let now = Instant::now();
            let due: Vec<_> = {
                let away = &mut self.unsettled.lock().away;
                std::iter::from_fn(|| away.take_due(now)).take(limits::PRESENCE_USERS_MAX).collect()
            };
            if due.is_empty() {
                return true;
            }
            let seen = state.inboxes.presence(&due).await;
            let mut unsettled = self.unsettled.lock();
            let Ok(seen) = seen else {
                for user_id in due {
                    unsettled.away.set(user_id, now + RETRY);
                }
                return false;
            };
            for seen in seen {
                if !seen.presence.is_online {
                    state.announcer.announce(PresenceChange { presence: seen.presence, at: seen.at });
                }
                unsettled.settle(seen.presence.user_id);
            }
        }
    }

    /// Detaches those of whom nothing is left here, once what they set going has been announced.
    async fn detach(&self, state: &AppState) -> bool {
        let settled = std::mem::take(&mut self.unsettled.lock().settled);
        let gone: Vec<_> = settled.into_iter().filter(|user_id| self.is_gone(state, *user_id)).collect();
        let mut is_done = gone.is_empty() || state.announcer.publish(state).await;
        for users in gone.chunks(DETACHED_MAX) {
            is_done = is_done && state.inboxes.detach(state.gateway_id, users).await.is_ok();
            if !is_done {
                let mut unsettled = self.unsettled.lock();
                for user_id in users {
                    unsettled.settle(*user_id);
                }
            }
            // Who came meanwhile was shown here first and attached then, perhaps before the detachment.
            for user_id in users.iter().filter(|user_id| !self.is_gone(state, **user_id)) {
                if let Err(error) = state.inboxes.attach(state.gateway_id, *user_id).await {
                    tracing::warn!(%error, "a user could not be attached again");
                }
            }
        }
        is_done
    }

    fn is_gone(&self, state: &AppState, user_id: UserId) -> bool {
        state.connections.of(user_id).is_empty() && !self.unsettled.lock().away.contains(user_id)
    }
}

impl Unsettled {
    /// Notes that nothing of the user's last end is to be done but to detach them. Over the bound they stay attached,
    /// which does no harm.
    fn settle(&mut self, user_id: UserId) {
        if self.settled.len() < WAITING_MAX {
            self.settled.insert(user_id);
        }
    }

    fn add_job(&mut self, job: Job) {
        if self.jobs.len() < WAITING_MAX {
            self.jobs.push_back(job);
        } else {
            count(telemetry::SESSION_ENDED_JOBS_LOST_TOTAL, 1);
        }
    }
}

/// Has the user's other connections record what they have confirmed: a notification waits for that.
async fn await_confirmations(state: &AppState, user_id: UserId, up_to: Cursor) {
    // Without Redis there is no notification that could be too many.
    let Ok(gateways) = state.inboxes.gateways_of(&[user_id]).await else { return };
    for gateway_id in gateways.into_iter().flatten() {
        let subject = gateway_subject(&state.namespace, gateway_id);
        delivery::publish(state, subject, &Delivery::ConfirmationAwaited { user_id, up_to }).await;
    }
}

/// Removes a session that may have been removed before unseen; then what is unconfirmed is looked up.
async fn unregister(inboxes: &Inboxes, session: EndedSession) -> Result<Departure, InboxError> {
    let mut departure = inboxes.unregister(session.user_id, Ended::Session(session.session_id)).await?;
    if departure.removed == 0 && departure.left == 0 {
        departure.unconfirmed = inboxes.unconfirmed(&[session.user_id]).await?.into_iter().flatten().next();
    }
    Ok(departure)
}

fn count(name: &'static str, count: usize) {
    metrics::counter!(name).increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Settles until the gateway stops.
pub async fn settle(state: AppState) {
    let (departures, stopping) = (&state.departures, state.tasks.stopping());
    loop {
        let due = departures.unsettled.lock().away.next();
        // Cancel safe: each branch only waits.
        tokio::select! {
            () = stopping.cancelled() => break,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = departures.rung.notified() => {
                let _gathered = stopping.run_until_cancelled(tokio::time::sleep(GATHER)).await;
            }
        }
        if !departures.settle(&state).await {
            let _waited = stopping.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            departures.rung.notify_one();
        }
    }
    // Little time is left; what is only known here comes first.
    departures.add_jobs().await;
    departures.detach(&state).await;
}
