//! The connection to PostgreSQL, and the schema that every service expects to find there.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    clock::Timestamp,
    limits,
    log::{Log, LogError, LogState},
    position::StreamSeq,
    secret::SecretError,
    settings::PostgresSettings,
};

/// All migrations, in the program itself. Applied by `chat-retention migrate`; everyone else only checks.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How long a connection may take to answer when it is given back to the pool.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a check may take to connect.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
const VERSION_MIN: i32 = 150_000;

/// Why PostgreSQL can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// It isn't said where it is.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The address can't be understood.
    #[error("the address of PostgreSQL is written like postgres://user:password@host/database: {0}")]
    Address(sqlx::Error),
    /// It can't be reached, or a statement failed.
    #[error("PostgreSQL is out of reach or failed: {0}")]
    Database(sqlx::Error),
    /// Nobody answers there, for now.
    #[error("PostgreSQL at {at} is out of reach: {reason}; is it running, and is the address right?")]
    Unreachable {
        /// Host and port.
        at: String,
        /// What happened.
        reason: String,
    },
    /// It answers, and wants nothing to do with us.
    #[error("PostgreSQL refuses this service: {0}; check user and password in the address, and what the user may do")]
    Refused(String),
    /// The database isn't there, or not yet.
    #[error("PostgreSQL can't be used yet: {0}; make the database, or check the address")]
    NoDatabase(String),
    /// The address leads to a server in recovery.
    #[error("PostgreSQL at the address is a standby, which takes no writes; let the address lead to the primary")]
    Standby,
    /// The address of a replica leads to a server that is not in recovery.
    #[error("PostgreSQL at the address of a replica is a primary; let the address lead to a standby")]
    Primary,
    /// The server is too old.
    #[error("PostgreSQL {found} is too old: 15 or later is needed; upgrade the server")]
    TooOld {
        /// The version it gave.
        found: String,
    },
    /// The schema isn't the one this program was built for.
    #[error(
        "the schema in PostgreSQL lacks migration {missing}; run `chat-retention migrate` against this database first"
    )]
    NotMigrated {
        /// The first migration that is missing.
        missing: i64,
    },
    /// An id is stored as something else.
    #[error(
        "the column {column} in PostgreSQL is of type {found}, but ids are stored as uuid; somebody changed the schema: \
         change it back, or restore it from a backup"
    )]
    NotUuid {
        /// Table and column.
        column: String,
        /// Its type.
        found: String,
    },
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(told) if told.code().as_deref() == Some(NO_DATABASE) => Self::NoDatabase(told.message().to_owned()),
            Some(told) if told.code().is_some_and(|code| is_refusal(&code)) => Self::Refused(told.message().to_owned()),
            _ => Self::Database(error),
        }
    }
}

/// PostgreSQL's code for a database that isn't there.
const NO_DATABASE: &str = "3D000";

/// Whether a code says that user, password or rights are wrong, which no waiting mends.
fn is_refusal(code: &str) -> bool {
    code.starts_with("28") || code == "42501"
}

impl PostgresError {
    /// Whether it may pass without anybody doing something about it.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Unreachable { .. } | Self::NoDatabase(_) | Self::Standby)
    }
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

/// How the settings say to connect.
pub fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, PostgresError> {
    parsed(settings.url()?.expose())
}

fn parsed(url: &str) -> Result<PgConnectOptions, PostgresError> {
    Ok(PgConnectOptions::from_str(url).map_err(PostgresError::Address)?.disable_statement_logging())
}

/// Opens a pool. It connects when it is first used, and again after a disconnection.
pub fn connect(settings: &PostgresSettings, application: &str) -> Result<PgPool, PostgresError> {
    let options = options(settings)?.application_name(application);
    // During a fail-over the address may lead to a standby. Its connection would stay open, and refuse every write.
    Ok(pool(options, settings.postgres_connections_max, ServerKind::Primary))
}

/// Opens a pool of a replica. It connects when it is first used, and again after a disconnection.
pub fn connect_replica(url: &str, application: &str, connections_max: u32) -> Result<PgPool, PostgresError> {
    Ok(pool(parsed(url)?.application_name(application), connections_max, ServerKind::Replica))
}

/// A connection to a replica, for a check.
pub async fn connect_replica_once(url: &str) -> Result<PgConnection, PostgresError> {
    let mut connection = connect_once(&parsed(url)?).await?;
    refuse_other(&mut connection, ServerKind::Replica).await?;
    Ok(connection)
}

/// What an address has to lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerKind {
    Primary,
    Replica,
}

