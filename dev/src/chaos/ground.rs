//! Where a scenario takes place: a fleet with servers of its own, and what can be asked of it from outside.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer, stream::Stream};
use chat_shared::log::{self, stream_name};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};

use super::{disk::Disk, line::Line};
use crate::{
    fleet::{self, Fleet, FleetOptions, Profile, Programs, ServerSource, ServiceEnv},
    process::Process,
    servers::{Binaries, Durability, Login, NatsServers, Servers, faketime::Faketime, logins::Passwords},
    store_proxy::StoreProxy,
};

/// How long a question to JetStream may take. Short, since nobody answers for one that was just killed.
const JETSTREAM_WAIT_MAX: Duration = Duration::from_secs(2);
/// The consumer that notifiers take jobs by.
const JOBS_CONSUMER: &str = "notifications";
/// How long jobs stay with a dead notifier, where they are handed on soon. Longer than a job takes here.
const HAND_ON_AFTER: Duration = Duration::from_secs(8);
/// Bytes of a log that is to be full soon.
pub const SMALL_LOG_BYTES: u64 = 192 * 1024;
/// Bytes of the disk of NATS that is to be full.
const SMALL_DISK_BYTES: u64 = 96 * 1024 * 1024;
/// Files that a gateway may open where they are few. Half of them are for connections.
pub const FEW_FILES: u64 = 400;
/// How far ahead one gateway's clock is, where clocks differ.
pub const AHEAD_S: u64 = 3600;
/// The gateway whose clock that is.
pub const GATEWAY_AHEAD: usize = 1;

/// How far a replica may be behind. Less than it is paused for.
const LAG_MAX_MS: u64 = 2000;

/// What kind of fleet a scenario needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroundKind {
    /// One server of each kind.
    Plain,
    /// Three NATS servers that each hold the log.
    Cluster,
    /// A log that is full after a few hundred messages.
    SmallLog,
    /// NATS has a small disk of its own.
    SmallDisk,
    /// Gateways may open few files.
    FewFiles,
    /// One gateway's clock is an hour ahead.
    Clocks,
    /// PostgreSQL has a replica, from which gateways read.
    Replica,
    /// Redis is behind an address that can lead elsewhere.
    RedisLine,
    /// Bodies of old messages go to an object store, which is behind proxies.
    Cold,
}

/// What grounds are made of.
#[derive(Debug, Clone)]
pub struct Means {
    pub programs: Programs,
    pub binaries: Binaries,
    /// Data and logs go below it.
    pub dir: PathBuf,
}

impl Means {
    /// Builds and fetches.
    pub async fn prepare(profile: Profile, dir: &Path) -> Result<Self> {
        let (binaries, programs) = tokio::try_join!(Binaries::find_or_fetch(), Programs::build(profile))?;
        Ok(Self { programs, binaries, dir: dir.to_path_buf() })
    }
}

/// A running fleet.
#[derive(Debug)]
pub struct Ground {
    pub fleet: Fleet,
    /// The persister's way to NATS, where there is one NATS server.
    pub persister_line: Line,
    /// The notifier's way to Redis; where that is behind a line, the gateways' too.
    pub notifier_line: Line,
    /// The services' ways to the object store, where there is one.
    pub store_proxies: Option<StoreProxies>,
    /// Dropped after the fleet, which uses it.
    _disk: Option<Disk>,
}

/// What stands before an object store.
#[derive(Debug)]
pub struct StoreProxies {
    pub of_worker: StoreProxy,
    pub of_gateways: StoreProxy,
}

/// How far a worker's consumer of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Given to the worker and not settled.
    pub unsettled: u64,
    /// Not given to it yet.
    pub pending: u64,
    /// Deliveries beyond the first of an entry, since the consumer was made.
    pub redeliveries: u64,
}

