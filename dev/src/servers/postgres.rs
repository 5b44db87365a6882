//! A private PostgreSQL, under another user when we are root.

use std::{
    fs::Permissions,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, Executor, PgConnection, migrate::Migrator};

use super::{
    Binaries, Durability, STOP_DEADLINE, account,
    account::Account,
    logins::{Login, Passwords, Scope, permissions},
    start_and_wait,
};
use crate::{
    paths,
    ports::Ports,
    process::{Launch, Process, Signal},
    wait,
};

/// How long the connections of a database that is to be dropped or copied may linger.
const QUIET_DEADLINE: Duration = Duration::from_secs(20);

/// Who made the cluster, and may do everything in it.
const SUPERUSER: &str = "postgres";

/// A PostgreSQL cluster and its server.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    tools: PathBuf,
    data: PathBuf,
    account: Option<Account>,
    passwords: Passwords,
}

impl Postgres {
    /// Starts one with its data in `directory/postgres` (or where that stands
    /// for, see [`data_dir_for`]), making the cluster first if there is none, and who logs in to it.
    pub async fn start_in(
        binaries: &Binaries,
        directory: &Path,
        durability: Durability,
        ports: &Ports,
    ) -> Result<Self> {
        let account = Account::unprivileged()?;
        std::fs::create_dir_all(directory)?;
        let data = account::reachable(&directory.join("postgres"), account.as_ref());
        let tools = binaries.postgres.clone();
        let port = ports.get("postgres")?;
        let passwords = Passwords::ensure(directory)?;
        tokio::task::spawn_blocking({
            let (tools, data, account, passwords) = (tools.clone(), data.clone(), account.clone(), passwords.clone());
            move || make_cluster(&tools, &data, account.as_ref(), &passwords)
        })
        .await??;
        let launch = Launch::new("postgres", &tools.join("postgres"), directory.join("postgres.log"));
        let process = process(launch, &data, port, durability, account.as_ref());
        let postgres = Self { process, port, tools, data, account, passwords };
        postgres.start().await?;
        postgres.make_logins().await?;
        Ok(postgres)
    }

    /// Starts a streaming replica of this server, called `name`, copied anew, with data and log in `directory`, or where that
    /// stands for as with this server.
    pub async fn start_replica(
        &self,
        directory: &Path,
        name: &str,
        durability: Durability,
        ports: &Ports,
    ) -> Result<Self> {
        let data = account::reachable(&directory.join(name), self.account.as_ref());
        if data.exists() {
            tokio::fs::remove_dir_all(&data).await?;
        }
        self.copy_to(&data, &["--write-recovery-conf"]).await?;
        let port = ports.get(name)?;
        let launch = Launch::new(name, &self.tools.join("postgres"), directory.join(format!("{name}.log")));
        let process = process(launch, &data, port, durability, self.account.as_ref());
        let (tools, account, passwords) = (self.tools.clone(), self.account.clone(), self.passwords.clone());
        let replica = Self { process, port, tools, data, account, passwords };
        replica.start().await?;
        Ok(replica)
    }

