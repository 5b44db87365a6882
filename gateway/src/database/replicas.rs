//! The replicas of PostgreSQL: a pool and a breaker for each, and what is known of how far they are.
//!
//! **Invariants:** a replica takes load away and adds no failure: whatever goes wrong on it is read from the primary. A user
//! who was answered a change, or was pushed one, is not shown lists from before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chat_shared::{
    breaker::Breaker,
    inbox::Inboxes,
    lifecycle::Tasks,
    position::Lsn,
    postgres::{self, PostgresError},
    secret::Secret,
    settings::PostgresSettings,
};
use parking_lot::Mutex;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgConnectOptions};
use tokio::time::{interval, timeout};
use uuid::Uuid;

use super::{
    DatabaseError, ReplicaSettings,
    chooser::{Known, NoReplica, Replayed, SAMPLE_INTERVAL, Samples, choose},
    line::Line,
    minimums::Minimums,
    statement,
};
use crate::telemetry;

/// How long a request waits for a replica's connection, and for whether it has replayed what the user has to see.
const CONNECTION_WAIT_MAX: Duration = Duration::from_millis(250);
/// How long a request waits for what it reads on a replica.
const READ_WAIT_MAX: Duration = Duration::from_secs(1);
/// What is exported as the lag of a replica that is further behind, or away.
const LAG_SHOWN_MAX: Duration = Duration::from_mins(1);

/// Where something was read that replicas may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// From a replica.
    Replica,
    /// From the primary, because the replica lacks what the user has changed or was pushed.
    Unreplayed,
    /// From the primary, because all replicas are too far behind, or because one lacks messages that the log doesn't give.
    Behind,
    /// From the primary, because no replica answers.
    Away,
    /// From the primary, after a replica failed.
    Failed,
    /// From the primary, after a replica did not have it.
    Absent,
    /// From the primary, because the log doesn't say who takes part.
    Rights,
    /// From the primary, because Redis doesn't say, or may have forgotten, what the user has to see.
    Redis,
}

impl ReadFrom {
    const ALL: [Self; 8] = [
        Self::Replica,
        Self::Unreplayed,
        Self::Behind,
        Self::Away,
        Self::Failed,
        Self::Absent,
        Self::Rights,
        Self::Redis,
    ];

    /// Counts so many reads.
    pub fn count(self, reads: u64) {
        let (from, reason) = match self {
            Self::Replica => ("replica", "fresh"),
            Self::Unreplayed => ("primary", "unreplayed"),
            Self::Behind => ("primary", "behind"),
            Self::Away => ("primary", "away"),
            Self::Failed => ("primary", "failed"),
            Self::Absent => ("primary", "absent"),
            Self::Rights => ("primary", "rights"),
            Self::Redis => ("primary", "redis"),
        };
        metrics::counter!(telemetry::READS_TOTAL, "from" => from, "reason" => reason).increment(reads);
    }
}

impl From<NoReplica> for ReadFrom {
    fn from(none: NoReplica) -> Self {
        match none {
            NoReplica::Behind => Self::Behind,
            NoReplica::Away => Self::Away,
        }
    }
}

/// All replicas, and what users have to see on them.
pub struct Replicas {
    list: Vec<Replica>,
    lag_max: Duration,
    samples: Mutex<Samples>,
    minimums: Minimums,
    turn: AtomicUsize,
}

struct Replica {
    pool: PgPool,
    breaker: Breaker,
    /// None while it does not answer or follows no primary.
    replayed: Mutex<Option<Replayed>>,
}

/// Judges a read from a replica.
pub struct Lent {
    replicas: Arc<Replicas>,
    index: usize,
}

impl Replicas {
    /// Those of the settings; `None` if there are none. They and the primary are asked how far they are, again and again, for
    /// as long as the gateway takes work.
    pub fn start(
        settings: &ReplicaSettings,
        of_primary: &PostgresSettings,
        primary: &PgPool,
        inboxes: &Inboxes,
        tasks: &Tasks,
    ) -> Result<Option<Arc<Self>>, PostgresError> {
        let open = |url: &Secret| {
            let connections_max = of_primary.postgres_connections_max;
            let pool = postgres::connect_replica(url.expose(), "chat-gateway", connections_max)?;
            Ok(Replica { pool, breaker: Breaker::default(), replayed: Mutex::default() })
        };
        let list = settings.urls()?.iter().map(open).collect::<Result<Vec<_>, PostgresError>>()?;
        if list.is_empty() {
            return Ok(None);
        }
        let lag_max = settings.lag_max();
        let minimums = Minimums::new(inboxes.clone(), lag_max);
        let replicas = Self { list, lag_max, samples: Mutex::default(), minimums, turn: AtomicUsize::default() };
        let replicas = Arc::new(replicas);
        replicas.watch(&primary.connect_options(), tasks);
        Ok(Some(replicas))
    }

    fn watch(self: &Arc<Self>, primary: &PgConnectOptions, tasks: &Tasks) {
        for from in ReadFrom::ALL {
            from.count(0);
        }
        let (replicas, draining) = (Arc::clone(self), tasks.draining().clone());
        let mut line = Line::new(primary.clone());
        tasks.best_effort("primary_samples", async move {
            let mut ticks = interval(SAMPLE_INTERVAL);
            // Cancel safe: it only waits.
            while draining.run_until_cancelled(ticks.tick()).await.is_some() {
                if let Some(sample) = line.sample().await {
                    replicas.samples.lock().push(sample);
                }
            }
        });
        for index in 0..self.list.len() {
            let (replicas, draining) = (Arc::clone(self), tasks.draining().clone());
            tasks.best_effort("replica_watch", async move {
                let mut line = Line::new((*replicas.list[index].pool.connect_options()).clone());
                let mut ticks = interval(SAMPLE_INTERVAL);
                // Cancel safe: it only waits.
                while draining.run_until_cancelled(ticks.tick()).await.is_some() {
                    let replayed = line.replayed().await;
                    replicas.note(index, replayed);
                }
            });
        }
    }

