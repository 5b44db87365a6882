//! A fleet of real processes: gateways, persister, notifier, retention, and the
//! stand-ins for kaha-main-v3 and for those who bring notifications to phones.
//!
//! What the services are told stands in `fleet/settings.rs`; this file starts,
//! finds and stops them. Dropping a fleet kills everything it started.

mod keys;
mod programs;
mod service;
mod settings;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use self::service::GatewayPorts;
pub use self::{
    programs::{Profile, Programs},
    service::{Role, Service},
};
use crate::{
    kaha::{Kaha, KahaPorts},
    paths,
    ports::Ports,
    process::{Launch, Process, last_lines},
    push_services::{PushPorts, PushServices},
    servers::{Binaries, Durability, Login, NatsServers, Scope, Seaweedfs, Servers, Urls, seaweedfs},
    terminal,
};

/// How long a service may take from its start until it is ready. Long enough
/// for a busy machine of two cores.
pub const READY_DEADLINE: Duration = Duration::from_mins(1);

/// How long a service may take to stop cleanly.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Name of the database of a fleet that has its own servers.
pub const DATABASE: &str = "chat";

/// Directory of the data of a fleet's own servers, in the fleet's.
pub const DATA: &str = "data";

/// Whose servers a fleet uses.
#[derive(Debug, Clone)]
pub enum ServerSource {
    /// Starts its own under `dir/data`, which can be broken at will.
    Own(Durability),
    /// Uses running ones, in the database that the URL names.
    Borrowed(Urls),
}

/// What a fleet is made of.
#[derive(Debug)]
pub struct FleetOptions {
    /// How many gateways.
    pub gateways: usize,
    /// Prefix of the stream, the subjects and the Redis keys.
    pub namespace: String,
    /// How the services are compiled, if `programs` does not say which to run.
    pub profile: Profile,
    /// Logs, keys and data go here. `None`: a scratch directory, removed with the fleet.
    pub dir: Option<PathBuf>,
    /// Whose servers.
    pub servers: ServerSource,
    /// The schema is there already (a copy of a migrated template).
    pub is_migrated: bool,
    /// Three NATS servers instead of one, if the fleet has its own.
    pub nats: NatsServers,
    /// With an object store and the worker that moves bodies of old messages there.
    pub has_cold: bool,
    /// Replicas of PostgreSQL that gateways read from, if the fleet has its own servers.
    pub replicas: usize,
    /// More settings, for every service.
    pub env: Vec<(String, String)>,
    /// More settings, for single services by name; they override the others.
    pub service_env: Vec<ServiceEnv>,
    /// Files that each gateway may open; as many as this program if none.
    pub gateway_files_max: Option<u64>,
    /// The service programs; built when `None`.
    pub programs: Option<Programs>,
    /// The server programs; found or fetched when `None`.
    pub binaries: Option<Binaries>,
    /// Ports by name.
    pub ports: Ports,
    /// Print the services' logs to the terminal, and let them be readable.
    pub is_on_terminal: bool,
}

/// A setting of one service.
#[derive(Debug, Clone)]
pub struct ServiceEnv {
    /// `gateway-2`, `persister` …
    pub service: String,
    /// The environment variable.
    pub name: String,
    /// What it says.
    pub value: String,
}

impl Default for FleetOptions {
    /// Two gateways, throw-away servers and data, quiet.
    fn default() -> Self {
        Self {
            gateways: 2,
            namespace: "chat".to_owned(),
            profile: Profile::Dev,
            dir: None,
            servers: ServerSource::Own(Durability::ThrowAway),
            is_migrated: false,
            nats: NatsServers::One,
            has_cold: false,
            replicas: 0,
            env: Vec::new(),
            service_env: Vec::new(),
            gateway_files_max: None,
            programs: None,
            binaries: None,
            ports: Ports::fresh(),
            is_on_terminal: false,
        }
    }
}

/// Running processes that together are the chat backend.
#[derive(Debug)]
pub struct Fleet {
    // Fields are dropped in this order: the services before what they stand on.
    gateways: Vec<Service>,
    notifier: Service,
    persister: Service,
    retention: Service,
    cold: Option<Service>,
    kaha: Kaha,
    push_services: Box<PushServices>,
    servers: Option<Servers>,
    urls: Urls,
    namespace: String,
    dir: PathBuf,
    scratch: Option<TempDir>,
}

impl Fleet {
    /// Builds what is missing, starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// If something does not build or start; the message ends with the last
    /// lines of the log of the process at fault.
    pub async fn start(options: FleetOptions) -> Result<Self> {
        let fleet = Self::assemble(options).await?;
        fleet.start_services().await?;
        Ok(fleet)
    }

    /// Starts all services and waits until they are ready.
    pub async fn start_services(&self) -> Result<()> {
        for service in self.services() {
            service.start()?;
        }
        for service in self.services() {
            service.wait_ready(READY_DEADLINE).await?;
        }
        Ok(())
    }

