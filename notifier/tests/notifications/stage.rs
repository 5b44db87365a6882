//! Servers, a database, stand-ins for the providers, and a notifier that runs as a real process.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, stream};
use base64::{Engine, engine::general_purpose::STANDARD};
use chat_dev::{
    paths,
    ports::{self, Ports},
    process::{Launch, Process},
    push_services::{PushPorts, PushServices, Received},
    servers::{Durability, Login, Postgres, Redis, Urls, postgres::migrate},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    ids::UserId,
    inbox::Inboxes,
    jobs::{Job, Jobs},
    log::{self, Log, Replicas},
    postgres,
    sealing::MasterKey,
    settings::PostgresSettings,
    wire::Platform,
};
use futures_util::TryStreamExt;
use sqlx::PgPool;
use tempfile::TempDir;

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a test's log; the server reserves them.
const REPLICAS: Replicas = Replicas { count: 1, bytes_max: 64 << 20 };

/// One installation of the backend, as far as notifications need it. Only the notifier runs, with its own rights; the rest
/// is played by an administrator.
pub struct Stage {
    pub namespace: String,
    pub urls: Urls,
    pub client: async_nats::Client,
    pub log: Log,
    pub jobs: Jobs,
    pub inboxes: Inboxes,
    pub pool: PgPool,
    pub master_key: MasterKey,
    pub services: PushServices,
    directory: TempDir,
}

impl Stage {
    /// With a database and a namespace of its own on the servers that all tests share.
    pub async fn set() -> Result<Self> {
        Self::in_directory(paths::scratch("notifications-test")?, TestServers::from_env()?.isolated().await?).await
    }

    /// The same with a PostgreSQL of its own.
    pub async fn with_own_postgres() -> Result<(Self, Postgres)> {
        let servers = TestServers::from_env()?;
        let directory = paths::scratch("notifications-test")?;
        let durability = Durability::ThrowAway;
        let own = Postgres::start_in(&servers.binaries, directory.path(), durability, &Ports::fresh()).await?;
        let urls = Urls { postgres: own.url(), nats: servers.nats_url, redis: servers.redis_url, store: None };
        let stage = Self::in_directory(directory, urls).await?;
        migrate(&stage.urls.postgres).await?;
        Ok((stage, own))
    }

    /// The same with a Redis of its own.
    pub async fn with_own_redis() -> Result<(Self, Redis)> {
        let servers = TestServers::from_env()?;
        let directory = paths::scratch("notifications-test")?;
        let own = Redis::start_in(&servers.binaries, directory.path(), &Ports::fresh()).await?;
        let urls = Urls { redis: own.url(), ..servers.isolated().await? };
        Ok((Self::in_directory(directory, urls).await?, own))
    }

    async fn in_directory(directory: TempDir, urls: Urls) -> Result<Self> {
        let namespace = unique_namespace();
        let client = log::connect(&urls.nats, "notifications-test", |_| {}).await?;
        let log = Log::open(&client, &namespace, REPLICAS).await?;
        let jobs = Jobs::open(&client, &namespace, REPLICAS).await?;
        let inboxes = Inboxes::connect(&urls.redis, &namespace).await?;
        let settings = PostgresSettings::new(&urls.postgres, 2);
        let pool = postgres::connect(&settings, "notifications-test")?;
        let key = STANDARD.encode(namespace.repeat(2).as_bytes());
        std::fs::write(directory.path().join("master.key"), &key)?;
        let services = PushServices::start(directory.path(), PushPorts::default()).await?;
        let master_key = MasterKey::parse(&key)?;
        Ok(Self { namespace, urls, client, log, jobs, inboxes, pool, master_key, services, directory })
    }

    /// Starts a notifier and waits until it is ready.
    pub async fn notifier(&self) -> Result<Notifier> {
        self.notifier_with(&[]).await
    }

    /// Starts a notifier with more settings.
    pub async fn notifier_with(&self, settings: &[(&str, &str)]) -> Result<Notifier> {
        let more = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.launch(self.services.settings().into_iter().chain(more).collect()).await
    }

    /// Starts a notifier that has no provider.
    pub async fn notifier_without_providers(&self) -> Result<Notifier> {
        self.launch(Vec::new()).await
    }

    async fn launch(&self, settings: Vec<(String, String)>) -> Result<Notifier> {
        let port = ports::free()?;
        let log = self.directory.path().join(format!("notifier-{port}.log"));
        let mut launch = Launch::new("notifier", Path::new(env!("CARGO_BIN_EXE_chat-notifier")), log);
        let shows_text = settings.iter().any(|(name, value)| name == "CHAT_NOTIFICATION_CONTENT" && value == "text");
        let own_urls = self.urls.of(if shows_text { Login::TextNotifier } else { Login::Notifier });
        let own = [
            ("CHAT_NAMESPACE", self.namespace.clone()),
            ("CHAT_POSTGRES_URL", own_urls.postgres),
            ("CHAT_NATS_URL", own_urls.nats),
            ("CHAT_REDIS_URL", own_urls.redis),
            ("CHAT_MASTER_KEY_FILE", self.directory.path().join("master.key").display().to_string()),
            ("CHAT_LOG_BYTES_MAX", REPLICAS.bytes_max.to_string()),
            ("CHAT_METRICS_LISTEN", format!("127.0.0.1:{port}")),
        ];
        launch.env = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        launch.env.extend(settings);
        let notifier = Notifier { process: Process::new(launch), port };
        notifier.start().await?;
        Ok(notifier)
    }

