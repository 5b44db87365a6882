//! A peer's own PostgreSQL: the same program with the same settings as that of this backend.

use std::{collections::HashSet, path::Path};

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    load::{
        statements::{PostgresWork, begin_counting},
        subject::Watched,
    },
    ports::Ports,
    servers::{Binaries, Durability, Postgres},
};

/// A server with one database.
#[derive(Debug)]
pub struct Database {
    postgres: Postgres,
    name: &'static str,
}

impl Database {
    /// Starts one in `directory` and makes `schema` in it.
    pub async fn start(
        binaries: &Binaries,
        directory: &Path,
        ports: &Ports,
        name: &'static str,
        schema: String,
    ) -> Result<Self> {
        let postgres = Postgres::start_in(binaries, directory, Durability::Kept, ports).await?;
        begin_counting(&postgres).await?;
        postgres.ensure_database(name).await?;
        let database = Self { postgres, name };
        let mut connection = database.connect().await?;
        connection.execute(AssertSqlSafe(schema)).await.with_context(|| format!("cannot make the schema of {name}"))?;
        connection.close().await?;
        Ok(database)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn url(&self) -> String {
        self.postgres.database_url(self.name)
    }

    /// Of the user who owns everything.
    pub fn password(&self) -> &str {
        self.postgres.password()
    }

    pub fn port(&self) -> u16 {
        self.postgres.port()
    }

    /// What a statement gives. Statements are made here and hold numbers only.
    pub async fn rows(&self, statement: impl Into<String>) -> Result<Vec<PgRow>> {
        let mut connection = self.connect().await?;
        let rows = connection.fetch_all(AssertSqlSafe(statement.into())).await?;
        connection.close().await?;
        Ok(rows)
    }

    /// The number that a statement gives.
    pub async fn number(&self, statement: &str) -> Result<u64> {
        let rows = self.rows(statement).await?;
        let row = rows.first().with_context(|| format!("nothing came of {statement}"))?;
        Ok(row.try_get::<i64, _>(0)?.try_into()?)
    }

    /// The ids that a statement gives.
    pub async fn ids(&self, statement: String) -> Result<HashSet<Uuid>> {
        self.rows(statement).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub async fn work(&self) -> Result<PostgresWork> {
        PostgresWork::of(&self.postgres).await
    }

    pub fn watched(&self) -> Result<Watched> {
        super::watched(self.postgres.process(), true)
    }

    pub async fn stop(&self) -> Result<()> {
        self.postgres.stop().await
    }

    async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url())
            .await
            .with_context(|| format!("cannot connect to the database {}", self.name))
    }
}
