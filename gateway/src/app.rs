//! How the gateway's parts hang together, and in which order they start and stop.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, routing::get};
use chat_cold::store::{Purpose, Store};
use chat_shared::{
    clock::Clock,
    ids::GatewayId,
    inbox::{Inboxes, RedisUnfit},
    jobs::Jobs,
    lifecycle::Tasks,
    log::{self, Log},
    postgres,
    redis::Redis,
    telemetry::{self as shared_telemetry, Latch},
};
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Revocations, Tickets, Verifier},
    business,
    config::Config,
    connection::{self, Registry},
    content::Content,
    conversations::Conversations,
    database::{Database, Replicas},
    delivery,
    devices::Devices,
    edge::{self, Edge, Waits},
    history::{ColdBodies, History, Tail},
    internal, outbox,
    presence::{self, Announcer, Departures, Watches},
    profiles::{Profiles, Surroundings},
    quota::Quotas,
    rate::RateLimits,
    receipts::{self, Receipts},
    rest,
    send::Sender,
    state::{AppState, Parts},
    telemetry,
    typing::{self, Typing},
};

/// How long requests and connections may take to end when the gateway stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Clients that are sent away come back elsewhere within this time, spread at random.
const RECONNECT_SPREAD: Duration = Duration::from_secs(5);

/// How often the gateway looks whether the log is still the same.
const LOG_WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the gateway until it is told to stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // What no waiting mends is said before anything is connected to or made.
    config.check_proxies()?;
    let (nats_url, redis_url) = (config.nats.url()?, config.redis.url()?);
    let pool = postgres::connect(&config.postgres, "chat-gateway")?;
    let master_keys = Arc::new(config.master_key.read()?);
    let cold = ColdBodies::new(Store::open(&config.cold_store, Purpose::Reading)?);
    let (tokens, signer) = (config.tokens.verifier()?, config.profiles.signer()?);
    let tasks = Tasks::default();
    let health = shared_telemetry::start(&config.telemetry, &tasks).await?;
    // From the first moment on, so that nobody is sent here before the gateway listens.
    let listening = health.latch("clients' port");
    telemetry::describe();
    let resync = Arc::new(Notify::new());
    let rung = Arc::clone(&resync);
    let nats = log::connect(nats_url.expose(), "chat-gateway", move |event| {
        // Core messages are lost while disconnected, and when a subscription's queue is full.
        if matches!(event, async_nats::Event::Connected | async_nats::Event::SlowConsumer(_)) {
            rung.notify_one();
        }
    })
    .await?;
    postgres::check(&pool).await?;
    let log = Log::open(&nats, &config.namespace.namespace, config.nats.replicas()).await?;
    postgres::check_log(&pool, &log).await?;
    let jobs = Jobs::open(&nats, &config.namespace.namespace, config.nats.replicas()).await?;
    let redis = Redis::open(redis_url.expose(), &config.namespace.namespace)?;
    let (clock, inboxes) = (Clock::System, Inboxes::on(&redis));
    check_redis(&inboxes).await;
    let latch = health.latch("content keys");
    let content = Content::start(pool.clone(), Arc::clone(&master_keys), clock.clone(), latch, &tasks);
    tasks.essential("log_watch", watch_log(pool.clone(), log.clone(), tasks.draining().clone()));
    let replicas = Replicas::start(&config.replicas, &config.postgres, &pool, &inboxes, &tasks)?;
    let database = Database::new(pool).with_replicas(replicas);
    let rate = RateLimits::start(config.edge.handshakes_per_second_max, &tasks);
    let quotas = Quotas::start(&config.quotas, redis.clone(), clock.clone(), &tasks);
    let tail = Tail::new(log, rate.clone());
    let sender = Sender::new(tail.clone(), database.clone(), content.clone(), clock.clone(), quotas.clone(), &tasks);
    let profiles = Profiles::start(
        &config.profiles,
        Surroundings {
            redis: redis.clone(),
            nats: nats.clone(),
            database: database.clone(),
            clock: clock.clone(),
            signer: signer.clone(),
            tasks: tasks.clone(),
        },
    )?;
    let conversations = Conversations::new(
        database.clone(),
        inboxes.clone(),
        sender.clone(),
        content.clone(),
        clock.clone(),
        profiles.clone(),
        delivery::Gateways::new(nats.clone(), config.namespace.namespace.clone(), inboxes.clone()),
    );
    let state = AppState::from(Parts {
        businesses: conversations.businesses(tail.log().clone()),
        conversations,
        history: History::new(database.clone(), tail.clone(), content.clone(), cold),
        receipts: Arc::new(Receipts::new(tail, sender.clone(), database.clone(), clock.clone())),
        devices: Devices::new(
            database.clone(),
            inboxes.clone(),
            master_keys,
            clock.clone(),
            config.allow_loopback_endpoints,
        ),
        gateway_id: GatewayId::random(),
        namespace: config.namespace.namespace.clone(),
        edge: Edge::start(&config.edge, Waits::default(), &tasks),
        clock,
        revocations: Revocations::new(redis.clone(), tokens.lifetime_max),
        verifier: Verifier::start(tokens, health.latch("token keys"), &tasks)?,
        tickets: Tickets::new(redis),
        profiles,
        rate,
        quotas,
        sender,
        tasks: tasks.clone(),
        nats,
        database,
        inboxes,
        content,
        connections: Registry::default(),
        announcer: Announcer::default(),
        departures: Departures::new(jobs.clone()),
        watches: Watches::default(),
        typing: Typing::default(),
        resync,
    });
    start_tasks(&state, jobs, health.latch("delivery")).await;
    business::start_comparison(&state, &config.profiles, signer.clone())?;
    internal::start(&config.internal, &config.tokens.jwt_audience, signer.as_deref(), &state, &tasks).await?;
    serve(&config, state, &tasks).await?;
    listening.set(true);
    tasks.run_with_pause(config.shutdown_pause(), DRAIN_MAX).await
}