    /// Waits until all that is in the log is routed and all jobs are done.
    pub async fn settled(&self) -> Result<()> {
        let context = jetstream::new(self.client.clone());
        let log = context.get_stream(self.log.name()).await?;
        let queue = context.get_stream(format!("{}-notifications", self.namespace)).await?;
        wait::until("the end of all work", DEADLINE, async || {
            let (mut consumers, mut left) = (log.consumers(), 0);
            let mut parts = 0;
            while let Some(consumer) = consumers.try_next().await? {
                left += consumer.num_pending + consumer.num_ack_pending as u64;
                parts += 1;
            }
            let jobs = queue.get_info().await?.state.messages;
            Ok((parts > 0 && left == 0 && jobs == 0).then_some(()))
        })
        .await
    }

    /// What all providers were given once all is done, in the order they are named in.
    pub async fn all_received(&self) -> Result<Vec<Received>> {
        self.settled().await?;
        Ok(Platform::ALL.into_iter().flat_map(|platform| self.services.received(platform)).collect())
    }

    /// Leaves the queue no room for another job.
    pub async fn fill_the_queue(&self) -> Result<()> {
        let context = jetstream::new(self.client.clone());
        let name = format!("{}-notifications", self.namespace);
        let found = context.get_stream(name).await?.get_info().await?.config;
        context.update_stream(stream::Config { max_bytes: 1, ..found }).await?;
        Ok(())
    }

    /// Lets nothing reach the queue, though its stream is there.
    pub async fn detach_the_queue(&self) -> Result<()> {
        let context = jetstream::new(self.client.clone());
        let name = format!("{}-notifications", self.namespace);
        let found = context.get_stream(name).await?.get_info().await?.config;
        let subjects = vec![format!("{}.elsewhere", self.namespace)];
        context.update_stream(stream::Config { subjects, ..found }).await?;
        Ok(())
    }

    /// Deletes the queue's stream.
    pub async fn delete_the_queue(&self) -> Result<()> {
        jetstream::new(self.client.clone()).delete_stream(format!("{}-notifications", self.namespace)).await?;
        Ok(())
    }

    /// Gives one of a user's keys in Redis another type.
    pub async fn spoil(&self, user_id: UserId, key: &str) -> Result<()> {
        let mut connection = redis::Client::open(self.urls.redis.as_str())?.get_multiplexed_async_connection().await?;
        let key = format!("{}:{{{}}}:{key}", self.namespace, user_id.as_uuid().simple());
        Ok(redis::cmd("SET").arg(key).arg("spoilt").exec_async(&mut connection).await?)
    }

    /// Puts a job in the queue although it was there before.
    pub async fn repeat(&self, job: &Job) -> Result<()> {
        let context = jetstream::new(self.client.clone());
        let bytes = rmp_serde::to_vec_named(job)?;
        context.publish(format!("{}.notifications", self.namespace), bytes.into()).await?.await?;
        Ok(())
    }

    /// Lets the notifiers read the whole log again.
    pub async fn forget_what_was_routed(&self) -> Result<()> {
        let stream = jetstream::new(self.client.clone()).get_stream(self.log.name()).await?;
        let names: Vec<String> = stream.consumer_names().try_collect().await?;
        for name in names {
            stream.delete_consumer(&name).await?;
        }
        Ok(())
    }
}

/// A notifier process.
pub struct Notifier {
    pub process: Process,
    port: u16,
}

impl Notifier {
    /// Starts it (again) and waits until it is ready.
    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        wait::until("readiness of the notifier", DEADLINE, async || {
            anyhow::ensure!(self.process.is_running(), "it ended: {}", self.said());
            let page = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.port)).await;
            Ok(page.is_ok_and(|page| page.status().is_success()).then_some(()))
        })
        .await
    }

    /// SIGTERM; fails unless it ends by itself and reports success.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(DEADLINE).await?;
        anyhow::ensure!(self.process.exited().await?.success(), "it failed: {}", self.said());
        Ok(())
    }

    /// The value of a counter.
    pub async fn count(&self, metric: &str) -> Result<u64> {
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?;
        let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("there is no {metric}"))?.parse()?)
    }

    /// How many notifications ended this way.
    pub async fn outcomes(&self, outcome: &str) -> Result<u64> {
        self.count(&format!("chat_notifier_notifications_total{{outcome=\"{outcome}\"}}")).await
    }

    /// Waits until as many ended this way.
    pub async fn wait_for(&self, outcome: &str, count: u64) -> Result<()> {
        let what = format!("{count} notifications that are {outcome}");
        wait::until(&what, DEADLINE, async || Ok((self.outcomes(outcome).await? >= count).then_some(()))).await
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }
}
