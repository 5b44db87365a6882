//! Asks Redis whether it is fit to hold the inboxes (R10.5).

use redis::InfoDict;

use super::{InboxError, Inboxes, bounded};

/// The oldest Redis with everything that the scripts use.
const VERSION_MIN: (u32, u32) = (6, 2);
/// Bytes of a megabyte, as Redis counts them.
const MB: u64 = 1024 * 1024;
/// The least memory that Redis may be limited to, in bytes.
const MEMORY_BYTES_MIN: u64 = 256 * MB;

/// Something about Redis that an operator has to change. Chat goes on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisProblem {
    /// The scripts don't run there.
    #[error("Redis {found} is too old: 6.2 or later is needed, without it nobody has an inbox; upgrade the server")]
    TooOld {
        /// The version it gave.
        found: String,
    },
    /// It holds a part of the keys, and sends us elsewhere for the others.
    #[error("Redis is a node of a cluster: one server is needed that holds everything; give the address of such a one")]
    Cluster,
    /// It takes no writes.
    #[error("Redis is a replica, which takes no writes, so nothing enters inboxes; give the address of the primary")]
    Replica,
    /// It can't be seen whether it was started again.
    #[error(
        "Redis hides its run_id: after a start with older data, or a fail-over, clients may be told that nothing is \
         missing though messages are; use a server that shows run_id in INFO"
    )]
    Nameless,
    /// There is room for too few inboxes.
    #[error(
        "Redis is limited to {} MB: inboxes need 256 MB or more; raise maxmemory, or set it to 0 for no limit",
        found / MB
    )]
    TooSmall {
        /// Its limit in bytes.
        found: u64,
    },
    /// It takes nothing more.
    #[error("Redis is full ({} MB): nothing enters inboxes until there is room; raise maxmemory", found / MB)]
    Full {
        /// Its limit in bytes.
        found: u64,
    },
    /// It drops keys when it is full.
    #[error(
        "Redis drops keys when it is full (maxmemory-policy {found}): users would lose inboxes and sessions that are \
         in use, and be told to reload; set maxmemory-policy to noeviction, with which a full Redis refuses what is \
         new and is reported"
    )]
    Evicts {
        /// Its policy.
        found: String,
    },
}

