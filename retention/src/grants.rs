//! What each service may do in the database: `permissions/grants.sql`, applied after the migrations.

use chat_shared::command_line::say;
use sqlx::{Connection, PgConnection};

/// What each service may do; everything else is taken back.
const GRANTS: &str = include_str!("../../permissions/grants.sql");
/// The roles that it speaks of.
const ROLES: [&str; 6] =
    ["chat_gateway", "chat_persister", "chat_notifier", "chat_notifier_text", "chat_retention", "chat_retention_cold"];
/// Any number that nothing else locks in this database: two who grant at once would trip over each other.
const LOCK: i64 = 0x6368_6174_6772_6e74;

/// Grants the services' roles what they need, if the roles are there.
pub async fn apply(connection: &mut PgConnection) -> sqlx::Result<()> {
    let missing = missing_roles(connection).await?;
    if !missing.is_empty() {
        say(format_args!(
            "rights are not granted, because there is no role {}: run permissions/postgres.sql as a superuser, then \
             `chat-retention migrate` again. Until then only who owns the tables can use them",
            missing.join(", ")
        ));
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *transaction).await?;
    sqlx::raw_sql(GRANTS).execute(&mut *transaction).await?;
    transaction.commit().await?;
    say(format_args!("rights are granted to {}", ROLES.join(", ")));
    Ok(())
}

async fn missing_roles(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let roles = ROLES.map(str::to_owned);
    sqlx::query_scalar!(
        r#"select role as "role!" from unnest($1::text[]) as role
           where not exists (select from pg_roles where rolname = role)"#,
        roles.as_slice(),
    )
    .fetch_all(connection)
    .await
}
