//! A private Redis without persistence: all it holds can be rebuilt.

use std::path::{Path, PathBuf};

use anyhow::Result;
use aws_lc_rs::digest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Binaries, STOP_DEADLINE,
    logins::{ADMIN, Login, Passwords, Scope, permissions},
    start_and_wait,
    wheels::hex,
};
use crate::{
    ports::Ports,
    process::{Launch, Process},
};

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    data: PathBuf,
    passwords: Passwords,
}

impl Redis {
    /// Starts one that works in `directory/redis`, for any namespace, and waits until it answers.
    pub async fn start_in(binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        Self::start_for(Scope::Any, binaries, directory, ports).await
    }

    /// The same, where services may use the namespaces of `scope`.
    ///
    /// When full it refuses writes instead of evicting: evicted inboxes would
    /// be losses that nobody sees.
    pub async fn start_for(scope: Scope<'_>, binaries: &Binaries, directory: &Path, ports: &Ports) -> Result<Self> {
        let data = directory.join("redis");
        std::fs::create_dir_all(&data)?;
        let passwords = Passwords::ensure(directory)?;
        let users = directory.join("redis.acl");
        std::fs::write(&users, with_passwords(&permissions("redis.acl", scope)?, &passwords))?;
        let port = ports.get("redis")?;
        let launch = Launch::new("redis", &binaries.redis, directory.join("redis.log"))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"])
            .args([Path::new("--aclfile"), &users])
            .args([Path::new("--dir"), &data]);
        let redis = Self { process: Process::new(launch), port, data, passwords };
        redis.start().await?;
        Ok(redis)
    }

    /// Address for clients, as the administrator.
    pub fn url(&self) -> String {
        format!("redis://{ADMIN}:{}@{}", self.passwords.admin(), self.address())
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its working directory. Stays empty unless somebody asks for a dump.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Starts it (again) on the same port, empty.
    pub async fn start(&self) -> Result<()> {
        start_and_wait(&self.process, || async { answers_ping(self.port, &self.passwords).await.is_ok() }).await
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

fn with_passwords(users: &str, passwords: &Passwords) -> String {
    let hash = |password: &str| hex(digest::digest(&digest::SHA256, password.as_bytes()).as_ref());
    users
        .replace("ADMIN_PASSWORD_SHA256", &hash(passwords.admin()))
        .replace("GATEWAY_PASSWORD_SHA256", &hash(&passwords.of(Login::Gateway)))
        .replace("NOTIFIER_PASSWORD_SHA256", &hash(&passwords.of(Login::Notifier)))
}

async fn answers_ping(port: u16, passwords: &Passwords) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("AUTH {ADMIN} {}\r\nPING\r\n", passwords.admin()).as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+OK\r\n+PONG\r\n", "not ready");
    Ok(())
}