    fn note(&self, index: usize, replayed: Option<Replayed>) {
        let before = std::mem::replace(&mut *self.list[index].replayed.lock(), replayed);
        match (before, replayed) {
            (Some(_), None) => tracing::warn!(replica = index, "a replica of PostgreSQL is away or follows no primary"),
            (None, Some(_)) => tracing::info!(replica = index, "a replica of PostgreSQL answers"),
            _ => {}
        }
        let fresh_at = replayed.and_then(|replayed| self.samples.lock().fresh_at(replayed));
        let lag = fresh_at.map_or(LAG_SHOWN_MAX, |at| at.elapsed().min(LAG_SHOWN_MAX));
        metrics::gauge!(telemetry::REPLICA_LAG_SECONDS, "replica" => index.to_string()).set(lag.as_secs_f64());
    }

    /// A connection to a replica that has what these users and businesses have to see, given by id; else why there is none.
    pub async fn lend(self: &Arc<Self>, of: &[Uuid]) -> Result<(PoolConnection<Postgres>, Lent), ReadFrom> {
        let index = self.choose()?;
        let lsn_min = match of {
            [] => None,
            ids => self.minimums.of(ids).await.map_err(|_| ReadFrom::Redis)?,
        };
        let (replica, asked_at) = (&self.list[index], Instant::now());
        if !replica.breaker.permits(asked_at) {
            return Err(ReadFrom::Away);
        }
        let lending = async {
            let mut connection = replica.pool.acquire().await?;
            let has_replayed = match lsn_min {
                Some(lsn) => has_replayed(&mut connection, lsn).await?,
                None => true,
            };
            Ok::<_, DatabaseError>((connection, has_replayed))
        };
        match timeout(CONNECTION_WAIT_MAX, lending).await {
            Ok(Ok((connection, has_replayed))) => {
                replica.breaker.close(Instant::now());
                let lent = Lent { replicas: Arc::clone(self), index };
                if has_replayed { Ok((connection, lent)) } else { Err(ReadFrom::Unreplayed) }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, replica = index, "a replica of PostgreSQL failed");
                self.fail(index, asked_at);
                Err(ReadFrom::Failed)
            }
            Err(_) => {
                self.fail(index, asked_at);
                Err(ReadFrom::Failed)
            }
        }
    }

    fn choose(&self) -> Result<usize, NoReplica> {
        let (now, samples) = (Instant::now(), self.samples.lock());
        let known = self.list.iter().map(|replica| match *replica.replayed.lock() {
            Some(replayed) if replica.breaker.rest(now).is_zero() => Known::There(samples.fresh_at(replayed)),
            _ => Known::Away,
        });
        choose(&known.collect::<Vec<_>>(), now, self.lag_max, self.turn.fetch_add(1, Ordering::Relaxed))
    }

    fn fail(&self, index: usize, asked_at: Instant) {
        self.list[index].breaker.fail(asked_at, Instant::now());
    }

    /// What users have to see.
    pub const fn minimums(&self) -> &Minimums {
        &self.minimums
    }
}

impl Lent {
    /// What is read, and counts it; none if that fails, and then the primary is read from.
    pub async fn read<T, E: From<DatabaseError>>(self, reading: impl Future<Output = Result<T, E>>) -> Option<T> {
        let found = self.bounded(reading).await.ok();
        if found.is_some() {
            ReadFrom::Replica.count(1);
        } else {
            ReadFrom::Failed.count(1);
        }
        found
    }

    /// As `read`, of what may not be there. That it is not, the primary says: the user may know of it without a push.
    pub async fn find<T, E: From<DatabaseError>>(
        self,
        reading: impl Future<Output = Result<Option<T>, E>>,
    ) -> Option<T> {
        let found = self.bounded(reading).await;
        let from = match &found {
            Ok(Some(_)) => ReadFrom::Replica,
            Ok(None) => ReadFrom::Absent,
            Err(_) => ReadFrom::Failed,
        };
        from.count(1);
        found.ok().flatten()
    }

    /// What is read, which is not counted; given up when it takes too long.
    pub async fn bounded<T, E: From<DatabaseError>>(
        &self,
        reading: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked_at = Instant::now();
        if let Ok(answer) = timeout(READ_WAIT_MAX, reading).await {
            return answer;
        }
        self.replicas.fail(self.index, asked_at);
        Err(DatabaseError::TimedOut.into())
    }
}

/// Whether the server is a replica that has replayed the log up to there. Asked on the connection that is read from, so that
/// it is right behind an address of several servers too.
async fn has_replayed(connection: &mut PgConnection, lsn: Lsn) -> Result<bool, DatabaseError> {
    let asking = sqlx::query_scalar!(
        r#"select pg_is_in_recovery() and pg_last_wal_replay_lsn() - '0/0' >= $1::bigint::numeric as "has_replayed!""#,
        lsn.to_sql()
    );
    statement(asking.fetch_one(connection)).await
}
