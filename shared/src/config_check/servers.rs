//! Tries PostgreSQL, NATS and Redis.

use std::time::Duration;

use async_nats::Client;
use sqlx::PgPool;
use tokio::time::timeout;

use super::Report;
use crate::{
    inbox::{InboxError, Inboxes, RedisProblem},
    limits,
    log::{self, LogState},
    postgres::{self, Checkpoint, MIGRATOR},
    settings::{NamespaceSettings, NatsSettings, PostgresSettings, RedisSettings},
};

/// How long one server may take to answer everything that it is asked.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long NATS may take to let us in.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Locks that a statement over all days may need, with a partition for each day.
const LOCKS_MIN: i64 = 256;

/// Tries PostgreSQL; the way to it if it can be used.
pub async fn postgres(report: &mut Report, settings: &PostgresSettings, application: &str) -> Option<PgPool> {
    let pool = match postgres::connect(settings, application) {
        Ok(pool) => pool,
        Err(error) => {
            report.wrong(error);
            return None;
        }
    };
    let server = match timeout(ANSWER_MAX, postgres::check(&pool)).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            report.wrong(error);
            return None;
        }
        Err(_) => {
            report.wrong("PostgreSQL lets us in, but doesn't answer");
            return None;
        }
    };
    let (version, migration) = (&server.version, server.migration);
    report.ok(format_args!("PostgreSQL {version}: schema at migration {migration}, ids are stored as uuid"));
    if MIGRATOR.iter().all(|known| known.version != migration) {
        report.note(format_args!("PostgreSQL: migration {migration} is newer than this program"));
    }
    let asking = sqlx::query_scalar!(r#"select current_setting('max_locks_per_transaction')::bigint as "locks!""#);
    if let Ok(Ok(locks)) = timeout(ANSWER_MAX, asking.fetch_one(&pool)).await
        && locks < LOCKS_MIN
    {
        report.note(format_args!(
            "PostgreSQL: max_locks_per_transaction is {locks}: with a partition for each day, set {LOCKS_MIN} or more"
        ));
    }
    Some(pool)
}

/// Tries NATS; how far the log goes, if there is one.
pub async fn nats(
    report: &mut Report,
    settings: &NatsSettings,
    namespace: &NamespaceSettings,
    application: &str,
) -> Option<LogState> {
    if !matches!(settings.log_replicas, 1 | 3) {
        report.wrong("CHAT_LOG_REPLICAS: give 1, or 3 for a cluster of NATS servers");
    }
    let url = match settings.url() {
        Ok(url) => url,
        Err(error) => {
            report.wrong(error);
            return None;
        }
    };
    let client = match timeout(CONNECT_MAX, log::connect(url.expose(), application, |_| {})).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            report.wrong(error);
            return None;
        }
        Err(_) => {
            report.wrong("NATS is out of reach: there was no answer; is it running, and is the address right?");
            return None;
        }
    };
    Box::pin(stream(report, &client, settings, namespace)).await
}

async fn stream(
    report: &mut Report,
    client: &Client,
    settings: &NatsSettings,
    namespace: &NamespaceSettings,
) -> Option<LogState> {
    let name = log::stream_name(&namespace.namespace);
    let examined = match log::examine(client, &namespace.namespace, settings.replicas()).await {
        Ok(examined) => examined,
        Err(error) => {
            report.wrong(error);
            return None;
        }
    };
    let version = &examined.version;
    match &examined.log {
        Some(log) => report.ok(format_args!("NATS {version}: the log {name} goes up to {}", log.last.0)),
        None => report.ok(format_args!("NATS {version}: there is no log {name} yet, the first service makes it")),
    }
    for fault in &examined.faults {
        report.wrong(format_args!(
            "NATS: the stream {name} was changed: {fault}; change it back with `nats stream edit {name}`"
        ));
    }
    for difference in &examined.differences {
        report.note(format_args!("NATS: the stream {name} was made with other settings, and keeps them: {difference}"));
    }
    let (expected, days) = (settings.log_bytes_expected(), limits::LOG_AGE_MAX.as_secs() / 86_400);
    if let Some(bytes_max) = examined.bytes_max.filter(|bytes_max| *bytes_max < expected) {
        report.note(format_args!(
            "NATS: the stream {name} takes {bytes_max} bytes, and {} messages/s (CHAT_LOG_MESSAGES_PER_S) need {expected} \
             for {days} days: stored entries are removed earlier",
            settings.log_messages_per_s
        ));
    }
    examined.log
}

/// Compares the log with what PostgreSQL has stored from it. Without either there is nothing to compare.
pub async fn log_and_database(report: &mut Report, pool: Option<&PgPool>, log: Option<&LogState>) {
    let (Some(pool), Some(log)) = (pool, log) else { return };
    match timeout(ANSWER_MAX, Checkpoint::read(pool, &log.name)).await {
        Ok(Ok(None)) => report.ok("log and PostgreSQL: nothing is stored yet"),
        Ok(Ok(Some(checkpoint))) => match checkpoint.compare(log) {
            Ok(()) => report.ok("log and PostgreSQL belong together"),
            Err(error) => report.wrong(format_args!("log and PostgreSQL: {error}")),
        },
        Ok(Err(error)) => report.wrong(format_args!("log and PostgreSQL: {error}")),
        Err(_) => report.wrong("log and PostgreSQL: PostgreSQL doesn't answer"),
    }
}

/// Tries Redis.
pub async fn redis(report: &mut Report, settings: &RedisSettings, namespace: &NamespaceSettings) {
    let url = match settings.url() {
        Ok(url) => url,
        Err(error) => return report.wrong(error),
    };
    let inboxes = match Inboxes::connect(url.expose(), &namespace.namespace).await {
        Ok(inboxes) => inboxes,
        Err(error) => {
            return report
                .wrong(format_args!("the address of Redis is written like redis://user:password@host:6379: {error}"));
        }
    };
    let server = match inboxes.server().await {
        Ok(server) => server,
        Err(InboxError::Replica) => return report.wrong(RedisProblem::Replica),
        Err(error) => {
            return report.wrong(format_args!("{error}; check address, user and password, and what the user may do"));
        }
    };
    let problems = server.problems();
    for problem in &problems {
        report.wrong(problem);
    }
    if let Err(error) = inboxes.try_script().await {
        report.wrong(format_args!(
            "Redis: scripts can't be run on this installation's keys: {error}; change what the user may do"
        ));
    } else if problems.is_empty() {
        let (version, memory) = (&server.version, server.memory());
        report.ok(format_args!("Redis {version}: {memory}, maxmemory-policy {}", server.policy));
        if server.writes_itself_down {
            report.note(
                "Redis: it keeps an append-only file, which is of no use: after a restart inboxes count as lost all the \
                 same; set appendonly to no",
            );
        }
        match server.replicas {
            0 => {
                report.note("Redis: it has no replica, so while it is down clients have no inbox, and reload after it");
            }
            count => report.note(format_args!(
                "Redis: it has {count} replicas; a fail-over works only if this address leads to the new primary then"
            )),
        }
        if server.evicts() {
            report.note(
                "Redis: the policy does nothing without a limit of memory; with one it would drop inboxes that are in \
                 use: set maxmemory-policy to noeviction before you set maxmemory",
            );
        }
    }
}
