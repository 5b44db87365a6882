//! Sessions and inboxes in Redis. Only this room knows Redis keys.
//!
//! All keys of a user carry the same hash tag, so a cluster keeps them together and every change is one
//! script. Entries are events as they stand in the log: sealed.
//!
//! **Invariant:** cursors of an epoch are dense. What was lost shows as another epoch or as a cursor
//! before the oldest entry, never as a hole.

mod check;
mod delivered;
mod lease;
mod notified;
mod presence;
mod read;
mod route;
mod sessions;

pub use check::{RedisProblem, RedisUnfit};
pub use lease::Lease;
pub use notified::{Claim, Standing};
pub use presence::Seen;
pub use read::{InboxEntry, Page};
pub use route::{Routed, Routing};
pub use sessions::{Departure, Ended, Registration, Replaced, Session, Unconfirmed};

use std::{future::Future, time::Duration};

use redis::{
    IntoConnectionInfo,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use crate::{ids::UserId, limits};

/// Devices of a user whose cursors are kept; the one furthest behind goes first.
const DEVICES_MAX: usize = 32;
/// How long the network may swallow what was sent before the connection counts as lost. Time-outs of requests
/// alone never end a connection, since a slow Redis looks the same.
#[cfg(target_os = "linux")]
const DEAD_CONNECTION_MAX: Duration = Duration::from_secs(5);

/// The inboxes of all users.
#[derive(Clone)]
pub struct Inboxes {
    redis: ConnectionManager,
    namespace: String,
}

/// Why Redis did not do it.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// It is out of reach, full, or answers nonsense.
    #[error("Redis is out of reach or refused: {0}")]
    Redis(#[from] redis::RedisError),
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    TimedOut,
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
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(limits::REDIS_WAIT_MAX))
            .set_response_timeout(Some(limits::REDIS_WAIT_MAX))
            // While it can't be reached each request tries once and fails at once; callers know what to do then.
            .set_number_of_retries(0);
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_CONNECTION_MAX);
        let client = redis::Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?;
        let redis = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { redis, namespace: namespace.to_owned() })
    }

    fn keys(&self, user_id: UserId) -> Keys {
        let user = format!("{}:{{{}}}", self.namespace, user_id.as_uuid().simple());
        Keys {
            meta: format!("{user}:meta"),
            entries: format!("{user}:entries"),
            sessions: format!("{user}:sessions"),
            devices: format!("{user}:devices"),
            delivered: format!("{user}:delivered"),
        }
    }
}

/// The answer of Redis, or an error after [`limits::REDIS_WAIT_MAX`].
async fn bounded<T>(request: impl Future<Output = redis::RedisResult<T>>) -> Result<T, InboxError> {
    match tokio::time::timeout(limits::REDIS_WAIT_MAX, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(InboxError::TimedOut),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected_answer() -> InboxError {
    InboxError::Redis((redis::ErrorKind::UnexpectedReturnType, "the answer is not what the script gives").into())
}