impl Ground {
    /// Starts one in a directory of its own.
    pub async fn start(kind: GroundKind, means: &Means, name: &str) -> Result<Self> {
        let (persister_line, notifier_line) = (Line::open(None, None).await?, Line::open(None, None).await?);
        let passwords = Passwords::ensure(&means.dir.join(name).join(fleet::DATA))?;
        let to_redis = ServiceEnv {
            service: "notifier".to_owned(),
            name: "CHAT_REDIS_URL".to_owned(),
            value: passwords.url("redis", Login::Notifier, &notifier_line.address()),
        };
        let mut options = FleetOptions {
            dir: Some(means.dir.join(name)),
            servers: ServerSource::Own(Durability::Kept),
            binaries: Some(means.binaries.clone()),
            programs: Some(means.programs.clone()),
            service_env: vec![to_redis],
            ..FleetOptions::default()
        };
        let to_nats = ServiceEnv {
            service: "persister".to_owned(),
            name: "CHAT_NATS_URL".to_owned(),
            value: passwords.url("nats", Login::Persister, &persister_line.address()),
        };
        let (mut disk, mut store_proxies) = (None, None);
        match kind {
            GroundKind::SmallDisk => {
                disk = Some(Disk::mount(&means.dir.join(name).join(fleet::DATA).join("nats"), SMALL_DISK_BYTES)?);
            }
            GroundKind::FewFiles => options.gateway_files_max = Some(FEW_FILES),
            GroundKind::Plain => options.service_env.push(to_nats),
            GroundKind::Cluster => {
                options.nats = NatsServers::Cluster;
                options.env.push(("CHAT_LOG_REPLICAS".to_owned(), "3".to_owned()));
            }
            GroundKind::SmallLog => options.env.push(("CHAT_LOG_BYTES_MAX".to_owned(), SMALL_LOG_BYTES.to_string())),
            GroundKind::Replica => {
                options.replicas = 1;
                options.env.push(("CHAT_REPLICA_LAG_MAX_MS".to_owned(), LAG_MAX_MS.to_string()));
            }
            GroundKind::RedisLine => {
                let to_redis = passwords.url("redis", Login::Gateway, &notifier_line.address());
                options.env.push(("CHAT_REDIS_URL".to_owned(), to_redis));
            }
            GroundKind::Cold => {
                let proxies =
                    StoreProxies { of_worker: StoreProxy::open().await?, of_gateways: StoreProxy::open().await? };
                options.has_cold = true;
                options.env.push(("CHAT_COLD_STORE_ENDPOINT".to_owned(), proxies.of_gateways.url()));
                options.service_env.push(ServiceEnv {
                    service: "cold".to_owned(),
                    name: "CHAT_COLD_STORE_ENDPOINT".to_owned(),
                    value: proxies.of_worker.url(),
                });
                store_proxies = Some(proxies);
            }
            GroundKind::Clocks => {
                let faketime = Faketime::find_or_fetch().await?;
                options.service_env.extend(faketime.env(&format!("gateway-{}", GATEWAY_AHEAD + 1), AHEAD_S));
            }
        }
        let fleet = Fleet::assemble(options).await?;
        persister_line.lead_to(fleet.servers().map(|servers| servers.nats.address()));
        notifier_line.lead_to(fleet.servers().map(|servers| servers.redis.address()));
        if let (Some(proxies), Some(Servers { store: Some(store), .. })) = (&store_proxies, fleet.servers()) {
            proxies.of_worker.lead_to(store.address());
            proxies.of_gateways.lead_to(store.address());
        }
        fleet.start_services().await?;
        Ok(Self { fleet, persister_line, notifier_line, store_proxies, _disk: disk })
    }

    /// Its NATS, Postgres and Redis.
    pub fn servers(&self) -> Result<&Servers> {
        self.fleet.servers().context("the fleet has no servers of its own")
    }

