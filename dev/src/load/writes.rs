//! What is written: commands that change something in Redis, statements that change rows in Postgres. Reads are apart,
//! since they can be spread over replicas.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

use super::{
    calls::{self, RedisWork},
    chat::Chat,
    run::number,
    statements,
};
use crate::fleet;

/// Writes of the servers since they started.
#[derive(Debug, Clone)]
pub struct Writes {
    redis: BTreeMap<String, u64>,
    scripts: u64,
    sql: Option<u64>,
    at: Instant,
}

/// Writes of some time.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Calls of each command that changes something in Redis, within scripts and outside.
    pub redis: BTreeMap<String, u64>,
    /// Scripts that Redis ran. All of this backend's write.
    pub scripts: u64,
    /// Statements that change rows; none if statements are not counted.
    pub sql: Option<u64>,
    /// How long it was.
    pub seconds: f64,
}

impl Writes {
    /// Until now. Asking writes nothing.
    pub async fn of(chat: &Chat) -> Result<Self> {
        let servers = chat.servers();
        let redis = calls::writes(&servers.redis.url()).await?;
        let scripts = RedisWork::of(&servers.redis.url()).await?.scripts;
        let sql = statements::writes(&servers.postgres, fleet::DATABASE).await?;
        Ok(Self { redis, scripts, sql, at: Instant::now() })
    }

    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Written {
        let redis = self.redis.iter().map(|(command, after)| {
            let before = before.redis.get(command).copied().unwrap_or_default();
            (command.clone(), after.saturating_sub(before))
        });
        Written {
            redis: redis.filter(|(_, calls)| *calls > 0).collect(),
            scripts: self.scripts.saturating_sub(before.scripts),
            sql: self.sql.zip(before.sql).map(|(after, before)| after.saturating_sub(before)),
            seconds: self.at.duration_since(before.at).as_secs_f64(),
        }
    }
}

impl Written {
    /// Of Redis, all commands together.
    pub fn redis_calls(&self) -> f64 {
        number(self.redis.values().sum())
    }

    /// The same for one second.
    pub fn redis_per_second(&self) -> f64 {
        self.redis_calls() / self.seconds.max(0.001)
    }

    /// What services asked Redis to write in a second: a script, which changes several keys of a user, is one.
    pub fn operations_per_second(&self) -> f64 {
        let alone = self.redis.iter().filter(|(command, _)| ALONE.contains(&command.as_str()));
        number(self.scripts + alone.map(|(_, calls)| calls).sum::<u64>()) / self.seconds.max(0.001)
    }

    /// Statements a second.
    pub fn sql_per_second(&self) -> Option<f64> {
        Some(number(self.sql?) / self.seconds.max(0.001))
    }

    /// Which commands make up most, for a sentence: `hset 120, pexpire 80 …`, as so many of each `unit`s.
    pub fn most(&self, units: f64) -> String {
        let mut commands: Vec<_> = self.redis.iter().collect();
        commands.sort_by_key(|(_, calls)| std::cmp::Reverse(**calls));
        let said = commands.into_iter().take(COMMANDS_SAID);
        let said: Vec<String> =
            said.map(|(command, calls)| format!("{command} {:.1}", number(*calls) / units.max(0.001))).collect();
        said.join(", ")
    }
}

/// What connections on which nothing happens but heartbeats made the servers write.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'a> {
    /// While they were alone.
    pub written: &'a Written,
    /// How many there were.
    pub connections: u32,
}

impl Idle<'_> {
    /// What so many more of them would make Redis write in a second.
    pub fn of_more(&self, connections: u32) -> f64 {
        self.written.redis_per_second() / f64::from(self.connections.max(1)) * f64::from(connections)
    }

    /// What Redis writes in a second to keep the inboxes of so many connected users, who are seldom looked at long enough
    /// to see it.
    pub fn signs_of_life(users: u32) -> f64 {
        f64::from(users) * SIGN_OF_LIFE_WRITES / SIGN_OF_LIFE.as_secs_f64()
    }
}

/// Commands that change something and stand in no script.
const ALONE: [&str; 4] = ["sadd", "srem", "set", "psetex"];
/// How often the end of a connected user's inbox is put off, that of each of its keys.
const SIGN_OF_LIFE: Duration = Duration::from_hours(12);
const SIGN_OF_LIFE_WRITES: f64 = 5.0;
/// Commands that are named.
const COMMANDS_SAID: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(hset: u64, sql: u64, at: Instant) -> Writes {
        let redis =
            [("hset", hset), ("sadd", hset / 2), ("del", 3)].map(|(command, calls)| (command.to_owned(), calls));
        Writes { redis: redis.into(), scripts: hset / 5, sql: Some(sql), at }
    }

    #[test]
    fn writes_of_some_time_are_what_came_in_it() {
        let begin = Instant::now();
        let written = writes(110, 7, begin + Duration::from_secs(10)).since(&writes(10, 2, begin));
        assert_eq!(written.redis, BTreeMap::from([("hset".to_owned(), 100), ("sadd".to_owned(), 50)]));
        assert!((written.redis_per_second() - 15.0).abs() < 1e-9);
        assert!((written.operations_per_second() - 7.0).abs() < 1e-9, "20 scripts, and 50 commands outside");
        assert!((written.sql_per_second().unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(written.most(written.seconds), "hset 10.0, sadd 5.0");
    }
}
