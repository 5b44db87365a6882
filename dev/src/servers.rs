//! Private NATS, PostgreSQL, Redis and SeaweedFS: found or fetched, started on free ports
//! of 127.0.0.1, and gone when dropped.

pub mod account;
pub mod binaries;
pub mod faketime;
pub mod logins;
pub mod nats;
pub mod postgres;
pub mod redis;
pub mod seaweedfs;
pub mod wheels;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::{
    binaries::Binaries,
    logins::{Login, Scope},
    nats::Nats,
    postgres::Postgres,
    redis::Redis,
    seaweedfs::Seaweedfs,
};
use crate::{
    ports::Ports,
    process::{Process, last_lines},
    wait,
};

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How long a server may take to end cleanly.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Lines of its log shown about a server that died.
const LAST_LINES: usize = 15;

/// Where the servers answer their administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// `postgres://…`, with the database to use.
    pub postgres: String,
    /// `nats://…`; of a cluster all servers, separated by commas.
    pub nats: String,
    /// `redis://…`
    pub redis: String,
    /// `http://…`, with the bucket of the object store and the prefix to use; none if there is no such store.
    pub store: Option<String>,
}

impl Urls {
    /// The same places for a service, with its name and password.
    #[must_use]
    pub fn of(&self, login: Login) -> Self {
        let of = |url: &str| logins::url_as(url, login);
        Self {
            postgres: of(&self.postgres),
            nats: of(&self.nats),
            redis: of(&self.redis),
            store: self.store.as_deref().map(of),
        }
    }
}

/// Whether Postgres waits for the disk. NATS always does, Redis never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Kept,
    /// For data that is thrown away: survives SIGKILL, but not a power cut.
    ThrowAway,
}

/// One NATS server or a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatsServers {
    /// One, which alone holds the log.
    #[default]
    One,
    /// Three, which can hold three copies of the log.
    Cluster,
}

/// One of each, and perhaps more of NATS.
#[derive(Debug)]
pub struct Servers {
    /// Streaming replicas of PostgreSQL. Before it, since a server that ends waits for what follows it.
    pub replicas: Vec<Postgres>,
    /// PostgreSQL 18.
    pub postgres: Postgres,
    /// NATS with JetStream.
    pub nats: Nats,
    /// The other servers of its cluster; none if it stands alone.
    pub nats_peers: Vec<Nats>,
    /// Redis without persistence.
    pub redis: Redis,
    /// The object store, if one was added.
    pub store: Option<Seaweedfs>,
}

impl Servers {
    /// Starts all of them with their data under `directory`, for any namespace, and waits until they answer.
    pub async fn start(
        binaries: &Binaries,
        directory: &Path,
        durability: Durability,
        nats: NatsServers,
        ports: &Ports,
    ) -> Result<Self> {
        Self::start_for(Scope::Any, binaries, directory, durability, nats, ports).await
    }

    /// The same, where services may use the namespaces of `scope`.
    pub async fn start_for(
        scope: Scope<'_>,
        binaries: &Binaries,
        directory: &Path,
        durability: Durability,
        nats: NatsServers,
        ports: &Ports,
    ) -> Result<Self> {
        let nats = async {
            match nats {
                NatsServers::One => Ok(vec![Nats::start_for(scope, binaries, directory, ports).await?]),
                NatsServers::Cluster => Nats::start_cluster_for(scope, binaries, directory, ports).await,
            }
        };
        let (postgres, mut nats, redis) = tokio::try_join!(
            Postgres::start_in(binaries, directory, durability, ports),
            nats,
            Redis::start_for(scope, binaries, directory, ports),
        )?;
        Ok(Self { replicas: Vec::new(), postgres, nats: nats.remove(0), nats_peers: nats, redis, store: None })
    }

    /// Starts so many replicas of PostgreSQL, with their logs in `directory`.
    pub async fn start_replicas(
        &mut self,
        count: usize,
        directory: &Path,
        durability: Durability,
        ports: &Ports,
    ) -> Result<()> {
        for number in 1..=count {
            let name = format!("postgres-replica-{number}");
            self.replicas.push(self.postgres.start_replica(directory, &name, durability, ports).await?);
        }
        Ok(())
    }

    /// Addresses of the replicas for the administrator.
    pub fn replica_urls(&self, database: &str) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.database_url(database)).collect()
    }

    /// All NATS servers.
    pub fn all_nats(&self) -> impl Iterator<Item = &Nats> {
        std::iter::once(&self.nats).chain(&self.nats_peers)
    }

    /// Their addresses for the administrator, with `database` as the one of Postgres and the prefix of the object store.
    pub fn urls(&self, database: &str) -> Urls {
        let nats: Vec<_> = self.all_nats().map(Nats::url).collect();
        Urls {
            postgres: self.postgres.database_url(database),
            nats: nats.join(","),
            redis: self.redis.url(),
            store: self.store.as_ref().map(|store| format!("{}/{database}", store.url())),
        }
    }

    /// Stops all of them cleanly.
    pub async fn stop(&self) -> Result<()> {
        for replica in &self.replicas {
            replica.stop().await?;
        }
        tokio::try_join!(self.postgres.stop(), self.nats.stop(), self.redis.stop())?;
        for peer in &self.nats_peers {
            peer.stop().await?;
        }
        if let Some(store) = &self.store {
            store.stop().await?;
        }
        Ok(())
    }

    /// Their processes, to watch over.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let postgres = std::iter::once(&self.postgres).chain(&self.replicas).map(Postgres::process);
        let store = self.store.as_ref().map(Seaweedfs::process);
        postgres.chain([self.redis.process()]).chain(store).chain(self.all_nats().map(Nats::process))
    }
}

/// Starts `process` and waits until `answers` says so.
///
/// # Errors
/// With the last lines of its log if it ends before that.
pub(crate) async fn start_and_wait<F, Fut>(process: &Process, answers: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    process.start()?;
    let name = process.name();
    wait::until(&format!("the answer of {name}"), START_DEADLINE, || async {
        if !process.is_running() {
            bail!("{name} ended at once");
        }
        Ok(answers().await.then_some(()))
    })
    .await
    .with_context(|| format!("{name} says:\n{}", last_lines(process.log(), LAST_LINES)))
}
