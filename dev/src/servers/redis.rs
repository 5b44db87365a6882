//! A private Redis without persistence: all it holds can be rebuilt.

use std::path::{Path, PathBuf};

use ::redis::FromRedisValue;
use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Binaries, START_DEADLINE, STOP_DEADLINE,
    logins::{ADMIN, Login, Passwords, Scope, permissions},
    start_and_wait,
    wheels::hex,
};
use crate::{
    ports::Ports,
    process::{Launch, Process},
    wait,
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
        let passwords = Passwords::ensure(directory)?;
        let users = directory.join("redis.acl");
        std::fs::write(&users, with_passwords(&permissions("redis.acl", scope)?, &passwords))?;
        Self::launch("redis", binaries, directory, ports, passwords, &[]).await
    }

    /// Starts another server beside this one, which copies it, and waits until it has.
    pub async fn start_replica(&self, binaries: &Binaries, ports: &Ports) -> Result<Self> {
        let directory = self.data.parent().context("servers work in a directory")?;
        // Else it waits five seconds for more replicas.
        self.says(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await?;
        let port = self.port.to_string();
        let of = ["--replicaof", "127.0.0.1", &port, "--masteruser", ADMIN, "--masterauth", self.passwords.admin()];
        let replica = Self::launch("redis-replica", binaries, directory, ports, self.passwords.clone(), &of).await?;
        wait::until("a whole copy of Redis", START_DEADLINE, || async {
            let info: String = replica.ask(&["INFO", "replication"]).await?;
            Ok(info.contains("master_link_status:up").then_some(()))
        })
        .await?;
        Ok(replica)
    }

    async fn launch(
        name: &str,
        binaries: &Binaries,
        directory: &Path,
        ports: &Ports,
        passwords: Passwords,
        more: &[&str],
    ) -> Result<Self> {
        let data = directory.join(name);
        std::fs::create_dir_all(&data)?;
        let users = directory.join("redis.acl");
        let port = ports.get(name)?;
        let launch = Launch::new(name, &binaries.redis, directory.join(format!("{name}.log")))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"])
            .args([Path::new("--aclfile"), &users])
            .args([Path::new("--dir"), &data])
            .args(more);
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

    /// Has it do something, as the administrator.
    pub async fn says(&self, words: &[&str]) -> Result<()> {
        self.ask(words).await
    }

    /// Asks it something, as the administrator.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let (name, rest) = words.split_first().context("a command has a name")?;
        let mut connection = ::redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        Ok(::redis::cmd(name).arg(rest).query_async(&mut connection).await?)
    }

    /// Makes it a replica of another one.
    pub async fn follow(&self, primary: &Self) -> Result<()> {
        self.says(&["CONFIG", "SET", "masteruser", ADMIN]).await?;
        self.says(&["CONFIG", "SET", "masterauth", primary.passwords.admin()]).await?;
        self.says(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]).await
    }

    /// Starts it (again) on the same port: with its dump if there is one, else empty.
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

    /// Removes the dumps of a server that does not run.
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
