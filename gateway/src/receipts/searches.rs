//! Whose turn it is to have a message looked for, since the gateway doesn't know its number.
//!
//! **Invariant:** a user has one search at a time, so that nobody who marks at random takes PostgreSQL's connections, or the
//! others' turns, from everybody else.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chat_shared::ids::UserId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::refusal::Refusal;

/// Searches at the same time.
const SEARCHES_MAX: usize = 4;
/// Searches of one user, the one under way included. One more is refused.
const OF_USER_MAX: usize = 16;
/// When whoever has too many may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The searches, and those that wait.
pub(super) struct Searches {
    all: Semaphore,
    /// Only users with a search are in it; their number is bounded by that of the marks that wait.
    users: Mutex<HashMap<UserId, Searching>>,
}

/// A user with searches.
struct Searching {
    one: Arc<Semaphore>,
    count: usize,
}

/// The right to search.
pub(super) struct Turn<'a> {
    _any: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _waiting: Waiting<'a>,
}

/// One search of a user, from when it is asked for.
struct Waiting<'a> {
    searches: &'a Searches,
    user_id: UserId,
}

impl Default for Searches {
    fn default() -> Self {
        Self { all: Semaphore::new(SEARCHES_MAX), users: Mutex::default() }
    }
}

impl Searches {
    /// Waits for the user's turn. Refused if they have too many searches.
    pub(super) async fn turn(&self, user_id: UserId) -> Result<Turn<'_>, Refusal> {
        let (waiting, one) = self.wait(user_id).ok_or_else(|| Refusal::rate_limited(RETRY_AFTER))?;
        // The user's own first: who waits for it holds up nobody else.
        let own = one.acquire_owned().await.map_err(|error| Refusal::internal(&error))?;
        let any = self.all.acquire().await.map_err(|error| Refusal::internal(&error))?;
        Ok(Turn { _any: any, _own: own, _waiting: waiting })
    }

    fn wait(&self, user_id: UserId) -> Option<(Waiting<'_>, Arc<Semaphore>)> {
        let mut users = self.users.lock();
        let new = || Searching { one: Arc::new(Semaphore::new(1)), count: 0 };
        let user = users.entry(user_id).or_insert_with(new);
        if user.count >= OF_USER_MAX {
            return None;
        }
        user.count += 1;
        Some((Waiting { searches: self, user_id }, Arc::clone(&user.one)))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut users = self.searches.users.lock();
        let Some(user) = users.get_mut(&self.user_id) else { return };
        user.count -= 1;
        if user.count == 0 {
            users.remove(&self.user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;
    use futures_util::{FutureExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn who_searches_much_takes_no_turn_from_others_and_is_refused_in_the_end() {
        let (searches, greedy) = (Searches::default(), UserId::random());
        let under_way = searches.turn(greedy).await.unwrap();
        let mut waiting: Vec<_> = (1..OF_USER_MAX).map(|_| Box::pin(searches.turn(greedy))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()), "one at a time");
        assert_eq!(searches.turn(greedy).await.err().unwrap().code, ErrorCode::RateLimited);
        let others: Vec<_> = join_all((1..SEARCHES_MAX).map(|_| searches.turn(UserId::random()))).await;
        assert!(others.iter().all(Result::is_ok), "all other turns are for others");
        assert!(searches.turn(UserId::random()).now_or_never().is_none(), "and there are no more than those");
        drop((under_way, others));
        assert!(waiting.remove(0).await.is_ok());
        drop(waiting);
        assert!(searches.users.lock().is_empty(), "nothing is kept of who searches no more");
    }
}
