//! The connection to Redis, and how long it is waited for. Which keys there are is known to the rooms that use it.

use std::{future::Future, time::Duration};

use redis::{
    IntoConnectionInfo,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use crate::limits;

/// How long the network may swallow what was sent before the connection counts as lost. Time-outs of requests
/// alone never end a connection, since a slow Redis looks the same.
#[cfg(target_os = "linux")]
const DEAD_CONNECTION_MAX: Duration = Duration::from_secs(5);

/// Why Redis did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It is out of reach, full, or answers nonsense.
    #[error("Redis is out of reach or refused: {0}")]
    Redis(#[from] redis::RedisError),
    /// It did not answer in time.
    #[error("Redis did not answer in time")]
    TimedOut,
}

/// A connection that all rooms of a process share, and the prefix of the installation's keys.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    namespace: String,
}

impl Redis {
    /// Connects when it is first used, and again after every disconnection: Redis may be down now. Fails only if
    /// the address can't be understood.
    pub fn open(url: &str, namespace: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(limits::REDIS_WAIT_MAX))
            .set_response_timeout(Some(limits::REDIS_WAIT_MAX))
            // While it can't be reached each request tries once and fails at once; callers know what to do then.
            .set_number_of_retries(0);
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD_CONNECTION_MAX);
        let client = redis::Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?;
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { connection, namespace: namespace.to_owned() })
    }

    /// The connection; clones share it.
    pub fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// The prefix of all keys.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// The answer of Redis, or an error after [`limits::REDIS_WAIT_MAX`].
pub async fn bounded<T>(request: impl Future<Output = redis::RedisResult<T>>) -> Result<T, RedisError> {
    match tokio::time::timeout(limits::REDIS_WAIT_MAX, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RedisError::TimedOut),
    }
}
