//! Servers, a log, inboxes, and notifiers that run as real processes.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use chat_dev::{
    paths,
    ports::{self, Ports},
    process::{Launch, Process},
    servers::{Login, Nats, Redis, logins::url_as},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    inbox::Inboxes,
    log::{self, Log, Replicas},
};
use tempfile::TempDir;

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a test's log; the server reserves them.
const LOG_BYTES: i64 = 64 << 20;

/// One installation of the backend, as far as the notifier needs it.
pub struct Installation {
    pub namespace: String,
    pub nats_url: String,
    pub redis_url: String,
    pub client: async_nats::Client,
    pub log: Log,
    pub inboxes: Inboxes,
    directory: TempDir,
}

/// Servers that only one test uses.
pub struct Private {
    pub nats: Nats,
    pub redis: Redis,
    _directory: TempDir,
}

impl Private {
    pub async fn start() -> Result<Self> {
        let directory = paths::scratch("notifier-servers")?;
        let (binaries, ports) = (TestServers::from_env()?.binaries, Ports::fresh());
        let nats = Nats::start_in(&binaries, directory.path(), &ports).await?;
        let redis = Redis::start_in(&binaries, directory.path(), &ports).await?;
        Ok(Self { nats, redis, _directory: directory })
    }
}

impl Installation {
    /// One with a namespace of its own on the servers that all tests share.
    pub async fn shared() -> Result<Self> {
        let servers = TestServers::from_env()?;
        Self::on(servers.nats_url, servers.redis_url).await
    }

    /// One on servers of its own.
    pub async fn private(servers: &Private) -> Result<Self> {
        Self::on(servers.nats.url(), servers.redis.url()).await
    }

    async fn on(nats_url: String, redis_url: String) -> Result<Self> {
        let namespace = unique_namespace();
        let client = log::connect(&nats_url, "notifier-test", |_| {}).await?;
        let log = Log::open(&client, &namespace, Replicas { count: 1, bytes_max: LOG_BYTES }).await?;
        let inboxes = Inboxes::connect(&redis_url, &namespace).await?;
        Ok(Self { namespace, nats_url, redis_url, client, log, inboxes, directory: paths::scratch("notifier-test")? })
    }

    /// Starts a notifier and waits until it is ready.
    pub async fn notifier(&self, name: &str) -> Result<Notifier> {
        let port = ports::free()?;
        let log = self.directory.path().join(format!("{name}.log"));
        let mut launch = Launch::new(name, Path::new(env!("CARGO_BIN_EXE_chat-notifier")), log);
        launch.env = [
            ("CHAT_NAMESPACE", self.namespace.clone()),
            // Nobody is notified here, so neither is used.
            ("CHAT_POSTGRES_URL", "postgres://127.0.0.1:1/none".to_owned()),
            ("CHAT_MASTER_KEY_FILE", "none".to_owned()),
            ("CHAT_NATS_URL", url_as(&self.nats_url, Login::Notifier)),
            ("CHAT_REDIS_URL", url_as(&self.redis_url, Login::Notifier)),
            ("CHAT_LOG_BYTES_MAX", LOG_BYTES.to_string()),
            ("CHAT_METRICS_LISTEN", format!("127.0.0.1:{port}")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let notifier = Notifier { process: Process::new(launch), port };
        notifier.start().await?;
        Ok(notifier)
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
            Ok(self.is_ready().await.then_some(()))
        })
        .await
    }

    /// SIGTERM; fails unless it ends by itself and reports success.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(DEADLINE).await?;
        anyhow::ensure!(self.process.exited().await?.success(), "it failed: {}", self.said());
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    pub async fn is_ready(&self) -> bool {
        reqwest::get(format!("http://127.0.0.1:{}/readyz", self.port))
            .await
            .is_ok_and(|page| page.status().is_success())
    }

    /// The value of a counter.
    pub async fn count(&self, metric: &str) -> Result<u64> {
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?;
        let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("there is no {metric}"))?.parse()?)
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }
}
