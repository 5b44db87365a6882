//! The way of requests to PostgreSQL: every statement is counted and bounded, and an outage is remembered for a moment.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_shared::{breaker::Breaker, limits};
use sqlx::{PgPool, Postgres, pool::PoolConnection};

use crate::{refusal::Refusal, telemetry};

/// How long a request waits for a connection.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pool, and whether it is worth trying.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    breaker: Arc<Breaker>,
}

/// Why PostgreSQL did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It was out of reach a moment ago.
    #[error("PostgreSQL was out of reach a moment ago")]
    Resting,
    /// No connection or no answer came in time.
    #[error("PostgreSQL did not answer in time")]
    TimedOut,
    /// The connection or the statement failed.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
}

impl Database {
    /// Over `pool`. Clones share what they know of an outage.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, breaker: Arc::default() }
    }

    /// A connection; an error at once while PostgreSQL is known to be out of reach.
    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        let asked_at = Instant::now();
        if !self.breaker.permits(asked_at) {
            return Err(DatabaseError::Resting);
        }
        let answer = match tokio::time::timeout(CONNECTION_WAIT_MAX, self.pool.acquire()).await {
            Ok(Ok(connection)) => {
                self.breaker.close(Instant::now());
                return Ok(connection);
            }
            Ok(Err(error)) => DatabaseError::Failed(error),
            Err(_) => DatabaseError::TimedOut,
        };
        if self.breaker.fail(asked_at, Instant::now()) {
            tracing::warn!(error = %answer, "PostgreSQL is out of reach");
        }
        Err(answer)
    }
}

/// Runs one statement: counted, and given up when it takes too long.
pub async fn statement<T>(run: impl Future<Output = sqlx::Result<T>>) -> Result<T, DatabaseError> {
    metrics::counter!(telemetry::STATEMENTS_TOTAL).increment(1);
    bounded(run).await
}

/// Begins or ends a transaction: given up when it takes too long.
pub async fn bounded<T>(run: impl Future<Output = sqlx::Result<T>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(limits::STATEMENT_WAIT_MAX, run).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(DatabaseError::TimedOut),
    }
}

impl DatabaseError {
    /// The constraint that a statement met.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Failed(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }

    /// Whether another holds a lock that was asked for without waiting.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Failed(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03"))
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Failed(error) => error.into(),
            DatabaseError::Resting | DatabaseError::TimedOut => Self::unavailable("PostgreSQL", &error),
        }
    }
}