    /// Servers running, schema in place, services known but not started.
    pub async fn assemble(options: FleetOptions) -> Result<Self> {
        let programs = match options.programs {
            Some(programs) => programs,
            None => Programs::build(options.profile).await?,
        };
        let (dir, scratch) = if let Some(dir) = options.dir {
            (dir, None)
        } else {
            let scratch = paths::scratch("fleet")?;
            (scratch.path().to_path_buf(), Some(scratch))
        };
        std::fs::create_dir_all(dir.join("logs"))?;
        let (servers, urls, replica_urls) = match options.servers {
            ServerSource::Borrowed(urls) => {
                if options.has_cold {
                    let store = urls.store.as_deref().context("the servers have no object store")?;
                    seaweedfs::wait_ready(store).await?;
                }
                (None, urls, Vec::new())
            }
            ServerSource::Own(durability) => {
                let scope = Scope::Only(&options.namespace);
                let binaries = match options.binaries {
                    Some(binaries) => binaries,
                    None => Binaries::find_or_fetch().await?,
                };
                let data = dir.join(DATA);
                let store = async {
                    let start = Seaweedfs::start_in(&binaries, &data, &options.ports);
                    if options.has_cold { Ok(Some(start.await?)) } else { Ok(None) }
                };
                let servers = own_servers(scope, &binaries, &data, durability, options.nats, &options.ports);
                let (mut servers, store) = tokio::try_join!(servers, store)?;
                servers.store = store;
                servers.start_replicas(options.replicas, &data, durability, &options.ports).await?;
                let (urls, replica_urls) = (servers.urls(DATABASE), servers.replica_urls(DATABASE));
                (Some(servers), urls, replica_urls)
            }
        };
        let keys = keys::Keys::ensure(&dir.join("keys"))?;
        let kaha_ports = KahaPorts { accounts: options.ports.get("kaha")?, api: options.ports.get("kaha-api")? };
        let kaha = Kaha::start(&dir.join("kaha"), kaha_ports, &[&keys.service, &keys.next_service]).await?;
        let push_services =
            Box::pin(PushServices::start(&dir.join("push-services"), push_ports(&options.ports)?)).await?;
        if options.is_on_terminal {
            push_services.print_arrivals(terminal::Prefix::new("phones", 6));
        }
        let settings = settings::Settings {
            urls: &urls,
            replica_urls: &replica_urls,
            namespace: &options.namespace,
            kaha: &kaha,
            push_services: &push_services,
            keys,
            has_cold: options.has_cold,
            extra: &options.env,
            of_services: &options.service_env,
            is_readable: options.is_on_terminal,
        };
        let make = Maker {
            programs: &programs,
            settings: &settings,
            ports: &options.ports,
            dir: &dir,
            gateway_files_max: options.gateway_files_max,
            is_on_terminal: options.is_on_terminal,
        };
        if !options.is_migrated {
            make.run_once("migrate", Login::Owner).await?;
        }
        make.run_once("prepare", Login::Retention).await?;
        let gateways = (1..=options.gateways)
            .map(|number| make.service(Role::Gateway, &format!("gateway-{number}"), number))
            .collect::<Result<Vec<_>>>()?;
        kaha.know_gateways(gateways.iter().map(Service::internal_url).collect());
        Ok(Self {
            gateways,
            notifier: make.service(Role::Notifier, "notifier", 3)?,
            persister: make.service(Role::Persister, "persister", 4)?,
            retention: make.service(Role::Retention, "retention", 5)?,
            cold: options.has_cold.then(|| make.service(Role::Cold, "cold", 2)).transpose()?,
            kaha,
            push_services: Box::new(push_services),
            servers,
            urls,
            namespace: options.namespace,
            dir,
            scratch,
        })
    }

    /// The gateways, in the order of their numbers.
    pub fn gateways(&self) -> &[Service] {
        &self.gateways
    }

    /// Gateway by index; 0 is `gateway-1`.
    ///
    /// # Panics
    /// If the fleet has fewer.
    pub fn gateway(&self, index: usize) -> &Service {
        &self.gateways[index]
    }

    /// The persister.
    pub fn persister(&self) -> &Service {
        &self.persister
    }

    /// The notifier.
    pub fn notifier(&self) -> &Service {
        &self.notifier
    }

    /// The retention worker.
    pub fn retention(&self) -> &Service {
        &self.retention
    }

    /// The worker that moves bodies of old messages, if the fleet has one.
    pub fn cold(&self) -> Option<&Service> {
        self.cold.as_ref()
    }

    /// The stand-in for kaha-main-v3, which also mints tokens.
    pub fn kaha(&self) -> &Kaha {
        &self.kaha
    }

    /// The stand-ins for those who bring notifications to phones and browsers.
    pub fn push_services(&self) -> &PushServices {
        &self.push_services
    }

    /// The fleet's own servers; `None` if it borrowed them.
    pub fn servers(&self) -> Option<&Servers> {
        self.servers.as_ref()
    }

