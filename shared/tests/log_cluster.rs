//! The log on three NATS servers.

use std::path::Path;

use anyhow::Result;
use chat_dev::{
    ports::Ports,
    servers::Nats,
    test_servers::{TestServers, unique_namespace},
};
use chat_shared::log::{self, Log, Replicas};

/// Services that start at the same time.
const SERVICES: usize = 4;
/// Logs that are made one after the other, each by all of them at once.
const LOGS: usize = 4;

#[tokio::test]
async fn services_that_start_at_once_all_open_a_log_that_none_has_made_yet() -> Result<()> {
    let test = TestServers::from_env()?;
    let directory = tempfile::Builder::new().prefix("cluster").tempdir_in(Path::new(&test.scratch))?;
    let servers = Nats::start_cluster_in(&test.binaries, directory.path(), &Ports::fresh()).await?;
    let urls: Vec<_> = servers.iter().map(Nats::url).collect();
    for _ in 0..LOGS {
        let namespace = unique_namespace();
        let opening = (0..SERVICES).map(|_| {
            let (namespace, urls) = (namespace.clone(), urls.join(","));
            async move {
                let client = log::connect(&urls, "log-test", |_| {}).await?;
                anyhow::Ok(Log::open(&client, &namespace, Replicas { count: 3, bytes_max: 1 << 20 }).await?)
            }
        });
        for opened in futures_util::future::join_all(opening).await {
            opened?.state().await?;
        }
    }
    Ok(())
}
