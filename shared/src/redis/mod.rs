//! The connection to Redis: opened on demand, ended when it leads nowhere, and bound to one run of the server. Which keys
//! there are is known to the rooms that use it.

mod link;

pub use link::Link;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, InfoDict, IntoConnectionInfo, io::tcp::TcpSettings};
use tokio::{sync::watch, time::timeout};

use self::link::{Ending, Line};
use crate::limits;

/// How long the network may swallow what was sent before the connection counts as lost.
#[cfg(target_os = "linux")]
const DEAD_CONNECTION_MAX: Duration = Duration::from_secs(5);
/// How long a request waits for a connection that is being opened.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long one answer may take: a little less than requests take at the most, so that the connection learns of it.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(1400);
/// Between two attempts to open a connection; requests fail at once meanwhile.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(250);
/// How old a connection is at least when an answer ends it, so that a server whose answers end every connection costs one
/// a second.
const LINK_AGE_MIN: Duration = Duration::from_secs(1);

/// Connections that were ended, by reason.
const LINKS_ENDED_TOTAL: &str = "chat_redis_links_ended_total";

/// Why Redis did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// It is out of reach, full, or answers nonsense.
    #[error("Redis is out of reach or refused: {0}")]
    Redis(redis::RedisError),
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// The address leads to a server that takes no writes.
    #[error("the address of Redis leads to a replica, which takes no writes")]
    Replica,
    /// The server reads its dump.
    #[error("Redis is still loading its data")]
    Loading,
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Redis(error) }
    }
}

/// The connection that all rooms of a process share, and the prefix of the installation's keys.
///
/// Of the connections of a process one is in use, and one attempt at a time opens the next.
#[derive(Clone)]
pub struct Redis {
    links: Arc<Links>,
    namespace: Arc<str>,
}

struct Links {
    client: Client,
    config: AsyncConnectionConfig,
    state: watch::Sender<State>,
    opened: watch::Sender<u64>,
}

enum State {
    Closed,
    /// Nothing is tried before the time is over.
    Failed(Instant, RedisError),
    Opening,
    Open(Line),
}

impl Redis {
    /// Connects when it is first used, and again after every disconnection: Redis may be down now. Fails only if
    /// the address can't be understood.
    pub fn open(url: &str, namespace: &str) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits::REDIS_WAIT_MAX))
            .set_response_timeout(Some(ANSWER_WAIT_MAX));
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_CONNECTION_MAX);
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?;
        metrics::describe_counter!(LINKS_ENDED_TOTAL, "Connections to Redis that were ended, by reason");
        for ending in Ending::ALL {
            metrics::counter!(LINKS_ENDED_TOTAL, "reason" => ending.as_str()).increment(0);
        }
        let (state, opened) = (watch::Sender::new(State::Closed), watch::Sender::default());
        Ok(Self { links: Arc::new(Links { client, config, state, opened }), namespace: namespace.into() })
    }

    /// A connection to a primary that has loaded its data; opened if there is none.
    pub async fn link(&self) -> Result<Link, RedisError> {
        let open = match &*self.links.state.borrow() {
            State::Open(line) => Some(line.clone()),
            State::Closed | State::Failed(..) | State::Opening => None,
        };
        let line = match open {
            Some(line) => line,
            None => timeout(OPEN_WAIT_MAX, self.opened_line()).await.map_err(|_| RedisError::TimedOut)??,
        };
        Ok(Link::new(line, Arc::clone(&self.links)))
    }

    /// Counts the connections that were opened: each may lead to another server, or to one that has lost data.
    pub fn opened(&self) -> watch::Receiver<u64> {
        self.links.opened.subscribe()
    }

    /// The prefix of all keys.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn opened_line(&self) -> Result<Line, RedisError> {
        let mut states = self.links.state.subscribe();
        Links::begin_attempt(&self.links);
        let settled = states.wait_for(|state| !matches!(state, State::Opening)).await;
        match settled.as_deref() {
            Ok(State::Open(line)) => Ok(line.clone()),
            Ok(State::Failed(_, error)) => Err(error.clone()),
            Ok(State::Closed | State::Opening) | Err(_) => Err(RedisError::TimedOut),
        }
    }
}

impl Links {
    /// Unless an attempt is under way or has just failed. It goes on though the request that began it gives up.
    #[expect(clippy::disallowed_methods, reason = "the attempt ends by itself, within its time")]
    fn begin_attempt(links: &Arc<Self>) {
        let is_due = |state: &State| match state {
            State::Closed => true,
            State::Failed(rest_until, _) => Instant::now() >= *rest_until,
            State::Opening | State::Open(_) => false,
        };
        let is_begun = links.state.send_if_modified(|state| {
            let is_due = is_due(state);
            if is_due {
                *state = State::Opening;
            }
            is_due
        });
        if is_begun {
            let links = Arc::clone(links);
            tokio::spawn(async move {
                let opened = timeout(limits::REDIS_WAIT_MAX, links.attempt()).await;
                match opened.unwrap_or(Err(RedisError::TimedOut)) {
                    Ok(line) => {
                        links.state.send_replace(State::Open(line));
                        links.opened.send_modify(|count| *count += 1);
                    }
                    Err(error) => {
                        links.state.send_replace(State::Failed(Instant::now() + ATTEMPT_INTERVAL, error));
                    }
                }
            });
        }
    }

    async fn attempt(&self) -> Result<Line, RedisError> {
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let info: InfoDict = redis::cmd("INFO").query_async(&mut connection).await?;
        if info.get::<u8>("loading") == Some(1) {
            return Err(RedisError::Loading);
        }
        if info.get::<String>("role").as_deref() == Some("slave") {
            return Err(RedisError::Replica);
        }
        Ok(Line::new(connection, info.get::<String>("run_id").unwrap_or_default()))
    }

    /// Ends a connection, if it is the one in use; the next request opens another.
    fn end(&self, ended: &Line, ending: Ending) {
        let is_ended = self.state.send_if_modified(|state| {
            let is_in_use = matches!(state, State::Open(line) if line.is(ended));
            let is_old = !ending.is_an_answer() || ended.age() >= LINK_AGE_MIN;
            let is_ended = is_in_use && is_old;
            if is_ended {
                *state = State::Closed;
            }
            is_ended
        });
        if is_ended {
            metrics::counter!(LINKS_ENDED_TOTAL, "reason" => ending.as_str()).increment(1);
            tracing::warn!(
                reason = ending.as_str(),
                "the connection to Redis is ended, the next request opens another"
            );
        }
    }
}

/// The answer of Redis, or an error after [`limits::REDIS_WAIT_MAX`].
pub async fn bounded<T>(request: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RedisError> {
    match timeout(limits::REDIS_WAIT_MAX, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RedisError::TimedOut),
    }
}