fn pool(options: PgConnectOptions, connections_max: u32, kind: ServerKind) -> PgPool {
    let options = options.options([("statement_timeout", limits::STATEMENT_WAIT_MAX.as_millis().to_string())]);
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECT_WAIT_MAX)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                refuse_other(connection, kind).await.map_err(|error| sqlx::Error::Configuration(error.into()))
            })
        })
        // A connection that is cut off without a word must not keep its place until TCP gives up.
        .after_release(|connection, _| {
            Box::pin(async move {
                let answer = tokio::time::timeout(RELEASE_WAIT_MAX, connection.ping()).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .connect_lazy_with(options)
}

/// A server that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// The last migration that is applied, and may be newer than this program.
    pub migration: i64,
}

/// Checks the server's version, that all migrations are applied, and that ids are stored as UUIDs (R10.4).
pub async fn check(pool: &PgPool) -> Result<Server, PostgresError> {
    let mut connection = connect_once(&pool.connect_options()).await?;
    let server = examine(&mut connection).await?;
    // Whether it hears of the end or not, it has answered.
    let _closed = tokio::time::timeout(RELEASE_WAIT_MAX, connection.close()).await;
    Ok(server)
}

/// A connection of its own: what a pool says about a server that it can't reach is only that it took too long.
async fn connect_once(options: &PgConnectOptions) -> Result<PgConnection, PostgresError> {
    let unreachable = |reason: String| PostgresError::Unreachable {
        at: format!("{}:{}", options.get_host(), options.get_port()),
        reason,
    };
    match tokio::time::timeout(CONNECT_WAIT_MAX, options.connect()).await {
        Err(_) => Err(unreachable("there was no answer".to_owned())),
        Ok(Err(sqlx::Error::Io(error))) => Err(unreachable(error.to_string())),
        Ok(Err(sqlx::Error::Tls(error))) => Err(unreachable(format!("TLS failed: {error}"))),
        Ok(outcome) => Ok(outcome?),
    }
}

async fn refuse_other(connection: &mut PgConnection, kind: ServerKind) -> Result<(), PostgresError> {
    let is_standby =
        sqlx::query_scalar!(r#"select pg_is_in_recovery() as "is_standby!""#).fetch_one(connection).await?;
    match (kind, is_standby) {
        (ServerKind::Primary, true) => Err(PostgresError::Standby),
        (ServerKind::Replica, false) => Err(PostgresError::Primary),
        _ => Ok(()),
    }
}

async fn examine(connection: &mut PgConnection) -> Result<Server, PostgresError> {
    refuse_other(&mut *connection, ServerKind::Primary).await?;
    let version = sqlx::query!(
        r#"select current_setting('server_version') as "text!", current_setting('server_version_num')::int as "number!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    if version.number < VERSION_MIN {
        return Err(PostgresError::TooOld { found: version.text });
    }
    let is_migrated = sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "is_migrated!""#)
        .fetch_one(&mut *connection)
        .await?;
    let applied = if is_migrated {
        sqlx::query_scalar!("select version from _sqlx_migrations where success").fetch_all(&mut *connection).await?
    } else {
        Vec::new()
    };
    if let Some(migration) = MIGRATOR.iter().find(|migration| !applied.contains(&migration.version)) {
        return Err(PostgresError::NotMigrated { missing: migration.version });
    }
    refuse_other_ids(connection).await?;
    Ok(Server { version: version.text, migration: applied.into_iter().max().unwrap_or(0) })
}

/// Whether the server gives UUIDs as such, and keeps ids as UUIDs.
async fn refuse_other_ids(connection: &mut PgConnection) -> Result<(), PostgresError> {
    sqlx::query_scalar!(r#"select gen_random_uuid() as "uuid!""#).fetch_one(&mut *connection).await?;
    let other = sqlx::query!(
        r#"select attrelid::regclass || '.' || attname as "column!", format_type(atttypid, atttypmod) as "found!"
           from pg_attribute
           where attrelid in (to_regclass('conversations'), to_regclass('participants'), to_regclass('messages'))
               and attname in ('conversation_id', 'user_id', 'message_id', 'sender_id')
               and atttypid <> 'uuid'::regtype
           limit 1"#
    )
    .fetch_optional(connection)
    .await?;
    other.map_or(Ok(()), |other| Err(PostgresError::NotUuid { column: other.column, found: other.found }))
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

/// How far a log has been stored.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    /// When the stream was made.
    created_at: Timestamp,
    /// The last position that is stored.
    stored: StreamSeq,
}

impl Checkpoint {
    /// That of a stream, if anything has been stored from it.
    pub async fn read(pool: &PgPool, stream_name: &str) -> Result<Option<Self>, PostgresError> {
        let row = sqlx::query!(
            "select stream_created_at, last_stream_seq from log_checkpoints where stream_name = $1",
            stream_name
        )
        .fetch_optional(pool)
        .await?;
        Ok(row.map(|row| Self {
            created_at: row.stream_created_at.into(),
            stored: StreamSeq::from_sql(row.last_stream_seq),
        }))
    }

    /// Refuses a log that ends before what was stored from it, or that is another one under the same name.
    pub fn compare(self, log: &LogState) -> Result<(), CheckpointError> {
        if self.stored > log.last || self.created_at != log.created_at {
            let name = log.name.clone();
            return Err(CheckpointError::LogLost { name, stored: self.stored.0, found: log.last.0 });
        }
        Ok(())
    }
}

/// Compares the log with what has been stored from it, so that nobody numbers on in a log that was lost.
pub async fn check_log(pool: &PgPool, log: &Log) -> Result<LogState, CheckpointError> {
    // The checkpoint first: while other instances store on, the log is at least as far as what they have stored.
    let checkpoint = Checkpoint::read(pool, log.name()).await?;
    let state = log.state().await?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.compare(&state)?;
    }
    Ok(state)
}
