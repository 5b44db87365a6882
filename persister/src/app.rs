//! Puts the parts together, one function per command.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use chat_shared::{
    clock::Clock,
    command_line::say,
    config_check::{self, Report},
    lifecycle::Tasks,
    log, postgres,
    settings::PostgresSettings,
    telemetry::{self, Latch},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    accept_loss,
    config::{ForgetLogSettings, ReplaySettings, RunSettings},
    evidence::Evidence,
    forget_log,
    keep::Keeper,
    metrics, open,
    reclaim::Reclaimer,
    repair::Repair,
    replay,
    source::Source,
    store::Store,
    watch::Watch,
    worker::Worker,
};

/// How long the batch in hand may take.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the last acknowledgements may take to reach NATS.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Attempts of a command; a service goes on for ever.
const COMMAND_ATTEMPTS_MAX: u32 = 5;
const APPLICATION: &str = "chat-persister";
/// What this service does with tables of PostgreSQL.
const RIGHTS: &[(&str, &[&str])] = &[
    ("messages", &["insert"]),
    ("conversations", &["select", "update"]),
    ("participants", &["select", "update"]),
    ("dead_letters", &["select", "insert", "delete"]),
    ("log_checkpoints", &["select", "insert", "update"]),
    ("log_gaps", &["select", "insert", "update", "delete"]),
];

/// Runs the service until it is told to stop.
pub async fn run(settings: RunSettings) -> anyhow::Result<()> {
    // What no waiting mends is said before anything is waited for.
    settings.nats.url()?;
    let pool = postgres::connect(&settings.postgres, APPLICATION)?;
    let tasks = Tasks::default();
    let health = telemetry::start(&settings.telemetry, &tasks).await?;
    metrics::describe();
    let latches = Latches { nats: health.latch("nats"), postgres: health.latch("postgres") };
    tasks.essential("storing", store_the_log(settings, pool, latches, tasks.clone()));
    tasks.run(DRAIN_MAX).await
}

struct Latches {
    nats: Latch,
    postgres: Latch,
}

async fn store_the_log(settings: RunSettings, pool: PgPool, latches: Latches, tasks: Tasks) -> anyhow::Result<()> {
    let draining = tasks.draining().clone();
    let opening = async {
        let (client, log) = open::log(&settings.namespace, &settings.nats, &latches.nats).await?;
        let state = open::check(&pool, &log).await?;
        let consumer = open::consumer(&log).await;
        anyhow::Ok((client, log, state, consumer))
    };
    // Cancel safe: nothing has been taken from the log yet.
    let Some(opened) = Box::pin(draining.run_until_cancelled(opening)).await else { return Ok(()) };
    let (client, log, state, consumer) = opened?;
    latches.postgres.set(true);
    tracing::info!(stream = state.name, last = state.last.0, "storing the log");
    let store = Store::new(pool.clone(), Clock::System);
    let reclaiming = Reclaimer::default().run(log.clone(), store.clone(), pool.clone(), draining.clone());
    tasks.best_effort("reclaiming", reclaiming);
    let source = Source { log: log.clone(), state: state.clone() };
    let evidence = Arc::default();
    let keeper = |source: Option<Source>, rows_metric| Keeper {
        store: store.clone(),
        source,
        clock: Clock::System,
        postgres: latches.postgres.clone(),
        draining: draining.clone(),
        attempts_max: None,
        evidence: Arc::clone(&evidence),
        rows_metric,
    };
    let watch = Watch {
        pool,
        store: store.clone(),
        log: log.clone(),
        source: source.clone(),
        postgres: latches.postgres.clone(),
    };
    tasks.essential("watching", watch.run(draining.clone()));
    let repair = Repair { log, keeper: keeper(None, metrics::ROWS_TOTAL) };
    tasks.essential("repairing", repair.run(draining.clone()));
    let worker = Worker { consumer, stream_name: state.name, keeper: keeper(Some(source), metrics::ROWS_TOTAL) };
    worker.run(draining).await;
    // What does not get there is delivered again, which is harmless.
    let _flushed = tokio::time::timeout(FLUSH_MAX, client.flush()).await;
    Ok(())
}

/// Says what is wrong with the settings, and with what they lead to.
pub async fn check(settings: &RunSettings) -> ExitCode {
    let mut report = Report::default();
    report.telemetry(&settings.telemetry);
    let pool = config_check::postgres(&mut report, &settings.postgres, APPLICATION).await;
    config_check::rights(&mut report, pool.as_ref(), RIGHTS).await;
    let log = config_check::nats(&mut report, &settings.nats, &settings.namespace, APPLICATION).await;
    config_check::log_and_database(&mut report, pool.as_ref(), log.as_ref()).await;
    report.conclude()
}

/// Tries the dead letters again.
pub async fn replay(settings: &ReplaySettings) -> anyhow::Result<()> {
    let keeper = Keeper {
        store: Store::new(checked_pool(&settings.postgres).await?, Clock::System),
        source: None,
        clock: Clock::System,
        postgres: Latch::default(),
        draining: CancellationToken::new(),
        attempts_max: Some(COMMAND_ATTEMPTS_MAX),
        evidence: Arc::new(parking_lot::Mutex::new(Evidence::default())),
        rows_metric: metrics::ROWS_TOTAL,
    };
    let replayed = replay::replay(&keeper).await.context("replaying the dead letters")?;
    say(format_args!("{} dead letters are stored, {} stay", replayed.stored, replayed.kept));
    Ok(())
}

/// Forgets how far the log was stored.
pub async fn forget_log(settings: &ForgetLogSettings) -> anyhow::Result<()> {
    let store = Store::new(checked_pool(&settings.postgres).await?, Clock::System);
    forget_log::forget_log(&store, &log::stream_name(&settings.namespace.namespace), settings.yes).await
}

/// Forgets what neither PostgreSQL nor the log has any more.
pub async fn accept_loss(settings: &ForgetLogSettings) -> anyhow::Result<()> {
    let pool = checked_pool(&settings.postgres).await?;
    accept_loss::accept_loss(&pool, &log::stream_name(&settings.namespace.namespace), settings.yes).await
}

async fn checked_pool(settings: &PostgresSettings) -> anyhow::Result<PgPool> {
    let pool = postgres::connect(settings, APPLICATION)?;
    postgres::check(&pool).await?;
    Ok(pool)
}