    /// A connection to Postgres.
    pub async fn postgres(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.fleet.urls().postgres).await?)
    }

    /// A connection to Redis.
    pub async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.fleet.urls().redis.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// JetStream, as an operator has it.
    pub async fn jetstream(&self) -> Result<jetstream::Context> {
        let client = log::connect(&self.fleet.urls().nats, "chaos", |_| {}).await?;
        Ok(jetstream::ContextBuilder::new().timeout(JETSTREAM_WAIT_MAX).build(client))
    }

    /// The log's stream.
    pub async fn stream(&self) -> Result<Stream> {
        Ok(self.jetstream().await?.get_stream(stream_name(self.fleet.namespace())).await?)
    }

    /// The sum of a counter's values over the gateways, with a label as in `reason="slow_consumer"` or with any.
    pub async fn of_gateways(&self, metric: &str, label: &str) -> Result<u64> {
        let mut sum = 0;
        for gateway in self.fleet.gateways() {
            sum += gateway.counter(metric, label).await?;
        }
        Ok(sum)
    }

    /// How far the persister is, or all parts of the notifier together.
    pub async fn progress(&self, of_persister: bool) -> Result<Progress> {
        let stream = self.stream().await?;
        let consumers: Vec<consumer::Info> = stream.consumers().try_collect().await?;
        let sum = Progress { unsettled: 0, pending: 0, redeliveries: 0 };
        let wanted = consumers.iter().filter(|consumer| (consumer.name == "persister") == of_persister);
        Ok(wanted.fold(sum, |sum, consumer| Progress {
            unsettled: sum.unsettled + consumer.num_ack_pending as u64,
            pending: sum.pending + consumer.num_pending,
            redeliveries: sum.redeliveries + redeliveries(consumer),
        }))
    }

    /// The position in the log up to which the persister has acknowledged everything.
    pub async fn acknowledged(&self) -> Result<u64> {
        Ok(self.stream().await?.consumer_info("persister").await?.ack_floor.stream_sequence)
    }

    /// Jobs of the queue of notifications that are not acknowledged, and how many there ever were. The stream may hold more:
    /// a server whose disk is full takes an acknowledgement, and may lose the removal that follows it.
    pub async fn jobs_left(&self) -> Result<(u64, u64)> {
        let jobs = self.jobs().await?;
        let consumer = jobs.consumer_info(JOBS_CONSUMER).await?;
        let left = consumer.num_pending + consumer.num_ack_pending as u64;
        Ok((left, jobs.get_info().await?.state.last_sequence))
    }

    /// The positions of the queue of notifications and of its consumer.
    pub async fn jobs_state(&self) -> Result<String> {
        let jobs = self.jobs().await?;
        let state = jobs.get_info().await?.state;
        let consumer = jobs.consumer_info(JOBS_CONSUMER).await?;
        Ok(format!(
            "entries {} to {}, delivered up to {}, acknowledged up to {}, {} in flight, {} not delivered",
            state.first_sequence,
            state.last_sequence,
            consumer.delivered.stream_sequence,
            consumer.ack_floor.stream_sequence,
            consumer.num_ack_pending,
            consumer.num_pending
        ))
    }

    /// Lets the queue of notifications give what a notifier had in hand as it died to the next one soon, until one opens
    /// the queue again.
    pub async fn hand_on_soon(&self) -> Result<()> {
        let jobs = self.jobs().await?;
        let mut config = jobs.consumer_info(JOBS_CONSUMER).await?.config;
        if config.ack_wait != HAND_ON_AFTER {
            config.ack_wait = HAND_ON_AFTER;
            jobs.update_consumer(config).await?;
        }
        Ok(())
    }

    async fn jobs(&self) -> Result<Stream> {
        Ok(self.jetstream().await?.get_stream(format!("{}-notifications", self.fleet.namespace())).await?)
    }

    /// Processes that don't run.
    pub fn ended(&self) -> Vec<&str> {
        self.fleet.processes().filter(|process| !process.is_running()).map(Process::name).collect()
    }

    /// Starts what ended, so that the rest can be looked at.
    pub async fn repair(&self) -> Result<()> {
        let ended: Vec<_> = self.ended().into_iter().map(str::to_owned).collect();
        for name in ended {
            self.fleet.start_again(&name).await?;
        }
        Ok(())
    }

    /// Waits until all services say that they are ready.
    pub async fn until_ready(&self, deadline: Duration) -> Result<()> {
        for service in self.fleet.services() {
            service.wait_ready(deadline).await?;
        }
        Ok(())
    }
}

/// Each delivery takes the consumer's next number, and each entry has one of the stream's. With filters the two don't
/// compare, but entries that are passed over only make the difference smaller.
fn redeliveries(consumer: &consumer::Info) -> u64 {
    consumer.delivered.consumer_sequence.saturating_sub(consumer.delivered.stream_sequence)
}
