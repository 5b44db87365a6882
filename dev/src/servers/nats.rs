//! Private NATS servers with JetStream, which sync every append to the disk: one alone, or three as a cluster.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use super::{
    Binaries, STOP_DEADLINE,
    logins::{ADMIN, Login, Passwords, Scope, permissions},
    start_and_wait,
};
use crate::{
    ports::Ports,
    process::{Launch, Process, Signal},
};

/// How many servers a cluster has.
pub const CLUSTER_SIZE: usize = 3;

/// A NATS server and its data.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    server_name: String,
    port: u16,
    monitor_port: u16,
    data: PathBuf,
    passwords: Passwords,
}

impl Nats {
    /// Starts one with its data in `directory/nats`, for any namespace, and waits until JetStream is healthy.
    pub async fn start_in(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        Self::start_for(Scope::Any, binaries, directory, ports).await
    }

    /// The same, where services may use the namespaces of `scope`.
    pub async fn start_for(scope: Scope<'_>, binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        let nats = Self::prepare("nats", binaries, directory, ports, &permissions("nats.conf", scope)?)?;
        nats.start().await?;
        Ok(nats)
    }

    /// Starts a cluster of three for any namespace.
    pub async fn start_cluster_in(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Vec<Self>> {
        Self::start_cluster_for(Scope::Any, binaries, directory, ports).await
    }

    /// Starts a cluster of three, called `nats`, `nats-2` and `nats-3`, and waits until all of them are healthy.
    pub async fn start_cluster_for(
        scope: Scope<'_>,
        binaries: &Binaries,
        directory: &Path,
        ports: &Ports,
    ) -> Result<Vec<Self>> {
        let permissions = permissions("nats.conf", scope)?;
        let names = ["nats", "nats-2", "nats-3"];
        let route_ports = names.iter().map(|name| ports.get(&format!("{name}-route"))).collect::<Result<Vec<u16>>>()?;
        let routes = route_ports.iter().fold(String::new(), |mut routes, port| {
            _ = writeln!(routes, "    nats://127.0.0.1:{port}");
            routes
        });
        let mut servers = Vec::with_capacity(CLUSTER_SIZE);
        for (name, port) in names.iter().zip(&route_ports) {
            let cluster =
                format!("cluster {{\n  name: chat-dev\n  listen: 127.0.0.1:{port}\n  routes: [\n{routes}  ]\n}}\n");
            servers.push(Self::prepare(name, binaries, directory, ports, &(cluster + &permissions))?);
        }
        // None is healthy before most of them are there.
        let [one, two, three] = servers.as_slice() else { unreachable!("as many as there are names") };
        tokio::try_join!(one.start(), two.start(), three.start())?;
        Ok(servers)
    }

    fn prepare(name: &str, binaries: &Binaries, directory: &Path, ports: &Ports, more: &str) -> Result<Self> {
        let passwords = Passwords::ensure(directory)?;
        let data = directory.join(name);
        std::fs::create_dir_all(&data)?;
        let (port, monitor_port) = (ports.get(name)?, ports.get(&format!("{name}-monitor"))?);
        let server_name = format!("chat-dev-{name}");
        let config = directory.join(format!("{name}.conf"));
        std::fs::write(&config, configuration(&server_name, port, monitor_port, &data) + more)?;
        let log = directory.join(format!("{name}.log"));
        let mut launch = Launch::new(name, &binaries.nats, log).args([Path::new("--config"), &config]);
        // On SIGTERM it reports a failure.
        launch.stop_signal = Signal::INT;
        launch.env = environment(&passwords);
        Ok(Self { process: Process::new(launch), server_name, port, monitor_port, data, passwords })
    }

    /// What it calls itself to others, such as in who leads a stream.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Address for clients, as the administrator.
    pub fn url(&self) -> String {
        format!("nats://{ADMIN}:{}@{}", self.passwords.admin(), self.address())
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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

    /// Removes all streams of a server that does not run.
    pub fn empty(&self) -> Result<()> {
        ensure!(!self.process.is_running(), "the server runs");
        std::fs::remove_dir_all(&self.data)?;
        Ok(std::fs::create_dir_all(&self.data)?)
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

/// The passwords that `permissions/nats.conf` takes from the environment.
fn environment(passwords: &Passwords) -> Vec<(String, String)> {
    let of_services = [
        ("GATEWAY", Login::Gateway),
        ("PERSISTER", Login::Persister),
        ("NOTIFIER", Login::Notifier),
        ("KAHA", Login::Kaha),
    ]
    .map(|(name, login)| (name, passwords.of(login)));
    let all = [("ADMIN", passwords.admin().to_owned())].into_iter().chain(of_services);
    all.map(|(name, password)| (format!("CHAT_NATS_{name}_PASSWORD"), password)).collect()
}

/// `sync_interval: always` makes an acknowledgement of a single server mean "on
/// the disk"; the default would sync every two minutes. Streams set room aside that
/// they don't use: those of all tests together far more than any disk has.
fn configuration(server_name: &str, port: u16, monitor_port: u16, data: &Path) -> String {
    format!(
        "server_name: {server_name}\n\
         listen: 127.0.0.1:{port}\n\
         http: 127.0.0.1:{monitor_port}\n\
         max_payload: 1MB\n\
         jetstream {{\n\
         \x20 store_dir: \"{}\"\n\
         \x20 sync_interval: always\n\
         \x20 max_memory_store: 256MB\n\
         \x20 max_file_store: 1TB\n\
         }}\n",
        data.display()
    )
}