/// Why Redis is not what the inboxes need.
#[derive(Debug, thiserror::Error)]
pub enum RedisUnfit {
    /// It can't be asked. It may come later.
    #[error(transparent)]
    Unreachable(#[from] InboxError),
    /// It can be reached but has to be set up differently.
    #[error(transparent)]
    Problem(#[from] RedisProblem),
}

/// What Redis says about itself. Managed servers may hide some of it; then nothing can be said against them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisServer {
    /// Its version.
    pub version: String,
    /// The limit of its memory in bytes, 0 for none.
    pub memory_max: u64,
    /// What it does when it is full.
    pub policy: String,
    used: u64,
    is_cluster: bool,
    is_nameless: bool,
    /// Whether it keeps an append-only file.
    pub writes_itself_down: bool,
    /// Replicas that are connected to it.
    pub replicas: u64,
}

impl Inboxes {
    /// Checks what kind of server it is, its version, its memory and what happens when that is full; says what is most wrong.
    pub async fn check(&self) -> Result<(), RedisUnfit> {
        let server = match self.server().await {
            Err(InboxError::Replica) => return Err(RedisProblem::Replica.into()),
            server => server?,
        };
        match server.problems().into_iter().next() {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }

    /// What Redis says about itself.
    pub async fn server(&self) -> Result<RedisServer, InboxError> {
        let mut redis = self.redis.link().await?;
        let info: InfoDict = bounded(redis::cmd("INFO").query_async(&mut redis)).await?;
        let bytes = |name| info.get::<u64>(name).unwrap_or(0);
        let text = |name| info.get::<String>(name).unwrap_or_default();
        Ok(RedisServer {
            version: text("redis_version"),
            memory_max: bytes("maxmemory"),
            policy: text("maxmemory_policy"),
            used: bytes("used_memory").saturating_sub(bytes("mem_not_counted_for_evict")),
            is_cluster: text("redis_mode") == "cluster",
            is_nameless: redis.run().is_empty(),
            writes_itself_down: bytes("aof_enabled") == 1,
            replicas: bytes("connected_slaves"),
        })
    }

    /// Tries whether scripts may be run on this installation's keys. Changes nothing.
    pub async fn try_script(&self) -> Result<(), InboxError> {
        let script = redis::Script::new("return redis.call('EXISTS', KEYS[1])");
        let mut redis = self.redis.link().await?;
        let key = format!("{}:{{check}}:meta", self.redis.namespace());
        bounded(script.key(key).invoke_async(&mut redis)).await
    }
}

impl RedisServer {
    /// What has to be changed, the worst first.
    pub fn problems(&self) -> Vec<RedisProblem> {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let is_old = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN;
        let found = self.memory_max;
        let is_limited = found != 0;
        [
            is_old.then(|| RedisProblem::TooOld { found: self.version.clone() }),
            self.is_cluster.then_some(RedisProblem::Cluster),
            (is_limited && self.used >= found).then_some(RedisProblem::Full { found }),
            (is_limited && found < MEMORY_BYTES_MIN).then_some(RedisProblem::TooSmall { found }),
            (is_limited && self.evicts()).then(|| RedisProblem::Evicts { found: self.policy.clone() }),
            self.is_nameless.then_some(RedisProblem::Nameless),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether it drops keys once it reaches a limit. Without a limit nothing is ever dropped.
    pub fn evicts(&self) -> bool {
        !matches!(self.policy.as_str(), "noeviction" | "")
    }

    /// Its memory in words.
    pub fn memory(&self) -> String {
        match self.memory_max {
            0 => "no limit of memory".to_owned(),
            bytes => format!("{} MB", bytes / MB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str, memory_max: u64, policy: &str) -> RedisServer {
        let (version, policy) = (version.to_owned(), policy.to_owned());
        RedisServer { version, memory_max, policy, used: 9, ..RedisServer::default() }
    }

    #[test]
    fn redis_has_to_be_new_large_and_keep_what_it_holds_r10_5() {
        use RedisProblem::{Cluster, Evicts, Full, Nameless, TooOld, TooSmall};

        let plain = server("7.2.0", MEMORY_BYTES_MIN, "noeviction");
        let (lru, small) = ("allkeys-lru".to_owned(), 100 * MB);
        for (server, problems) in [
            (server("6.2.5", 0, "noeviction"), vec![]),
            (server("8.0.1", MEMORY_BYTES_MIN, "noeviction"), vec![]),
            (server("7.0.0", 0, &lru), vec![]),
            (server("6.0.16", 0, "noeviction"), vec![TooOld { found: "6.0.16".to_owned() }]),
            (server("", 0, ""), vec![TooOld { found: String::new() }]),
            (server("7.2.0", MEMORY_BYTES_MIN, &lru), vec![Evicts { found: lru.clone() }]),
            (server("7.2.0", small, &lru), vec![TooSmall { found: small }, Evicts { found: lru.clone() }]),
            (RedisServer { used: MEMORY_BYTES_MIN, ..plain.clone() }, vec![Full { found: MEMORY_BYTES_MIN }]),
            (RedisServer { is_cluster: true, ..plain.clone() }, vec![Cluster]),
            (RedisServer { is_nameless: true, ..plain }, vec![Nameless]),
        ] {
            assert_eq!(server.problems(), problems, "{server:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_redis_is_explained_r10_5() {
        let small = RedisProblem::TooSmall { found: 100 * MB }.to_string();
        assert!(small.contains("limited to 100 MB") && small.contains("raise maxmemory"), "{small}");
        let evicts = RedisProblem::Evicts { found: "allkeys-lru".to_owned() }.to_string();
        assert!(evicts.contains("allkeys-lru") && evicts.contains("set maxmemory-policy to noeviction"), "{evicts}");
    }
}