    /// Where the servers are, with the database of Postgres, for the administrator.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// The prefix of the stream, the subjects and the Redis keys.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where logs (`logs/`), keys (`keys/`) and data (`data/`) are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All services: workers first, since gateways need what retention prepares.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        [&self.retention, &self.persister, &self.notifier].into_iter().chain(&self.cold).chain(&self.gateways)
    }

    /// Stops everything cleanly: those who take in work first, those who finish it last.
    pub async fn stop(&self) -> Result<()> {
        let mut failures = Vec::new();
        let workers = [&self.notifier, &self.persister, &self.retention];
        for service in self.gateways.iter().chain(&self.cold).chain(workers) {
            if let Err(error) = service.stop().await {
                failures.push(format!("{error:#}"));
            }
        }
        if let Some(servers) = &self.servers
            && let Err(error) = servers.stop().await
        {
            failures.push(format!("{error:#}"));
        }
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }

    /// Every process: services, then the fleet's own servers.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let servers = self.servers.iter().flat_map(Servers::processes);
        self.services().map(Service::process).chain(servers)
    }

    /// Starts a process that ended, and waits until it is ready.
    ///
    /// # Errors
    /// If there is none of this name, or it does not become ready.
    pub async fn start_again(&self, name: &str) -> Result<()> {
        if let Some(service) = self.services().find(|service| service.name() == name) {
            return service.start_ready().await;
        }
        let mut replicas = self.servers.iter().flat_map(|servers| &servers.replicas);
        if let Some(replica) = replicas.find(|replica| replica.process().name() == name) {
            return replica.start().await;
        }
        match (name, &self.servers) {
            ("postgres", Some(servers)) => servers.postgres.start().await,
            ("redis", Some(servers)) => servers.redis.start().await,
            ("seaweedfs", Some(Servers { store: Some(store), .. })) => store.start().await,
            (_, Some(servers)) => match servers.all_nats().find(|nats| nats.process().name() == name) {
                Some(nats) => nats.start().await,
                None => bail!("the fleet has no process called {name}"),
            },
            _ => bail!("the fleet has no process called {name}"),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(scratch) = self.scratch.take()
        {
            terminal::progress(&format!("the fleet's logs are kept in {}", scratch.keep().display()));
        }
    }
}

fn push_ports(ports: &Ports) -> Result<PushPorts> {
    Ok(PushPorts {
        fcm: ports.get("fcm")?,
        apns: ports.get("apns")?,
        web_push: ports.get("web-push")?,
        webhook: ports.get("webhook")?,
    })
}

async fn own_servers(
    scope: Scope<'_>,
    binaries: &Binaries,
    data: &Path,
    durability: Durability,
    nats: NatsServers,
    ports: &Ports,
) -> Result<Servers> {
    let servers = Servers::start_for(scope, binaries, data, durability, nats, ports).await?;
    servers.postgres.ensure_database(DATABASE).await?;
    Ok(servers)
}

/// Makes services that agree on everything but their names and ports.
struct Maker<'a> {
    programs: &'a Programs,
    settings: &'a settings::Settings<'a>,
    ports: &'a Ports,
    dir: &'a Path,
    gateway_files_max: Option<u64>,
    is_on_terminal: bool,
}

impl Maker<'_> {
    fn service(&self, role: Role, name: &str, position: usize) -> Result<Service> {
        let metrics_port = self.ports.get(&format!("{name}-metrics"))?;
        let ports = match role {
            Role::Gateway => Some(GatewayPorts {
                clients: self.ports.get(name)?,
                internal: self.ports.get(&format!("{name}-internal"))?,
            }),
            Role::Persister | Role::Notifier | Role::Retention | Role::Cold => None,
        };
        let mut launch = self.launch(role, name).args(role.arguments());
        launch.env = self.settings.of(role, ports, metrics_port)?;
        launch.env.extend(self.settings.of_service(name));
        launch.files_max = self.gateway_files_max.filter(|_| role == Role::Gateway);
        launch.prefix = self.is_on_terminal.then(|| terminal::Prefix::new(name, position));
        Ok(Service::new(role, launch, ports, metrics_port))
    }

    /// Runs a command of the retention program that does its work and ends.
    async fn run_once(&self, command: &str, login: Login) -> Result<()> {
        let name = format!("retention-{command}");
        let mut launch = self.launch(Role::Retention, &name).args([command]);
        launch.env = self.settings.of(Role::Retention, None, 0)?;
        launch.env.push(("CHAT_POSTGRES_URL".to_owned(), self.settings.urls.of(login).postgres));
        let process = Process::new(launch);
        process.start()?;
        let status = tokio::time::timeout(READY_DEADLINE, process.exited())
            .await
            .with_context(|| format!("chat-retention {command} did not end"))??;
        if !status.success() {
            bail!("chat-retention {command} failed ({status}):\n{}", last_lines(process.log(), service::LAST_LINES));
        }
        Ok(())
    }

    fn launch(&self, role: Role, name: &str) -> Launch {
        Launch::new(name, self.programs.of(role), self.dir.join("logs").join(format!("{name}.log")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles or not; never runs.
    #[expect(dead_code, reason = "its type check is the test")]
    fn futures_can_be_spawned(fleet: &'static Fleet) {
        fn assert_send(_: impl Send) {}
        assert_send(Fleet::start(FleetOptions::default()));
        assert_send(fleet.gateway(0).start_ready());
        assert_send(fleet.start_again("postgres"));
    }
}
