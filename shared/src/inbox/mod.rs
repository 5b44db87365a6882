//! Sessions and inboxes in Redis. Only this room knows Redis keys.
//!
//! All keys of a user carry the same hash tag, so a cluster keeps them together and every change is one
//! script. Entries are events as they stand in the log: sealed.
//!
//! **Invariant:** cursors of an epoch are dense. What was lost shows as another epoch or as a cursor
//! before the oldest entry, never as a hole.
//!
//! An inbox bears the run of the server that it was made in. In another run it may lack its last entries, or hold sessions
//! that have ended, so each script drops it there and goes on as if there were none. The same with a cursor beyond the head.

mod broken;
mod check;
mod delivered;
mod lease;
mod lsn_min;
mod notified;
mod presence;
mod read;
mod route;
mod sessions;

pub use check::{RedisProblem, RedisServer, RedisUnfit};
pub use lease::Lease;
pub use lsn_min::LSN_MIN_AGE_MAX;
pub use notified::{Claim, Notice, Occasion, Standing};
pub use presence::Seen;
pub use read::{InboxEntry, Page};
pub use route::{Routed, Routing};
pub use sessions::{Departure, Ended, Registration, Replaced, Session, Unconfirmed};

use std::time::Duration;

use tokio::sync::watch;

pub use crate::redis::RedisError as InboxError;
use crate::{
    ids::UserId,
    redis::{Link, Redis, bounded},
};

/// Devices of a user whose cursors are kept; the one furthest behind goes first.
const DEVICES_MAX: usize = 32;
/// The inboxes of all users.
#[derive(Clone)]
pub struct Inboxes {
    redis: Redis,
}

/// A user's keys.
struct Keys {
    meta: String,
    entries: String,
    sessions: String,
    devices: String,
    delivered: String,
}

impl Inboxes {
    /// Connects when it is first used, and again after every disconnection: Redis may be down now. Fails only if
    /// the address can't be understood.
    #[expect(clippy::unused_async, reason = "whoever connects to a server waits for it, now or one day")]
    pub async fn connect(url: &str, namespace: &str) -> Result<Self, InboxError> {
        Ok(Self::on(&Redis::open(url, namespace)?))
    }

    /// The inboxes that are reached by a connection.
    pub fn on(redis: &Redis) -> Self {
        Self { redis: redis.clone() }
    }

    /// Counts the connections to Redis that were opened: each may lead to another server, or to one that has lost data.
    pub fn links_opened(&self) -> watch::Receiver<u64> {
        self.redis.opened()
    }

    /// Removes what is kept of a user who is erased: the inbox, when they were last seen, what was notified. Sessions go with
    /// their connections, and then note nothing, since there is no inbox.
    pub async fn forget(&self, user_id: UserId) -> Result<(), InboxError> {
        let Keys { meta, entries, devices, delivered, .. } = self.keys(user_id);
        let mut keys = vec![meta, entries, devices, delivered];
        keys.extend(self.notified_keys(user_id));
        let mut delete = redis::cmd("DEL");
        delete.arg(keys);
        let mut redis = self.redis.link().await?;
        bounded(delete.exec_async(&mut redis)).await
    }

    fn keys(&self, user_id: UserId) -> Keys {
        let user = format!("{}:{{{}}}", self.redis.namespace(), user_id.as_uuid().simple());
        Keys {
            meta: format!("{user}:meta"),
            entries: format!("{user}:entries"),
            sessions: format!("{user}:sessions"),
            devices: format!("{user}:devices"),
            delivered: format!("{user}:delivered"),
        }
    }
}

/// Whether an inbox was made in another run of the server than the one that a connection leads to.
fn is_of_another_run(run: Option<&str>, link: &Link) -> bool {
    run.is_some_and(|run| run != link.run())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected_answer() -> InboxError {
    InboxError::Redis((redis::ErrorKind::UnexpectedReturnType, "the answer is not what the script gives").into())
}
