//! The way of requests to PostgreSQL: every statement is counted and bounded, and an outage is remembered for a moment. Lists
//! and history come from replicas if there are any.

mod check;
mod chooser;
mod line;
mod minimums;
mod replicas;
mod settings;

pub use check::check as check_replicas;
pub use replicas::{Lent, ReadFrom, Replicas};
pub use settings::ReplicaSettings;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_shared::{breaker::Breaker, limits, position::Lsn};
use sqlx::{PgPool, Postgres, pool::PoolConnection};
use uuid::Uuid;

use crate::{refusal::Refusal, telemetry};

/// How long a request waits for a connection.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pool, and whether it is worth trying.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    breaker: Arc<Breaker>,
    replicas: Option<Arc<Replicas>>,
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
    /// Over `pool`, which leads to the primary. Clones share what they know of an outage.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, breaker: Arc::default(), replicas: None }
    }

    /// With replicas to read from, if there are any.
    #[must_use]
    pub fn with_replicas(self, replicas: Option<Arc<Replicas>>) -> Self {
        Self { replicas, ..self }
    }

    /// Whether replicas are read from, so that changes have to say up to where the log has them.
    pub const fn has_replicas(&self) -> bool {
        self.replicas.is_some()
    }

    /// A connection to a replica that has what these users and businesses have to see, given by id, and what judges the read.
    /// Without one, which is counted, the primary is read from.
    pub async fn lend(&self, of: &[Uuid]) -> Option<(PoolConnection<Postgres>, Lent)> {
        self.replicas.as_ref()?.lend(of).await.inspect_err(|from| from.count(1)).ok()
    }

    /// Notes that these users and businesses, given by id, have to see all that is committed now. Before a change is
    /// answered, and after its commit. Without replicas nothing is asked.
    pub async fn note_change(&self, of: &[Uuid]) {
        let Some(replicas) = &self.replicas else { return };
        let asking = async {
            let mut connection = self.connection().await?;
            let lsn = sqlx::query_scalar!(r#"select (pg_current_wal_lsn() - '0/0')::bigint as "lsn!""#);
            statement(lsn.fetch_one(&mut *connection)).await
        };
        match asking.await {
            Ok(lsn) => replicas.minimums().raise(of, Lsn::from_sql(lsn)).await,
            // The change itself is committed.
            Err(_) => replicas.minimums().doubt(),
        }
    }

    /// Some users may have been pushed changes that are not known to be required of replicas.
    pub fn doubt_replicas(&self) {
        if let Some(replicas) = &self.replicas {
            replicas.minimums().doubt();
        }
    }

    /// A connection to the primary; an error at once while PostgreSQL is known to be out of reach.
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
