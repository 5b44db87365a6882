//! `--check-config` of the replicas: whether each follows the primary, and how its settings suit reads.

use std::time::{Duration, Instant};

use chat_shared::{
    config_check::Report,
    position::Lsn,
    postgres::{self, PostgresError},
    secret::Secret,
};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::{sleep, timeout};

use super::ReplicaSettings;

/// How long a server may take to answer one question.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a replica is asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Where the primary is.
struct Primary {
    system: Option<i64>,
    lsn: Lsn,
}

/// Tries each replica.
pub async fn check(report: &mut Report, settings: &ReplicaSettings, primary: Option<&PgPool>) {
    let urls = match settings.urls() {
        Ok(urls) => urls,
        Err(error) => return report.wrong(error),
    };
    for (index, url) in urls.iter().enumerate() {
        let what = format!("replica {index} of PostgreSQL");
        match replica(report, &what, url, primary, settings.lag_max()).await {
            Ok(()) => {}
            Err(error) => report.wrong(format_args!("{what}: {error}")),
        }
    }
}

async fn replica(
    report: &mut Report,
    what: &str,
    url: &Secret,
    primary: Option<&PgPool>,
    lag_max: Duration,
) -> Result<(), PostgresError> {
    let mut connection = postgres::connect_replica_once(url.expose()).await?;
    let asking = sqlx::query!(
        r#"select current_setting('server_version') as "version!",
               (select system_identifier from pg_control_system()) as system,
               current_setting('hot_standby_feedback')::boolean as "feeds_back!",
               (select setting::bigint from pg_settings where name = 'max_standby_streaming_delay') as "delay_max_ms!",
               (select setting::bigint from pg_settings where name = 'recovery_min_apply_delay') as "delay_min_ms!""#
    );
    let found = answered(asking.fetch_one(&mut connection)).await?;
    let primary = match primary {
        Some(pool) => Some(ask_primary(pool).await?),
        None => None,
    };
    if primary.as_ref().is_some_and(|primary| primary.system != found.system) {
        report
            .wrong(format_args!("{what} is none of this primary: it has another system identifier; check its address"));
        return Ok(());
    }
    match primary {
        Some(primary) => match catch_up(&mut connection, primary.lsn, lag_max).await? {
            Some(lag) => {
                let (version, lag) = (&found.version, lag.as_millis());
                report.ok(format_args!("{what}, {version}: follows the primary, and had replayed its log after {lag} ms"));
            }
            None => report.note(format_args!(
                "{what} is more than {} ms behind (CHAT_REPLICA_LAG_MAX_MS), so nothing is read from it until it has caught up",
                lag_max.as_millis()
            )),
        },
        None => report.note(format_args!("{what} is a standby; whether it follows the primary can't be seen")),
    }
    if found.delay_min_ms > 0 {
        report.wrong(format_args!(
            "{what}: recovery_min_apply_delay is {} ms, so it is always behind; set it to 0, or read from another one",
            found.delay_min_ms
        ));
    }
    if found.feeds_back {
        report.note(format_args!(
            "{what}: hot_standby_feedback is on, so a long statement there keeps the primary from removing old rows; set it to \
             off, since a statement that is cancelled here is repeated on the primary"
        ));
    }
    let is_long = found.delay_max_ms < 0 || u128::from(found.delay_max_ms.unsigned_abs()) > lag_max.as_millis();
    if is_long {
        report.note(format_args!(
            "{what}: max_standby_streaming_delay lets a statement hold up replay for longer than CHAT_REPLICA_LAG_MAX_MS; set \
             it to less, such as 1000 ms"
        ));
    }
    // Whether it hears of the end or not, it has answered.
    _ = timeout(ANSWER_WAIT_MAX, connection.close()).await;
    Ok(())
}

async fn ask_primary(pool: &PgPool) -> Result<Primary, PostgresError> {
    let asking = sqlx::query!(
        r#"select (select system_identifier from pg_control_system()) as system,
               (pg_current_wal_lsn() - '0/0')::bigint as "lsn!""#
    );
    let found = answered(asking.fetch_one(pool)).await?;
    Ok(Primary { system: found.system, lsn: Lsn::from_sql(found.lsn) })
}

/// How long the replica takes until it has replayed up to there; none if longer than `lag_max`.
async fn catch_up(
    connection: &mut PgConnection,
    lsn: Lsn,
    lag_max: Duration,
) -> Result<Option<Duration>, PostgresError> {
    let asked_at = Instant::now();
    loop {
        let asking = sqlx::query_scalar!(
            r#"select coalesce(pg_last_wal_replay_lsn() - '0/0' >= $1::bigint::numeric, false) as "has_replayed!""#,
            lsn.to_sql()
        );
        let has_replayed = answered(asking.fetch_one(&mut *connection)).await?;
        match asked_at.elapsed() {
            lag if has_replayed => return Ok(Some(lag)),
            lag if lag > lag_max => return Ok(None),
            _ => sleep(LOOK_INTERVAL).await,
        }
    }
}

async fn answered<T>(asking: impl Future<Output = sqlx::Result<T>>) -> Result<T, PostgresError> {
    Ok(timeout(ANSWER_WAIT_MAX, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?)
}
