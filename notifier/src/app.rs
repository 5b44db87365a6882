//! Puts the notifier together.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use async_nats::{Client, Event};
use chat_shared::{
    clock::Clock,
    config_check::{self, Report},
    inbox::Inboxes,
    jobs::Jobs,
    lifecycle::Tasks,
    log::{self, Consumer, ConsumerSpec, DELIVERY_PARTS, Log, Slot, delivery_consumer},
    postgres,
    telemetry::{self as operators, Health},
    wire::Platform,
};
use futures_util::future::try_join_all;

use crate::{
    beacon,
    config::{NotificationContent, Settings},
    deliverer::{Deliverer, Means},
    mender::Mender,
    notifications::{self, Claimed, Clerk, Content, Facts, Intake, Office},
    occasionally::Occasionally,
    providers::Providers,
    publisher::Publisher,
    reachable::Reachable,
    reaper::Reaper,
    telemetry, worker,
};

/// The parts that the log is cut into. Each is read by one instance at a time, so this is also the most instances
/// that have something to do. A change of it needs all instances stopped, or events are delivered twice.
const PARTS: u8 = DELIVERY_PARTS;
/// Events of one batch.
const BATCH_MAX: usize = 100;
/// Events of one part that are not settled. At the bound the part waits: without Redis that is when it has been gone
/// for this many events.
const ACK_PENDING_MAX: i64 = 5_000;
/// What a killed instance had in hand comes back after this; longer than a batch takes at the most.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// What the notifier calls itself to servers.
const APPLICATION: &str = "chat-notifier";
/// What this service does with tables of PostgreSQL.
const RIGHTS: &[(&str, &[&str])] = &[
    ("conversations", &["select"]),
    ("participants", &["select"]),
    ("notification_devices", &["select", "delete"]),
    ("blocks", &["select"]),
];

/// Runs the notifier until it is stopped.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // What no waiting mends is said before anything is waited for.
    let redis = settings.redis.url()?;
    settings.nats.url()?;
    let tasks = Tasks::default();
    let health = operators::start(&settings.telemetry, &tasks).await?;
    telemetry::describe();
    let log_latch = health.latch("log");
    let client = connect(&settings, &health).await?;
    let namespace = &settings.namespace.namespace;
    let log = Log::open(&client, namespace, settings.nats.replicas()).await.context("opening the log")?;
    let inboxes = Inboxes::connect(redis.expose(), namespace)
        .await
        .context("the address of Redis is written like redis://redis:6379")?;
    let publisher = Publisher::new(client.clone(), namespace.clone());
    let reachable = Reachable::watch(inboxes.clone(), &tasks);
    let notifying = Box::pin(notify(&settings, &client, &inboxes, &reachable, &tasks));
    let intake = notifying.await.context("setting up notifications")?;
    let mender = Mender::new(inboxes.clone(), publisher.clone());
    let means = Means {
        reachable: reachable.clone(),
        inboxes: inboxes.clone(),
        publisher: publisher.clone(),
        mender: mender.clone(),
        clerk: intake.clone().map(|intake| Clerk::start(intake, &tasks)),
        clock: Clock::System,
    };
    let deliverer = Deliverer::start(means, &tasks);
    let shows_text = settings.notification_content == NotificationContent::Text;
    for consumer in try_join_all((0..PARTS).map(|part| open(&log, part))).await? {
        tasks.essential("worker", worker::run(consumer, deliverer.clone(), shows_text, tasks.draining().clone()));
    }
    let reaper = Reaper { inboxes, reachable, publisher: publisher.clone(), mender, intake };
    let draining = tasks.draining().clone();
    tasks.essential("reaper", async move {
        reaper.run(draining).await;
        Ok(())
    });
    // It ends when the last worker has.
    drop(deliverer);
    log_latch.set(true);
    let draining = tasks.draining().clone();
    tasks.essential("beacon", async move {
        // Cancel safe: a beacon more or less does not matter.
        draining.run_until_cancelled(beacon::send(publisher)).await;
        Ok(())
    });
    tracing::info!(parts = PARTS, "delivering");
    tasks.run(settings.drain_max).await
}

