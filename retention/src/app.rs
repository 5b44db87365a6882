//! Puts the parts together, one function per command.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use chat_cold::store::{Purpose, Store, StoreSettings};
use chat_shared::{
    clock::Clock,
    command_line::say,
    config_check::{self, Report},
    lifecycle::Tasks,
    postgres, telemetry,
};
use sqlx::PgPool;

use crate::{
    ageing::{self, Ageing},
    cold::{self, Cold},
    config::{ColdSettings, DaySettings, MigrateSettings, PrepareSettings, RunSettings, refuse_master_key},
    erasure::Erasing,
    metrics, migrate, prepare,
    prepare::{KEY_DAYS_AHEAD, PARTITION_DAYS_AHEAD},
    rewrap::{self, DEVICES_MAX},
    unread_audit::UnreadAudit,
    worker::Worker,
};

/// How long a statement in hand may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
const APPLICATION: &str = "chat-retention";
/// What this service does with tables of PostgreSQL.
const RIGHTS: &[(&str, &[&str])] = &[
    ("content_keys", &["select", "insert"]),
    ("conversations", &["select"]),
    ("participants", &["select"]),
    ("messages", &["select"]),
    ("message_days", &["select"]),
    ("erasures", &["select"]),
];
/// The same of the cold worker.
const COLD_RIGHTS: &[(&str, &[&str])] = &[
    ("messages", &["select"]),
    ("cold_packs", &["select"]),
    ("cold_chunks", &["select"]),
    ("cold_erasures", &["select"]),
];
const COLD_APPLICATION: &str = "chat-retention cold";

/// Runs the service until it is told to stop.
pub async fn run(settings: RunSettings) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    let health = telemetry::start(&settings.telemetry, &tasks).await?;
    metrics::describe();
    let pool = postgres::connect(&settings.prepare.postgres, APPLICATION)?;
    let worker = Worker {
        pool: pool.clone(),
        clock: Clock::System,
        master_keys: settings.prepare.master_key.read()?,
        prepared: health.latch("prepared"),
    };
    tasks.essential("preparation", worker.run(tasks.draining().clone()));
    tasks.best_effort("ageing", Ageing::new(pool.clone()).run(tasks.draining().clone()));
    tasks.best_effort("erasure", Erasing::new(pool.clone()).run(tasks.draining().clone()));
    tasks.best_effort("unread audit", UnreadAudit::new(pool, Clock::System).run(tasks.draining().clone()));
    tasks.run(DRAIN_MAX).await
}

/// Says what is wrong with the settings, and with what they lead to.
pub async fn check(settings: &RunSettings) -> ExitCode {
    let mut report = Report::default();
    report.telemetry(&settings.telemetry);
    let master_keys = config_check::master_key(&mut report, &settings.prepare.master_key);
    let pool = config_check::postgres(&mut report, &settings.prepare.postgres, APPLICATION).await;
    config_check::rights(&mut report, pool.as_ref(), RIGHTS).await;
    ageing::check(&mut report, pool.as_ref()).await;
    config_check::content_keys(&mut report, pool.as_ref(), master_keys.as_ref(), &Clock::System).await;
    report.conclude()
}

/// Brings the schema up to date.
pub async fn migrate(settings: &MigrateSettings) -> anyhow::Result<()> {
    let pool = postgres::connect(&settings.postgres, APPLICATION)?;
    Ok(migrate::migrate(&pool, &settings.postgres).await?)
}

/// Makes partitions and keys once.
pub async fn prepare(settings: &PrepareSettings) -> anyhow::Result<()> {
    let master_keys = settings.master_key.read()?;
    let pool = postgres::connect(&settings.postgres, APPLICATION)?;
    postgres::check(&pool).await?;
    let prepared = prepare::prepare(&pool, &Clock::System, &master_keys).await.context("preparing the coming days")?;
    say(format_args!(
        "{} partitions and {} content keys were missing and are made: \
         partitions reach {PARTITION_DAYS_AHEAD} days ahead, keys {KEY_DAYS_AHEAD}",
        prepared.partitions_made, prepared.keys_made,
    ));
    Ok(())
}

/// Wraps content keys and seals addresses of devices with the current master key.
pub async fn rewrap(settings: &PrepareSettings) -> anyhow::Result<()> {
    let master_keys = settings.master_key.read()?;
    let pool = postgres::connect(&settings.postgres, "chat-retention rewrap")?;
    postgres::check(&pool).await?;
    rewrap::rewrap(&pool, &master_keys, DEVICES_MAX).await?.conclude(&master_keys)
}

/// Runs the cold worker until it is told to stop.
pub async fn cold(settings: ColdSettings) -> anyhow::Result<()> {
    refuse_master_key()?;
    let tasks = Tasks::default();
    let health = telemetry::start(&settings.telemetry, &tasks).await?;
    metrics::describe_cold();
    let pool = cold::steps::connect(&settings.postgres, COLD_APPLICATION)?;
    postgres::check(&pool).await?;
    let cold = Cold::new(pool, store(&settings.store)?, settings.cold_after_days);
    tasks.best_effort("cold bodies", cold.run(health.latch("first pass"), tasks.draining().clone()));
    tasks.run(DRAIN_MAX).await
}

/// Reports what is wrong with the settings of the cold worker, and with what they lead to.
pub async fn check_cold(settings: &ColdSettings) -> ExitCode {
    let mut report = Report::default();
    report.telemetry(&settings.telemetry);
    report.part("no master key", refuse_master_key());
    if let Some(store) = report.part("settings of the object store", store(&settings.store))
        && report.part("object store", cold::check_store(&store).await) == Some(true)
    {
        report.note(
            "the bucket keeps versions: texts of deleted packs stay readable for those that have the content key, or a \
                 backup of it; turn versioning off, or let old versions expire after a day",
        );
    }
    let pool = config_check::postgres(&mut report, &settings.postgres, COLD_APPLICATION).await;
    config_check::rights(&mut report, pool.as_ref(), COLD_RIGHTS).await;
    report.conclude()
}

/// Compares the packs of a day.
pub async fn verify(settings: &DaySettings) -> anyhow::Result<()> {
    let (pool, store) = day(settings, "chat-retention verify").await?;
    cold::verify(&pool, &store, settings.day).await
}

/// Puts the bodies of a day back.
pub async fn warm(settings: &DaySettings) -> anyhow::Result<()> {
    let (pool, store) = day(settings, "chat-retention warm").await?;
    cold::warm(&pool, &store, settings.day).await
}

async fn day(settings: &DaySettings, application: &str) -> anyhow::Result<(PgPool, Store)> {
    let pool = cold::steps::connect(&settings.postgres, application)?;
    postgres::check(&pool).await?;
    Ok((pool, store(&settings.store)?))
}

fn store(settings: &StoreSettings) -> anyhow::Result<Store> {
    Store::open(settings, Purpose::Writing)?
        .context("CHAT_COLD_STORE_URL is missing: give the bucket or directory for old bodies")
}
