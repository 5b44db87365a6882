//! Applies the migrations, one after the other, under the database's migration lock.

use chat_shared::{
    postgres::{self, MIGRATOR, PostgresError},
    settings::PostgresSettings,
};
use sqlx::{ConnectOptions, PgConnection, PgPool, migrate::MigrateError};

use chat_shared::command_line::say;

use crate::grants;

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
    /// The services were not given their rights.
    #[error("the services can't be given their rights; run this as the user who owns the tables: {0}")]
    Grants(#[source] sqlx::Error),
}

/// Brings the schema and the services' rights up to date; whoever comes second waits for the first and finds it done.
pub async fn migrate(pool: &PgPool, settings: &PostgresSettings) -> Result<(), MigrationFailed> {
    match postgres::check(pool).await {
        Ok(_) => say(format_args!("the schema is up to date: {} migrations", MIGRATOR.iter().count())),
        Err(PostgresError::NotMigrated { .. }) => apply(&mut connect(settings).await?).await?,
        Err(error) => return Err(error.into()),
    }
    postgres::check(pool).await?;
    grants::apply(&mut connect(settings).await?).await.map_err(MigrationFailed::Grants)
}

/// A connection of its own, without the services' limit: a migration may take long.
async fn connect(settings: &PostgresSettings) -> Result<PgConnection, PostgresError> {
    let options =
        postgres::options(settings)?.application_name("chat-retention migrate").options([("statement_timeout", "0")]);
    Ok(options.connect().await?)
}

async fn apply(connection: &mut PgConnection) -> Result<(), MigrationFailed> {
    let total = MIGRATOR.iter().count();
    for (number, migration) in (1..).zip(MIGRATOR.iter()) {
        MIGRATOR.run_to(migration.version, &mut *connection).await.map_err(|reason| MigrationFailed::Refused {
            version: migration.version,
            description: migration.description.to_string(),
            reason: Box::new(reason),
        })?;
        say(format_args!("migration {number} of {total} is applied: {}", migration.description));
    }
    Ok(())
}
