//! Looks whether a service may do with PostgreSQL what it has to, and not everything.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::timeout;

use super::Report;
use crate::postgres::PostgresError;

/// How long PostgreSQL may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Compares what the service's user may do with what the service does: tables, and what is done with them.
pub async fn rights(report: &mut Report, pool: Option<&PgPool>, needed: &[(&str, &[&str])]) {
    let Some(pool) = pool else { return };
    match timeout(ANSWER_MAX, missing(pool, needed)).await {
        Ok(Ok(missing)) if missing.is_empty() => {}
        Ok(Ok(missing)) => report.wrong(format_args!(
            "PostgreSQL: this service may not {}: is its user in the service's role (permissions/postgres.sql), and has \
             `chat-retention migrate` been run since the role was made?",
            missing.join(", ")
        )),
        Ok(Err(error)) => report.wrong(error),
        Err(_) => report.wrong("PostgreSQL doesn't say what this service may do"),
    }
    let asking = sqlx::query_scalar!(r#"select rolsuper as "is_super!" from pg_roles where rolname = current_user"#);
    if let Ok(Ok(true)) = timeout(ANSWER_MAX, asking.fetch_one(pool)).await {
        report.note(
            "PostgreSQL: this service logs in as a superuser, so whoever steals its password has everything: give it a \
             user in the service's role (permissions/postgres.sql)",
        );
    }
}

/// What may not be done, such as `insert of messages`.
async fn missing(pool: &PgPool, needed: &[(&str, &[&str])]) -> Result<Vec<String>, PostgresError> {
    let pairs = needed.iter().flat_map(|(table, rights)| rights.iter().map(|right| ((*table).to_owned(), *right)));
    let (tables, rights): (Vec<_>, Vec<_>) = pairs.map(|(table, right)| (table, right.to_owned())).unzip();
    let rows = sqlx::query!(
        r#"select name as "table!", privilege as "right!"
           from unnest($1::text[], $2::text[]) as needed (name, privilege)
           where not case privilege
               when 'delete' then has_table_privilege(name, privilege)
               else has_any_column_privilege(name, privilege)
           end"#,
        &tables,
        &rights,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| format!("{} of {}", row.right, row.table)).collect())
}
