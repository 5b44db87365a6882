//! The connection to PostgreSQL, and the schema that every service expects to find there.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    clock::Timestamp,
    limits,
    log::{Log, LogError, LogState},
    position::StreamSeq,
    settings::PostgresSettings,
};

/// All migrations, in the program itself. Applied by `chat-retention migrate`; everyone else only checks.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How long a connection may take to answer when it is given back to the pool.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(2);
const VERSION_MIN: i32 = 150_000;

/// Why PostgreSQL can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The address can't be understood.
    #[error("the address of PostgreSQL is written like postgres://user:password@host/database: {0}")]
    Address(#[source] sqlx::Error),
    /// It can't be reached, or a statement failed.
    #[error("PostgreSQL is out of reach or refused: {0}")]
    Database(#[from] sqlx::Error),
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: 15 or later is needed")]
    TooOld {
        /// The version it gave.
        found: String,
    },
    /// The schema isn't the one this program was built for.
    #[error("the schema lacks migration {missing}; run `chat-retention migrate` against this database first")]
    NotMigrated {
        /// The first migration that is missing.
        missing: i64,
    },
}

/// Why the log and the database don't belong together.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log ends before what was already stored from it, or is another one under the same name.
    #[error(
        "the log {name} was lost or exchanged: PostgreSQL has stored it up to {stored}, but it ends at {found}. \
         Restore the stream, or accept the loss with `chat-persister forget-log`"
    )]
    LogLost {
        /// The stream's name.
        name: String,
        /// The position that PostgreSQL has.
        stored: u64,
        /// The log's last position.
        found: u64,
    },
    /// The database can't be asked.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The log can't be asked.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Opens a pool. It connects when it is first used, and again after a disconnection.
pub fn connect(settings: &PostgresSettings, application: &str) -> Result<PgPool, PostgresError> {
    let options = PgConnectOptions::from_str(&settings.postgres_url)
        .map_err(PostgresError::Address)?
        .application_name(application)
        .options([("statement_timeout", limits::STATEMENT_WAIT_MAX.as_millis().to_string())])
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(settings.postgres_connections_max)
        .acquire_timeout(Duration::from_secs(3))
        // A connection that is cut off without a word must not keep its place until TCP gives up.
        .after_release(|connection, _| {
            Box::pin(async move {
                let answer = tokio::time::timeout(RELEASE_WAIT_MAX, connection.ping()).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .connect_lazy_with(options))
}

/// Checks the server's version and that all migrations are applied (R10.4).
pub async fn check(pool: &PgPool) -> Result<(), PostgresError> {
    let version = sqlx::query!(
        r#"select current_setting('server_version') as "text!", current_setting('server_version_num')::int as "number!""#
    )
    .fetch_one(pool)
    .await?;
    if version.number < VERSION_MIN {
        return Err(PostgresError::TooOld { found: version.text });
    }
    let is_migrated = sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "is_migrated!""#)
        .fetch_one(pool)
        .await?;
    let applied = if is_migrated {
        sqlx::query_scalar!("select version from _sqlx_migrations where success").fetch_all(pool).await?
    } else {
        Vec::new()
    };
    match MIGRATOR.iter().find(|migration| !applied.contains(&migration.version)) {
        Some(migration) => Err(PostgresError::NotMigrated { missing: migration.version }),
        None => Ok(()),
    }
}

/// A server that has just become the log's leader may seem behind for a moment.
const LOST_IN_A_ROW_MAX: u32 = 3;

/// Looks again and again whether the log is still the same.
#[derive(Debug, Default)]
pub struct LogWatch {
    lost_in_a_row: u32,
}

impl LogWatch {
    /// How far the log goes; nothing while it or PostgreSQL can't be asked. Fails once the log has been found lost or
    /// exchanged several times in a row.
    pub async fn look(&mut self, pool: &PgPool, log: &Log) -> Result<Option<LogState>, CheckpointError> {
        match check_log(pool, log).await {
            Ok(state) => {
                self.lost_in_a_row = 0;
                Ok(Some(state))
            }
            Err(lost @ CheckpointError::LogLost { .. }) => {
                self.lost_in_a_row += 1;
                if self.lost_in_a_row >= LOST_IN_A_ROW_MAX {
                    return Err(lost);
                }
                tracing::warn!(error = %lost, "the log seems to be lost, looking again");
                Ok(None)
            }
            Err(error) => {
                tracing::debug!(%error, "it can't be seen how far the log goes");
                Ok(None)
            }
        }
    }
}

/// Compares the log with what has been stored from it, so that nobody numbers on in a log that was lost.
pub async fn check_log(pool: &PgPool, log: &Log) -> Result<LogState, CheckpointError> {
    // The checkpoint first: while other instances store on, the log is at least as far as what they have stored.
    let checkpoint = sqlx::query!(
        "select stream_created_at, last_stream_seq from log_checkpoints where stream_name = $1",
        log.name()
    )
    .fetch_optional(pool)
    .await
    .map_err(PostgresError::from)?;
    let state = log.state().await?;
    if let Some(checkpoint) = checkpoint {
        let stored = StreamSeq::from_sql(checkpoint.last_stream_seq);
        if stored > state.last || Timestamp::from(checkpoint.stream_created_at) != state.created_at {
            return Err(CheckpointError::LogLost { name: state.name, stored: stored.0, found: state.last.0 });
        }
    }
    Ok(state)
}
