//! `.dev/fleet.json`: what `cargo dev up` runs, for scripts and tools.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use chat_shared::wire::{Platform, StaffRole};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    fleet::{DATABASE, Fleet},
    kaha::{Person, TOKEN_TTL},
    process::Process,
    servers::Servers,
};

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FleetFile {
    /// The process of `cargo dev up`.
    pub pid: u32,
    /// Prefix of stream, subjects and Redis keys.
    pub namespace: String,
    /// Where clients connect.
    pub gateways: Vec<GatewayEntry>,
    /// Every process: services first, then servers.
    pub processes: Vec<ProcessEntry>,
    /// With the database.
    pub postgres_url: String,
    /// PostgreSQL's replicas.
    #[serde(default)]
    pub replica_urls: Vec<String>,
    /// Redis.
    pub redis_url: String,
    /// The broker.
    pub nats_url: String,
    /// The bucket of the object store and the prefix, if there is one.
    pub store_url: Option<String>,
    /// The broker's monitoring endpoint, if the fleet has its own broker.
    pub nats_monitor_url: Option<String>,
    /// The stand-in for kaha-main-v3.
    pub kaha_url: String,
    /// The stand-ins for those who bring notifications, by platform.
    pub push_service_urls: BTreeMap<String, String>,
    /// Directory of the processes' logs.
    pub logs: PathBuf,
    /// People ready to chat.
    pub users: Vec<UserEntry>,
    /// A business ready to chat.
    pub business: BusinessEntry,
}

/// One gateway.
#[derive(Debug, Serialize, Deserialize)]
pub struct GatewayEntry {
    /// `gateway-1` …
    pub name: String,
    /// Base of the REST endpoints.
    pub url: String,
    /// The WebSocket.
    pub ws_url: String,
    /// Base of what other services call.
    pub internal_url: String,
}

/// One process.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Unique in the fleet.
    pub name: String,
    /// While it runs.
    pub pid: Option<u32>,
    /// Base of `/metrics`, `/livez` and `/readyz`; servers have none.
    pub metrics_url: Option<String>,
    /// Its log file.
    pub log: PathBuf,
}

/// One user.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserEntry {
    /// The user id.
    pub id: Uuid,
    /// What to call them.
    pub name: String,
    /// Good for almost a day.
    pub token: String,
}

/// The business.
#[derive(Debug, Serialize, Deserialize)]
pub struct BusinessEntry {
    /// The business id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its staff.
    pub staff: Vec<StaffEntry>,
}

/// A member of the staff.
#[derive(Debug, Serialize, Deserialize)]
pub struct StaffEntry {
    /// The user.
    #[serde(flatten)]
    pub user: UserEntry,
    /// The role in the business.
    pub role: StaffRole,
}

impl FleetFile {
    /// Describes a running fleet, with fresh tokens.
    pub fn describe(fleet: &Fleet) -> Result<Self> {
        let tokens = fleet.kaha().tokens();
        let user = |person: &Person| {
            let token = tokens.user(person.id, Some(&person.name), TOKEN_TTL)?;
            Ok(UserEntry { id: person.id, name: person.name.clone(), token })
        };
        let business = fleet.kaha().business();
        let staff =
            business.staff.iter().map(|member| Ok(StaffEntry { user: user(&member.person)?, role: member.role }));
        let gateways = fleet.gateways().iter().map(|gateway| GatewayEntry {
            name: gateway.name().to_owned(),
            url: gateway.url(),
            ws_url: gateway.ws_url(),
            internal_url: gateway.internal_url(),
        });
        Ok(Self {
            pid: std::process::id(),
            namespace: fleet.namespace().to_owned(),
            gateways: gateways.collect(),
            processes: processes(fleet),
            postgres_url: fleet.urls().postgres.clone(),
            replica_urls: fleet.servers().map(|servers| servers.replica_urls(DATABASE)).unwrap_or_default(),
            redis_url: fleet.urls().redis.clone(),
            nats_url: fleet.urls().nats.clone(),
            store_url: fleet.urls().store.clone(),
            nats_monitor_url: fleet.servers().map(|servers| servers.nats.monitor_url()),
            kaha_url: fleet.kaha().url(),
            push_service_urls: Platform::ALL
                .into_iter()
                .map(|platform| (platform.as_str().to_owned(), fleet.push_services().url(platform)))
                .collect(),
            logs: fleet.dir().join("logs"),
            users: fleet.kaha().people().iter().map(user).collect::<Result<_>>()?,
            business: BusinessEntry {
                id: business.id,
                name: business.name.clone(),
                staff: staff.collect::<Result<_>>()?,
            },
        })
    }

    /// Writes it so that only the owner can read it (it holds tokens), and so
    /// that a reader sees all of it or nothing.
    pub fn write(&self, file: &Path) -> Result<()> {
        let draft = file.with_extension("json.draft");
        _ = std::fs::remove_file(&draft);
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .with_context(|| format!("cannot write {}", draft.display()))?;
        out.write_all(&serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&draft, file)?;
        Ok(())
    }

    /// Reads it.
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read(file).with_context(|| format!("cannot read {}; is cargo dev up running?", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }
}

fn processes(fleet: &Fleet) -> Vec<ProcessEntry> {
    let entry = |process: &Process, metrics_url| ProcessEntry {
        name: process.name().to_owned(),
        pid: process.pid(),
        metrics_url,
        log: process.log().to_path_buf(),
    };
    let services = fleet.services().map(|service| entry(service.process(), Some(service.metrics_url())));
    let servers = fleet.servers().into_iter().flat_map(Servers::processes).map(|process| entry(process, None));
    services.chain(servers).collect()
}