    /// Address of the maintenance database, as the superuser.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// Address of `database`, as the superuser.
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.passwords.admin(), self.port)
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        self.passwords.admin()
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the cluster really is.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The directory of `pg_dump` and the other tools.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// Starts it (again), on the same port with the same data.
    ///
    /// After [`Self::kill`] this includes crash recovery.
    pub async fn start(&self) -> Result<()> {
        remove_stale_lock(&self.data);
        let url = self.url();
        start_and_wait(&self.process, || async { PgConnection::connect(&url).await.is_ok() }).await
    }

    /// Ends it cleanly, without waiting for clients.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(STOP_DEADLINE).await
    }

    /// SIGKILL to the server and all its backends.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// Copies the running cluster to a directory beside its own.
    pub async fn back_up(&self) -> Result<PathBuf> {
        let copy = self.data.with_extension("backup");
        self.copy_to(&copy, &[]).await?;
        Ok(copy)
    }

    async fn copy_to(&self, copy: &Path, options: &[&str]) -> Result<()> {
        std::fs::create_dir_all(copy).with_context(|| format!("cannot make {}", copy.display()))?;
        std::fs::set_permissions(copy, Permissions::from_mode(0o700))?;
        let mut command = tokio::process::Command::new(self.tools.join("pg_basebackup"));
        command
            .args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"])
            .args(["--host=127.0.0.1", &format!("--port={}", self.port), &format!("--username={SUPERUSER}")])
            .args(options)
            .arg("--pgdata")
            .arg(copy)
            .env("PGPASSWORD", self.passwords.admin())
            .current_dir("/");
        if let Some(account) = &self.account {
            account.own(copy)?;
            command.uid(account.uid).gid(account.gid);
        }
        let output = command.output().await.context("cannot run pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Puts a copy in the place of the cluster, whose server doesn't run.
    pub async fn restore(&self, copy: &Path) -> Result<()> {
        ensure!(!self.process.is_running(), "the server runs");
        tokio::fs::remove_dir_all(&self.data).await?;
        Ok(tokio::fs::rename(copy, &self.data).await?)
    }

    /// Freezes the server and all its backends; connections stay open.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Thaws them.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes the services' roles and a user in each, unless they are there.
    async fn make_logins(&self) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        connection.execute(sqlx::AssertSqlSafe(permissions("postgres.sql", Scope::Any)?)).await?;
        for login in Login::OF_POSTGRES {
            let (name, password) = (login.postgres_name(), self.passwords.of(login));
            let question = format!("select from pg_roles where rolname = '{name}'");
            if connection.fetch_optional(sqlx::AssertSqlSafe(question)).await?.is_none() {
                let statement = format!("create role {name} login password '{password}'");
                connection.execute(sqlx::AssertSqlSafe(statement)).await?;
            }
            for role in login.roles() {
                connection.execute(sqlx::AssertSqlSafe(format!("grant {role} to {name}"))).await?;
            }
        }
        Ok(connection.close().await?)
    }

    /// Makes an empty database, in which the owner of the tables may make them, unless it exists.
    pub async fn ensure_database(&self, name: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let question = format!("SELECT 1 FROM pg_database WHERE datname = '{name}'");
        let found = connection.fetch_optional(sqlx::AssertSqlSafe(question)).await?;
        if found.is_none() {
            let statement = format!("CREATE DATABASE {name} OWNER {}", Login::Owner.postgres_name());
            connection.execute(sqlx::AssertSqlSafe(statement)).await?;
        }
        Ok(connection.close().await?)
    }
}

/// Brings the schema of a database up to date with this checkout, and says what services may do in it, like
/// `chat-retention migrate`.
pub async fn migrate(url: &str) -> Result<()> {
    let directory = paths::workspace_root()?.join("migrations");
    let migrator =
        Migrator::new(directory.as_path()).await.with_context(|| format!("cannot read {}", directory.display()))?;
    let mut connection = PgConnection::connect(url).await?;
    migrator.run(&mut connection).await.context("the migrations fail")?;
    let grants = permissions("grants.sql", Scope::Any)?;
    connection.execute(sqlx::AssertSqlSafe(grants)).await.context("permissions/grants.sql fails")?;
    Ok(connection.close().await?)
}

