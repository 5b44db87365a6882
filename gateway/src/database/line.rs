//! A connection of its own over which a server is asked how far it is, however busy the pools are.

use std::time::{Duration, Instant};

use chat_shared::position::Lsn;
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;

use super::chooser::{Replayed, Sample};

/// How long a server may take to answer, connecting included.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// The way to one server.
pub struct Line {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Line {
    /// Connects when it is first used, and again after each failure.
    pub const fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None }
    }

    /// Where the log of the primary is; `None` if it does not answer, or is none.
    pub async fn sample(&mut self) -> Option<Sample> {
        let at = Instant::now();
        let lsn = self.ask(async |connection| {
            sqlx::query_scalar!(r#"select (pg_current_wal_lsn() - '0/0')::bigint as "lsn!""#)
                .fetch_one(connection)
                .await
        });
        Some(Sample { at, lsn: Lsn::from_sql(lsn.await?) })
    }

    /// Up to where a replica has replayed; `None` if it does not answer, or receives nothing from a primary.
    pub async fn replayed(&mut self) -> Option<Replayed> {
        let asking = self.ask(async |connection| {
            // The receiver ends when the primary has another history, or when this server is a primary itself.
            sqlx::query!(
                r#"select pg_is_in_recovery() and exists (select from pg_stat_wal_receiver) as "is_following!",
                       (pg_last_wal_replay_lsn() - '0/0')::bigint as lsn"#
            )
            .fetch_one(connection)
            .await
        });
        let answer = asking.await?;
        Some(Replayed { at: Instant::now(), lsn: Lsn::from_sql(answer.lsn.filter(|_| answer.is_following)?) })
    }

    async fn ask<T>(&mut self, ask: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> Option<T> {
        let asking = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            let answer = ask(&mut connection).await?;
            self.connection = Some(connection);
            Ok::<T, sqlx::Error>(answer)
        };
        timeout(ANSWER_WAIT_MAX, asking).await.ok()?.ok()
    }
}
