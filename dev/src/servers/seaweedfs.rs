//! A private object store: SeaweedFS, which speaks the protocol of S3 and checks signatures and rights.
//!
//! Its inner parts ask for no password, so whoever reaches their ports of 127.0.0.1 reads and writes the bucket. It is for
//! development and tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use chat_cold::store::{Purpose, PutError, Store, StoreSettings};
use serde_json::json;

use super::{
    Binaries, START_DEADLINE, STOP_DEADLINE,
    logins::{ADMIN, Login, Passwords},
    start_and_wait,
};
use crate::{
    ports::Ports,
    process::{Launch, Process, Signal},
    stand_in::write_secret,
    wait,
};

/// The bucket that is there from the start.
const BUCKET: &str = "chat";
/// An object that shows whether the bucket can be used.
const PROBE: &str = "probe";
/// Parts of the server. Each listens on a port, and for the other parts on one more and on sockets.
const PARTS: [&str; 4] = ["s3", "filer", "volume", "master"];
/// Where the sockets are, whatever the temporary directory is.
const SOCKETS: &str = "/tmp";
/// Bytes of memory beside those of the program's file, about.
const MEMORY: &str = "200MiB";

/// A server with one bucket.
#[derive(Debug)]
pub struct Seaweedfs {
    process: Process,
    // Dropped after the process, which uses them.
    sockets: Sockets,
    port: u16,
    filer_port: u16,
    data: PathBuf,
    passwords: Passwords,
}

impl Seaweedfs {
    /// Starts one with its data in `directory/seaweedfs`, and waits until its bucket can be used.
    pub async fn start_in(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        let seaweedfs = Self::prepare(binaries, directory, ports)?;
        seaweedfs.start().await?;
        Ok(seaweedfs)
    }