/// Copies the database `template` of the server at `server_url` to a new one.
///
/// Nobody may be connected to the template; someone who is just leaving is waited for.
pub async fn copy_database(server_url: &str, template: &str, name: &str) -> Result<()> {
    let statement = format!("CREATE DATABASE {name} TEMPLATE {template} OWNER {}", Login::Owner.postgres_name());
    wait::until(&format!("the end of work in {template}"), QUIET_DEADLINE, || async {
        match execute(server_url, &statement).await {
            Ok(()) => Ok(Some(())),
            Err(error) if is_code(&error, "55006") => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Drops a database of the server at `server_url`, ending its connections.
pub async fn drop_database(server_url: &str, name: &str) -> Result<()> {
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    Ok(execute(server_url, &statement).await?)
}

/// Where the data of a cluster wanted in `directory` is: in `directory/postgres`,
/// or, if we are root and no other user can get there, under `/var/lib`.
pub fn data_dir_for(directory: &Path) -> Result<PathBuf> {
    let account = Account::unprivileged()?;
    Ok(account::reachable(&directory.join("postgres"), account.as_ref()))
}

/// Only names made in this crate get here, so there is nothing to quote.
async fn execute(url: &str, statement: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await?;
    connection.close().await
}

fn is_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(code)
}

fn process(launch: Launch, data: &Path, port: u16, durability: Durability, account: Option<&Account>) -> Process {
    let mut launch = launch.args([Path::new("-D"), data]).args(["-p", &port.to_string()]);
    for setting in settings(durability) {
        launch = launch.args(["-c", setting]);
    }
    launch.account = account.cloned();
    // A fast shutdown: does not wait for clients to leave.
    launch.stop_signal = Signal::INT;
    launch.has_family = true;
    Process::new(launch)
}

fn settings(durability: Durability) -> impl Iterator<Item = &'static str> {
    let sync = match durability {
        Durability::Kept => [].as_slice(),
        Durability::ThrowAway => &["fsync=off", "full_page_writes=off"],
    };
    [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=64MB",
        // A statement may touch a hundred partitions, each with its indexes.
        "max_locks_per_transaction=256",
        "max_wal_size=512MB",
        // A replica that is paused or down for a while follows again.
        "wal_keep_size=256MB",
        "wal_retrieve_retry_interval=200ms",
        "max_standby_streaming_delay=1s",
        "timezone=UTC",
        "log_timezone=UTC",
    ]
    .into_iter()
    .chain(sync.iter().copied())
}

/// Sorts by code point everywhere, so that no locale of the machine matters.
fn make_cluster(tools: &Path, data: &Path, account: Option<&Account>, passwords: &Passwords) -> Result<()> {
    if data.join("PG_VERSION").is_file() {
        let rules = std::fs::read_to_string(data.join("pg_hba.conf"))?;
        let lets_anybody_in = rules.lines().any(|rule| !rule.starts_with('#') && rule.trim_end().ends_with("trust"));
        ensure!(!lets_anybody_in, "{} was made without passwords; begin anew with --fresh", data.display());
        return Ok(());
    }
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    std::fs::set_permissions(data, Permissions::from_mode(0o700))?;
    let password = data.with_extension("password");
    std::fs::write(&password, passwords.admin())?;
    std::fs::set_permissions(&password, Permissions::from_mode(0o600))?;
    let mut command = Command::new(tools.join("initdb"));
    command
        .args([&format!("--username={SUPERUSER}"), "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"])
        .arg("--pwfile")
        .arg(&password)
        .args(["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"])
        .arg("-D")
        .arg(data)
        .current_dir("/");
    if let Some(account) = account {
        account.own(data)?;
        account.own(&password)?;
        command.uid(account.uid).gid(account.gid);
    }
    let output = command.output().context("cannot run initdb");
    std::fs::remove_file(&password)?;
    let output = output?;
    ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A lock file of a server that was killed names a process id, which may
/// belong to something else by now; then Postgres would refuse to start.
fn remove_stale_lock(data: &Path) {
    let lock = data.join("postmaster.pid");
    let Ok(text) = std::fs::read_to_string(&lock) else {
        return;
    };
    let Some(pid) = text.lines().next() else {
        return;
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    if Path::new("/proc/self").exists() && name.is_ok_and(|name| name.trim() != "postgres") {
        _ = std::fs::remove_file(lock);
    }
}
