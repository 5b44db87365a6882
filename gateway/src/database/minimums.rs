//! What replicas must have replayed before they are read from, for a user or a business. It is kept in Redis, since the next
//! request may come to another gateway.

use std::time::{Duration, Instant};

use chat_shared::{
    inbox::{InboxError, Inboxes},
    position::Lsn,
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

/// How long Redis may take to say what a user has to see.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(250);

/// The minimum LSNs, as far as Redis has them.
pub struct Minimums {
    inboxes: Inboxes,
    lag_max: Duration,
    state: Mutex<State>,
}

struct State {
    /// Connections to Redis so far: the server of another one may have lost its data.
    links: watch::Receiver<u64>,
    /// Until then a minimum may be missing that a replica could still lack.
    doubted_until: Option<Instant>,
}

/// Redis can't say it, or may have forgotten it.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// It does not answer.
    #[error(transparent)]
    Redis(#[from] InboxError),
    /// Some may not have reached it.
    #[error("a minimum may be missing")]
    Doubted,
}

impl Minimums {
    /// In Redis. `lag_max` is the most that a replica is behind that is read from, so after it no minimum is missed.
    pub fn new(inboxes: Inboxes, lag_max: Duration) -> Self {
        let state = State { links: inboxes.links_opened(), doubted_until: None };
        Self { inboxes, lag_max, state: Mutex::new(state) }
    }

    /// The highest of these users and businesses, given by id; none if all replicas will do.
    pub async fn of(&self, ids: &[Uuid]) -> Result<Option<Lsn>, Unknown> {
        let lsn = timeout(ANSWER_WAIT_MAX, self.inboxes.lsn_min(ids)).await.unwrap_or(Err(InboxError::TimedOut))?;
        // After the question, which may have opened the connection.
        let (now, mut state) = (Instant::now(), self.state.lock());
        if state.links.has_changed().unwrap_or(true) {
            state.links.mark_unchanged();
            state.doubted_until = Some(now + self.lag_max);
        }
        if state.doubted_until.is_some_and(|until| now < until) { Err(Unknown::Doubted) } else { Ok(lsn) }
    }

    /// Raises those of users and businesses. If Redis does not take it, this gateway reads from the primary for as long as a
    /// replica may lack the change.
    pub async fn raise(&self, ids: &[Uuid], lsn: Lsn) {
        if let Err(error) = self.inboxes.raise_lsn_min(ids, lsn).await {
            tracing::debug!(%error, "lists come from the primary until replicas surely have a change");
            self.doubt();
        }
    }

    /// Some may be missing from now on, for as long as a replica may lack what they stand for.
    pub fn doubt(&self) {
        self.state.lock().doubted_until = Some(Instant::now() + self.lag_max);
    }
}
