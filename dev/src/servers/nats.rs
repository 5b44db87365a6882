//! A private NATS server with JetStream, which syncs every append to the disk.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Binaries, STOP_DEADLINE, start_and_wait};
use crate::{
    ports::Ports,
    process::{Launch, Process, Signal},
};

/// A NATS server and its data.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    port: u16,
    monitor_port: u16,
    data: PathBuf,
}

impl Nats {
    /// Starts one with its data in `directory/nats` and waits until JetStream is healthy.
    pub async fn start_in(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        let data = directory.join("nats");
        std::fs::create_dir_all(&data)?;
        let (port, monitor_port) = (ports.get("nats")?, ports.get("nats-monitor")?);
        let config = directory.join("nats.conf");
        std::fs::write(&config, configuration(port, monitor_port, &data))?;
        let mut launch =
            Launch::new("nats", &binaries.nats, directory.join("nats.log")).args([Path::new("--config"), &config]);
        // On SIGTERM it reports a failure.
        launch.stop_signal = Signal::INT;
        let nats = Self { process: Process::new(launch), port, monitor_port, data };
        nats.start().await?;
        Ok(nats)
    }

    /// Address for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Address of the monitoring endpoint (`/healthz`, `/jsz`, `/varz`).
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Where the streams are.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Starts it (again), on the same ports with the same data.
    pub async fn start(&self) -> Result<()> {
        let health = format!("{}/healthz", self.monitor_url());
        start_and_wait(&self.process, || async {
            reqwest::get(&health).await.is_ok_and(|response| response.status().is_success())
        })
        .await
    }

    /// Ends it cleanly.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(STOP_DEADLINE).await
    }

    /// SIGKILL.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// Freezes it; connections stay open.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Thaws it.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// `sync_interval: always` makes an acknowledgement of a single server mean "on
/// the disk"; the default would sync every two minutes.
fn configuration(port: u16, monitor_port: u16, data: &Path) -> String {
    format!(
        "server_name: chat-dev\n\
         listen: 127.0.0.1:{port}\n\
         http: 127.0.0.1:{monitor_port}\n\
         max_payload: 1MB\n\
         jetstream {{\n\
         \x20 store_dir: \"{}\"\n\
         \x20 sync_interval: always\n\
         \x20 max_memory_store: 256MB\n\
         \x20 max_file_store: 64GB\n\
         }}\n",
        data.display()
    )
}
