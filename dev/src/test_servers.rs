//! The servers that `cargo dev test` started, as its tests see them.
//!
//! Tests of other crates read the same JSON by themselves: `postgres_url` (of
//! the maintenance database), `postgres_template`, `nats_url`, `redis_url`, `store_url`. The
//! addresses are the administrator's; a service's are made from them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    fleet::{FleetOptions, Programs, ServerSource},
    paths,
    servers::{Binaries, Durability, Urls, postgres, seaweedfs},
};

/// The environment variable that carries them.
pub const VARIABLE: &str = "CHAT_TEST_SERVERS";

/// Servers shared by all tests of one run, and the programs they need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestServers {
    /// The maintenance database.
    pub postgres_url: String,
    /// A migrated database that nobody connects to, to be copied.
    pub postgres_template: String,
    /// The broker.
    pub nats_url: String,
    /// Redis.
    pub redis_url: String,
    /// The bucket of the object store, which may still be starting.
    pub store_url: String,
    /// The compiled services.
    pub programs: Programs,
    /// The server programs, for tests that need servers of their own.
    pub binaries: Binaries,
    /// A directory for whatever tests write; removed after the run.
    pub scratch: PathBuf,
}

impl TestServers {
    /// Reads what `cargo dev test` wrote.
    ///
    /// # Errors
    /// If the test was not started by it.
    pub fn from_env() -> Result<Self> {
        let text = paths::environment(VARIABLE).context("this test needs servers; run it with: cargo dev test")?;
        serde_json::from_slice(text.as_encoded_bytes())
            .with_context(|| format!("{VARIABLE} is not what cargo dev test writes"))
    }

    /// Makes an isolated, migrated database; its URL, the shared NATS and Redis, and a prefix of the object store, which
    /// may still be starting. All are the administrator's.
    pub async fn isolated(&self) -> Result<Urls> {
        let name = format!("test_{}", Uuid::new_v4().simple());
        postgres::copy_database(&self.postgres_url, &self.postgres_template, &name).await?;
        let (server, _) = self.postgres_url.rsplit_once('/').context("the URL of Postgres names no database")?;
        Ok(Urls {
            postgres: format!("{server}/{name}"),
            nats: self.nats_url.clone(),
            redis: self.redis_url.clone(),
            store: Some(format!("{}/{name}", self.store_url)),
        })
    }

    /// A prefix of the object store that no other test uses, for the administrator; waits until it can be used.
    pub async fn store(&self) -> Result<String> {
        let url = format!("{}/{}", self.store_url, unique_namespace());
        seaweedfs::wait_ready(&url).await?;
        Ok(url)
    }

    /// A fleet with a database and a namespace of its own, on the shared servers.
    pub async fn shared_fleet(&self) -> Result<FleetOptions> {
        Ok(FleetOptions {
            servers: ServerSource::Borrowed(self.isolated().await?),
            is_migrated: true,
            ..self.options()
        })
    }

    /// A fleet with servers of its own, for tests that break servers.
    pub fn private_fleet(&self) -> FleetOptions {
        FleetOptions { servers: ServerSource::Own(Durability::ThrowAway), ..self.options() }
    }

    fn options(&self) -> FleetOptions {
        FleetOptions {
            namespace: unique_namespace(),
            programs: Some(self.programs.clone()),
            binaries: Some(self.binaries.clone()),
            ..FleetOptions::default()
        }
    }
}

/// A prefix that no other test uses, valid in subjects, stream names and keys.
pub fn unique_namespace() -> String {
    let id = Uuid::new_v4().simple().to_string();
    format!("test{}", &id[..12])
}