    /// Chooses its ports and writes its settings. It does not run yet.
    pub fn prepare(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        let passwords = Passwords::ensure(directory)?;
        let data = directory.join("seaweedfs");
        std::fs::create_dir_all(&data)?;
        let identities = directory.join("seaweedfs.json");
        write_secret(&identities, &serde_json::to_vec_pretty(&identities_of(&passwords))?)?;
        let mut launch = Launch::new("seaweedfs", &binaries.seaweedfs, directory.join("seaweedfs.log"))
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            // Else it reports to those who make it.
            .args(["-master.telemetry=false"])
            // Else it waits for others, and its parts try again only after five seconds.
            .args(["-master.peers=none"])
            .args(["-master.volumeSizeLimitMB=1024", "-volume.max=100"])
            .args(["-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args([format!("-dir={}", data.display()), format!("-s3.config={}", identities.display())]);
        let (mut part_ports, mut sockets) = (Vec::new(), Vec::new());
        for part in PARTS {
            let (port, inner) =
                (ports.get(&format!("seaweedfs-{part}"))?, ports.get(&format!("seaweedfs-{part}-grpc"))?);
            launch = launch.args([format!("-{part}.port={port}"), format!("-{part}.port.grpc={inner}")]);
            sockets.push(Path::new(SOCKETS).join(format!("seaweedfs-{part}-{port}.sock")));
            sockets.push(Path::new(SOCKETS).join(format!("seaweedfs-{part}-grpc-{inner}.sock")));
            part_ports.push(port);
        }
        launch.env = vec![("GOMEMLIMIT".to_owned(), MEMORY.to_owned())];
        // On SIGTERM it waits for streams between its own parts, 15 s or for good. What it has acknowledged is in its files
        // by then.
        launch.stop_signal = Signal::KILL;
        Ok(Self {
            process: Process::new(launch),
            sockets: Sockets(sockets),
            port: part_ports[0],
            filer_port: part_ports[1],
            data,
            passwords,
        })
    }

    /// Address of its bucket for clients, as the administrator.
    pub fn url(&self) -> String {
        format!("http://{ADMIN}:{}@{}/{BUCKET}", self.passwords.admin(), self.address())
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where the objects are.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Starts it (again), on the same ports with the same data.
    pub async fn start(&self) -> Result<()> {
        self.sockets.remove();
        let bucket = format!("http://127.0.0.1:{}/buckets/{BUCKET}/", self.filer_port);
        let store = open(&self.url(), Purpose::Reading)?;
        let client = reqwest::Client::new();
        start_and_wait(&self.process, || async {
            // Makes the bucket, or finds that it is there.
            client.post(&bucket).send().await.is_ok() && is_usable(&store).await
        })
        .await
    }

    /// Ends it.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(STOP_DEADLINE).await?;
        self.sockets.remove();
        Ok(())
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

/// What clients may do with the bucket.
fn identities_of(passwords: &Passwords) -> serde_json::Value {
    let identity = |name: &str, secret: String, actions: &[&str]| {
        let actions: Vec<_> = actions.iter().map(|action| format!("{action}:{BUCKET}")).collect();
        json!({ "name": name, "credentials": [{ "accessKey": name, "secretKey": secret }], "actions": actions })
    };
    let service = |login: Login, actions: &[&str]| identity(login.name(), passwords.of(login), actions);
    json!({ "identities": [
        identity(ADMIN, passwords.admin().to_owned(), &["Admin"]),
        // To write is to delete too.
        service(Login::Cold, &["Read", "Write", "List"]),
        service(Login::Gateway, &["Read"]),
    ] })
}

/// Whether an object can be written, read and deleted. It has bytes, or it would need only a part of the server.
async fn is_usable(store: &Store) -> bool {
    let written = store.put_new(PROBE, Bytes::from_static(PROBE.as_bytes())).await;
    matches!(written, Ok(()) | Err(PutError::Exists))
        && store.read(PROBE).await.is_ok()
        && store.delete(PROBE).await.is_ok()
}

/// The settings of a service that uses the store at `url`: `http://key:secret@host:port/bucket/prefix`.
pub fn settings(url: &str) -> Result<StoreSettings> {
    let mut endpoint: reqwest::Url = url.parse().context("this is no address of an object store")?;
    let place = format!("s3:/{}", endpoint.path());
    let (key, secret) = (endpoint.username().to_owned(), endpoint.password().unwrap_or_default().to_owned());
    endpoint.set_path("");
    _ = endpoint.set_username("");
    _ = endpoint.set_password(None);
    Ok(StoreSettings {
        cold_store_url: Some(place.parse()?),
        cold_store_endpoint: Some(endpoint),
        cold_store_access_key_id: Some(key),
        cold_store_secret_access_key: Some(secret.into()),
        ..StoreSettings::default()
    })
}

/// The same settings as environment variables.
pub fn environment(url: &str) -> Result<Vec<(&'static str, String)>> {
    let settings = settings(url)?;
    let text = |url: Option<reqwest::Url>| url.map(|url| url.to_string()).unwrap_or_default();
    Ok(vec![
        ("CHAT_COLD_STORE_URL", text(settings.cold_store_url)),
        ("CHAT_COLD_STORE_ENDPOINT", text(settings.cold_store_endpoint)),
        ("CHAT_COLD_STORE_ACCESS_KEY_ID", settings.cold_store_access_key_id.unwrap_or_default()),
        (
            "CHAT_COLD_STORE_SECRET_ACCESS_KEY",
            settings.cold_store_secret_access_key.map(|secret| secret.expose().to_owned()).unwrap_or_default(),
        ),
    ])
}

/// A client of the store at `url`.
pub fn open(url: &str, purpose: Purpose) -> Result<Store> {
    Store::open(&settings(url)?, purpose)?.context("the settings name a store")
}

/// Waits until the store at `url`, which is the administrator's, can be used.
pub async fn wait_ready(url: &str) -> Result<()> {
    let store = open(url, Purpose::Reading)?;
    wait::until("an object store that can be used", START_DEADLINE, || async {
        Ok(is_usable(&store).await.then_some(()))
    })
    .await
}

/// Files that a server which is killed leaves behind.
#[derive(Debug)]
struct Sockets(Vec<PathBuf>);

impl Sockets {
    fn remove(&self) {
        for socket in &self.0 {
            _ = std::fs::remove_file(socket);
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_started_without_telemetry_and_on_this_machine_only() {
        let directory = tempfile::tempdir().unwrap();
        let none = PathBuf::from("none");
        let binaries = Binaries { nats: none.clone(), postgres: none.clone(), redis: none.clone(), seaweedfs: none };
        let seaweedfs = Seaweedfs::prepare(&binaries, directory.path(), &Ports::fresh()).unwrap();
        for argument in ["-master.telemetry=false", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"] {
            assert!(seaweedfs.process.args().iter().any(|given| given == argument), "{argument}");
        }
    }

    #[test]
    fn an_address_is_settings_and_variables() {
        let settings = settings("http://key:secret@127.0.0.1:3/chat/a/b").unwrap();
        assert_eq!(settings.cold_store_url.unwrap().as_str(), "s3://chat/a/b");
        assert_eq!(settings.cold_store_endpoint.unwrap().as_str(), "http://127.0.0.1:3/");
        let variables = environment("http://key:secret@127.0.0.1:3/chat").unwrap();
        assert!(variables.contains(&("CHAT_COLD_STORE_SECRET_ACCESS_KEY", "secret".to_owned())));
    }
}
