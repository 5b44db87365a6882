//! What Postgres counts: statements and writes made durable.

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::{servers::Postgres, terminal};

/// Counts statements; comes with Postgres, but has to be loaded when it starts.
const EXTENSION: &str = "pg_stat_statements";

/// Makes a Postgres count statements; starts it again for that. Does nothing but say so if it can't.
///
/// # Errors
/// If it doesn't start again.
pub async fn begin_counting(postgres: &Postgres) -> Result<()> {
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    let question = "select 1 from pg_available_extensions where name = 'pg_stat_statements'";
    if connection.fetch_optional(question).await?.is_none() {
        terminal::progress(&format!("statements are not counted: this Postgres has no {EXTENSION}"));
        return Ok(());
    }
    connection.execute("alter system set shared_preload_libraries = 'pg_stat_statements'").await?;
    connection.close().await?;
    postgres.stop().await?;
    postgres.start().await.context("Postgres doesn't start with its statements counted")?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    connection.execute("create extension if not exists pg_stat_statements").await?;
    Ok(connection.close().await?)
}

/// What a Postgres did since it started.
#[derive(Debug, Clone, Copy)]
pub struct PostgresWork {
    /// Statements of all databases, `BEGIN` and `COMMIT` included; none if they aren't counted.
    pub statements: Option<u64>,
    /// Of the write-ahead log and of data files.
    pub fsyncs: u64,
}

impl PostgresWork {
    /// Until now. Asking is a few statements more, which are counted too.
    pub async fn of(postgres: &Postgres) -> Result<Self> {
        let mut connection = PgConnection::connect(&postgres.url()).await?;
        let fsyncs = sum(&mut connection, "select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io").await?;
        let question = "select 1 from pg_extension where extname = 'pg_stat_statements'";
        let statements = if connection.fetch_optional(question).await?.is_some() {
            Some(sum(&mut connection, "select coalesce(sum(calls), 0)::bigint from pg_stat_statements").await?)
        } else {
            None
        };
        connection.close().await?;
        Ok(Self { statements, fsyncs })
    }
}

/// Statements in a database that insert, change or delete rows, since it started; none if statements aren't counted.
pub async fn writes(postgres: &Postgres, database: &str) -> Result<Option<u64>> {
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    if connection.fetch_optional("select 1 from pg_extension where extname = 'pg_stat_statements'").await?.is_none() {
        return Ok(None);
    }
    let question = format!(
        r"select coalesce(sum(calls), 0)::bigint
          from pg_stat_statements statements join pg_database on pg_database.oid = statements.dbid
          where datname = '{database}'
            and (query ~* '^\s*(insert|update|delete|merge)\M'
                 or query ~* '^\s*with\M.*\)\s*(insert\s+into|update|delete\s+from)\M')"
    );
    let sum: i64 = sqlx::raw_sql(sqlx::AssertSqlSafe(question)).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(Some(sum.unsigned_abs()))
}

async fn sum(connection: &mut PgConnection, question: &'static str) -> Result<u64> {
    let sum: i64 = sqlx::raw_sql(question).fetch_one(connection).await?.try_get(0)?;
    Ok(sum.unsigned_abs())
}