/// Logs what is wrong with Redis, without which chat goes on.
async fn check_redis(inboxes: &Inboxes) {
    match inboxes.check().await {
        Ok(()) => {}
        Err(RedisUnfit::Unreachable(error)) => tracing::warn!(%error, "chat goes on without Redis until it is back"),
        Err(RedisUnfit::Problem(problem)) => tracing::error!(%problem, "Redis has to be set up differently"),
    }
}

/// Starts the tasks that run beside requests, until the gateway drains.
async fn start_tasks(state: &AppState, jobs: Jobs, delivery: Latch) {
    let tasks = &state.tasks;
    tasks.essential("delivery", delivery::listen(state.clone(), delivery));
    tasks.best_effort("resync", delivery::resync(state.clone()));
    receipts::start(state);
    presence::start(state);
    tasks.best_effort("typing", typing::expire(state.clone()));
    tasks.best_effort("lease", delivery::keep(state.clone()));
    tasks.best_effort("case_router", business::run_wakes(state.clone()));
    tasks.best_effort("business_watches", business::run_watches(state.clone()));
    business::start_sweep(state.businesses.clone(), jobs, tasks);
    outbox::start_sweeper(state.database.clone(), state.sender.clone(), state.clock.clone(), tasks);
    state.revocations.start(state).await;
}

/// Ends the gateway when the log is lost or exchanged: it would give numbers again that were given before.
async fn watch_log(pool: PgPool, log: Log, draining: CancellationToken) -> anyhow::Result<()> {
    let mut watch = postgres::LogWatch::default();
    let mut ticks = tokio::time::interval(LOG_WATCH_INTERVAL);
    // Cancel safe: it only looks.
    while draining.run_until_cancelled(ticks.tick()).await.is_some() {
        draining.run_until_cancelled(watch.look(&pool, &log)).await.transpose()?;
    }
    Ok(())
}

async fn serve(config: &Config, state: AppState, tasks: &Tasks) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    tracing::info!(address = %config.listen, "the gateway listens");
    let farewell = state.clone();
    let (edge, door) = (Arc::clone(&state.edge), Arc::clone(&state.edge.door));
    let router = Router::new().route("/v1/ws", get(connection::open)).merge(rest::router()).with_state(state);
    tasks.essential("http", edge::serve(listener, edge.protect(router), door, tasks.clone()));
    let draining = tasks.draining().clone();
    tasks.best_effort("farewell", async move {
        draining.cancelled().await;
        for connection in farewell.connections.all() {
            connection.go_away(RECONNECT_SPREAD.mul_f64(rand::random()));
        }
    });
    Ok(())
}
