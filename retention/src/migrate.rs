//! Applies the migrations, one after the other, under the database's migration lock.

use std::str::FromStr;

use chat_shared::{
    postgres::{self, MIGRATOR, PostgresError},
    settings::PostgresSettings,
};
use sqlx::{ConnectOptions, PgPool, migrate::MigrateError, postgres::PgConnectOptions};

use chat_shared::command_line::say;

/// Why the schema can't be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationFailed {
    /// The database can't be used.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A migration failed, or the database holds others than this program.
    #[error("migration {version} ({description}) can't be applied")]
    Refused {
        /// Its number.
        version: i64,
        /// What it is about.
        description: String,
        /// What PostgreSQL or the comparison says.
        #[source]
        reason: Box<MigrateError>,
    },
}

/// Brings the schema up to date; whoever comes second waits for the first and finds it done.
pub async fn migrate(pool: &PgPool, settings: &PostgresSettings) -> Result<(), MigrationFailed> {
    match postgres::check(pool).await {
        Ok(()) => say(format_args!("the schema is up to date: {} migrations", MIGRATOR.iter().count())),
        Err(PostgresError::NotMigrated { .. }) => apply(settings).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(postgres::check(pool).await?)
}

async fn apply(settings: &PostgresSettings) -> Result<(), MigrationFailed> {
    // A connection of its own, without the services' limit: a migration may take long.
    let mut connection = PgConnectOptions::from_str(&settings.postgres_url)
        .map_err(PostgresError::Address)?
        .application_name("chat-retention migrate")
        .options([("statement_timeout", "0")])
        .connect()
        .await
        .map_err(PostgresError::from)?;
    let total = MIGRATOR.iter().count();
    for (number, migration) in (1..).zip(MIGRATOR.iter()) {
        MIGRATOR.run_to(migration.version, &mut connection).await.map_err(|reason| MigrationFailed::Refused {
            version: migration.version,
            description: migration.description.to_string(),
            reason: Box::new(reason),
        })?;
        say(format_args!("migration {number} of {total} is applied: {}", migration.description));
    }
    Ok(())
}