/// Says what is wrong with the settings, and with what they lead to.
pub async fn check(settings: &Settings) -> ExitCode {
    let mut report = Report::default();
    report.telemetry(&settings.telemetry);
    let notifies = check_providers(&mut report, settings);
    config_check::nats(&mut report, &settings.nats, &settings.namespace, APPLICATION).await;
    config_check::redis(&mut report, &settings.redis, &settings.namespace).await;
    // Live delivery needs neither.
    if notifies {
        let master_keys = config_check::master_key(&mut report, &settings.master_key);
        let pool = config_check::postgres(&mut report, &settings.postgres, APPLICATION).await;
        config_check::rights(&mut report, pool.as_ref(), RIGHTS).await;
        if settings.notification_content == NotificationContent::Text {
            config_check::content_keys(&mut report, pool.as_ref(), master_keys.as_ref(), &Clock::System).await;
        }
    }
    report.conclude()
}

/// Reads the providers' keys; whether anybody is notified. They themselves aren't asked: nothing can be sent to nobody.
fn check_providers(report: &mut Report, settings: &Settings) -> bool {
    match Providers::open(&settings.providers, &Clock::System) {
        Err(error) => {
            report.wrong(format_args!("notifications: {error:#}"));
            true
        }
        Ok(providers) => {
            let names =
                Platform::ALL.into_iter().filter(|platform| providers.supports(*platform)).map(Platform::as_str);
            match names.collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => {
                    report.note("notifications: no provider is set up, so nobody who is away is notified");
                    false
                }
                names => {
                    report.ok(format_args!("notifications: {names}; the providers themselves are not asked"));
                    true
                }
            }
        }
    }
}

/// Starts working on notifications. None if there is no provider to bring them.
async fn notify(
    settings: &Settings,
    client: &Client,
    inboxes: &Inboxes,
    reachable: &Reachable,
    tasks: &Tasks,
) -> anyhow::Result<Option<Intake>> {
    let clock = Clock::System;
    let providers = Providers::open(&settings.providers, &clock)?;
    if !Platform::ALL.into_iter().any(|platform| providers.supports(platform)) {
        tracing::warn!("no provider of notifications is set up: nobody is notified");
        return Ok(None);
    }
    let master_keys = settings.master_key.read()?;
    let pool = postgres::connect(&settings.postgres, APPLICATION)?;
    let jobs = Jobs::open(client, &settings.namespace.namespace, settings.nats.replicas())
        .await
        .context("opening the queue of notifications")?;
    let intake = Intake::start(jobs.clone(), inboxes.clone(), tasks);
    let office = Office {
        inboxes: inboxes.clone(),
        claimed: Claimed::default(),
        reachable: reachable.clone(),
        facts: Facts::new(pool),
        master_keys,
        content: (settings.notification_content == NotificationContent::Text).then(Content::new),
        providers,
        intake: intake.clone(),
        clock,
        complaints: Occasionally::default(),
    };
    let (draining, watched) = (tasks.draining().clone(), jobs.clone());
    tasks.best_effort("jobs_watch", async move {
        // Cancel safe: it only looks.
        draining.run_until_cancelled(notifications::watch(watched)).await;
    });
    tasks.essential("notifications", notifications::run(jobs, office, tasks.draining().clone()));
    Ok(Some(intake))
}

async fn connect(settings: &Settings, health: &Health) -> anyhow::Result<Client> {
    let latch = health.latch("nats");
    let events = latch.clone();
    let client = log::connect(settings.nats.url()?.expose(), APPLICATION, move |event| match event {
        Event::Connected => events.set(true),
        Event::Disconnected => {
            events.set(false);
            tracing::warn!("NATS is out of reach: nothing is delivered until it is back");
        }
        other => tracing::debug!(event = %other, "NATS"),
    })
    .await?;
    latch.set(true);
    Ok(client)
}

async fn open(log: &Log, part: u8) -> anyhow::Result<Consumer> {
    let spec = ConsumerSpec {
        name: delivery_consumer(part),
        slots: Slot::part(part, PARTS).collect(),
        is_pinned: true,
        batch_max: BATCH_MAX,
        gather_max: Duration::ZERO,
        ack_pending_max: ACK_PENDING_MAX,
        ack_wait: ACK_WAIT,
    };
    Ok(log.consumer(spec).await?)
}
