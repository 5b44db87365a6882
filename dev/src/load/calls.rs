//! What Redis counts: commands and scripts.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};

/// What a Redis did since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisWork {
    /// Commands, those within scripts included.
    pub calls: u64,
    /// Scripts.
    pub scripts: u64,
}

impl RedisWork {
    /// Until now. Asking is a few commands more, which are counted too.
    pub async fn of(url: &str) -> Result<Self> {
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let all: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
        Self::read(&all)
    }

    fn read(info: &str) -> Result<Self> {
        let mut work = Self { calls: 0, scripts: 0 };
        for (name, calls) in counted(info)? {
            work.calls += calls;
            work.scripts +=
                if matches!(name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall") { calls } else { 0 };
        }
        Ok(work)
    }
}

/// Calls of each command that changes something, within scripts and outside, since Redis started.
pub async fn writes(url: &str) -> Result<BTreeMap<String, u64>> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let writing: HashSet<String> = redis::cmd("ACL").arg("CAT").arg("write").query_async(&mut connection).await?;
    let all: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
    let counted = counted(&all)?.into_iter().filter(|(name, _)| writing.contains(*name));
    Ok(counted.map(|(name, calls)| (name.to_owned(), calls)).collect())
}

/// Each command with its calls.
fn counted(info: &str) -> Result<Vec<(&str, u64)>> {
    let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
    lines
        .map(|line| {
            let (name, fields) = line.split_once(':').context("Redis counts in another way than expected")?;
            let calls = fields.split(',').find_map(|field| field.strip_prefix("calls="));
            Ok((name, calls.context("Redis doesn't count calls")?.parse()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_commands_are_summed_and_scripts_apart() {
        let info = "# Commandstats\r\ncmdstat_get:calls=3,usec=5,usec_per_call=1.67\r\n\
                    cmdstat_evalsha:calls=2,usec=5,usec_per_call=1.67,rejected_calls=0\r\ncmdstat_xadd:calls=4,usec=1\r\n";
        assert_eq!(RedisWork::read(info).unwrap(), RedisWork { calls: 9, scripts: 2 });
    }
}
