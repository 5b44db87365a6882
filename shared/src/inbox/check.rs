//! Asks Redis whether it is fit to hold the inboxes (R10.5).

use redis::InfoDict;

use super::{InboxError, Inboxes, bounded};

/// The oldest Redis with everything that the scripts use.
const VERSION_MIN: (u32, u32) = (6, 2);
/// The least memory that Redis may be limited to, in bytes.
const MEMORY_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Something about Redis that an operator has to change. Chat goes on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisProblem {
    /// The scripts don't run there.
    #[error("Redis {found} is too old: 6.2 or later is needed, without it nobody has an inbox; upgrade the server")]
    TooOld {
        /// The version it gave.
        found: String,
    },
    /// There is room for too few inboxes.
    #[error(
        "Redis is limited to {found} bytes: inboxes need 268435456 (256 MB) or more; \
         raise maxmemory, or set it to 0 for no limit"
    )]
    TooSmall {
        /// Its limit in bytes.
        found: u64,
    },
    /// It takes nothing more.
    #[error("Redis is full ({found} bytes): nothing enters inboxes until there is room; raise maxmemory")]
    Full {
        /// Its limit in bytes.
        found: u64,
    },
    /// It drops keys when it is full.
    #[error(
        "Redis drops keys when it is full (maxmemory-policy {found}): users would lose inboxes and sessions that are \
         in use, and be told to reload; set maxmemory-policy to noeviction, which is reported instead"
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

impl Inboxes {
    /// Checks the version, the memory and what happens when it is full; says the first thing that is wrong.
    pub async fn check(&self) -> Result<(), RedisUnfit> {
        let mut redis = self.redis.clone();
        let info: InfoDict = bounded(redis::cmd("INFO").query_async(&mut redis)).await?;
        // Managed servers may hide some of these; then nothing can be said against them.
        let bytes = |name| info.get::<u64>(name).unwrap_or(0);
        Ok(fit(
            &info.get::<String>("redis_version").unwrap_or_default(),
            bytes("maxmemory"),
            bytes("used_memory").saturating_sub(bytes("mem_not_counted_for_evict")),
            &info.get::<String>("maxmemory_policy").unwrap_or_default(),
        )?)
    }
}

/// `memory` is the limit in bytes, 0 for none.
fn fit(version: &str, memory: u64, used: u64, policy: &str) -> Result<(), RedisProblem> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN {
        return Err(RedisProblem::TooOld { found: version.to_owned() });
    }
    if memory != 0 && used >= memory {
        return Err(RedisProblem::Full { found: memory });
    }
    if memory != 0 && memory < MEMORY_BYTES_MIN {
        return Err(RedisProblem::TooSmall { found: memory });
    }
    // Without a limit nothing is ever evicted.
    if memory != 0 && !matches!(policy, "noeviction" | "") {
        return Err(RedisProblem::Evicts { found: policy.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_has_to_be_new_large_and_keep_what_it_holds_r10_5() {
        assert_eq!(fit("6.2.5", 0, 9, "noeviction"), Ok(()));
        assert_eq!(fit("8.0.1", MEMORY_BYTES_MIN, 9, "noeviction"), Ok(()));
        assert_eq!(fit("7.0.0", 0, 9, "allkeys-lru"), Ok(()));
        assert!(matches!(fit("6.0.16", 0, 9, "noeviction"), Err(RedisProblem::TooOld { .. })));
        assert!(matches!(fit("", 0, 0, ""), Err(RedisProblem::TooOld { .. })));
        assert!(matches!(fit("7.2.0", MEMORY_BYTES_MIN - 1, 9, "noeviction"), Err(RedisProblem::TooSmall { .. })));
        assert!(matches!(fit("7.2.0", MEMORY_BYTES_MIN, 9, "volatile-lru"), Err(RedisProblem::Evicts { .. })));
        let full = fit("7.2.0", MEMORY_BYTES_MIN, MEMORY_BYTES_MIN, "noeviction");
        assert_eq!(full, Err(RedisProblem::Full { found: MEMORY_BYTES_MIN }));
    }
}
