//! What each service may do in Redis.

use anyhow::{Context, Result, ensure};
use chat_dev::servers::Login::{self, Gateway, Kaha, Notifier, Persister, Retention};
use chat_e2e::{Setup, on_own_fleet};
use redis::aio::MultiplexedConnection;

use crate::assert_as_stated;

const BOTH: &[Login] = &[Gateway, Notifier];
const OF_GATEWAY: &[Login] = &[Gateway];
const NOBODY: &[Login] = &[];

/// Reads a key that it was not told beforehand.
const SNEAKY_SCRIPT: &str = "return redis.call('GET', ARGV[1])";

/// A command with its arguments, and who may give it. `{ns}` is the namespace.
const COMMANDS: &[(&str, &[Login])] = &[
    ("PING", BOTH),
    ("INFO server", BOTH),
    ("XRANGE {ns}:{00}:entries - +", BOTH),
    ("XADD {ns}:{00}:entries * event x", BOTH),
    ("XTRIM {ns}:{00}:entries MAXLEN 0", OF_GATEWAY),
    ("HGETALL {ns}:{00}:sessions", BOTH),
    ("DEL {ns}:{00}:entries", BOTH),
    ("SMEMBERS {ns}:gateways", BOTH),
    ("SET {ns}:gateway:00 1", OF_GATEWAY),
    ("GET {ns}:profile:user:00", OF_GATEWAY),
    ("SET {ns}:profile:user:00 x", OF_GATEWAY),
    ("GETDEL {ns}:ticket:00", OF_GATEWAY),
    ("SET {ns}:ticket:00 x", OF_GATEWAY),
    ("ZRANGE {ns}:revoked 0 -1", OF_GATEWAY),
    ("ZCOUNT {ns}:revoked -inf +inf", OF_GATEWAY),
    ("GET other:{00}:badge", NOBODY),
    ("GET anything", NOBODY),
    ("KEYS *", NOBODY),
    ("SCAN 0", NOBODY),
    ("RANDOMKEY", NOBODY),
    ("DBSIZE", NOBODY),
    ("FLUSHALL", NOBODY),
    ("FLUSHDB", NOBODY),
    ("CONFIG GET maxmemory", NOBODY),
    ("CONFIG SET maxmemory 0", NOBODY),
    ("DEBUG SLEEP 0", NOBODY),
    ("ACL LIST", NOBODY),
    ("ACL SETUSER thief on nopass", NOBODY),
    ("CLIENT LIST", NOBODY),
    ("CLIENT KILL TYPE normal", NOBODY),
    ("MONITOR", NOBODY),
    ("SAVE", NOBODY),
    ("SHUTDOWN NOSAVE", NOBODY),
    ("REPLICAOF 127.0.0.1 1", NOBODY),
    ("DUMP {ns}:{00}:entries", NOBODY),
    ("SCRIPT FLUSH", NOBODY),
    ("EVAL return{} 0", NOBODY),
    ("PUBLISH anywhere x", NOBODY),
    ("SUBSCRIBE anywhere", NOBODY),
];

#[test]
fn r6_4_each_service_does_in_redis_what_it_needs_and_nothing_else() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let mut found = Vec::new();
        for login in [Gateway, Notifier] {
            let mut connection = connect(&fleet.urls().of(login).redis).await?;
            for (command, allowed) in COMMANDS {
                let mut words = command.split(' ').map(|word| word.replace("{ns}", fleet.namespace()));
                let mut tried = redis::cmd(&words.next().context("a command has a name")?);
                for word in words {
                    tried.arg(word);
                }
                let could =
                    may(tried.exec_async(&mut connection).await).with_context(|| format!("{login:?}: {command}"))?;
                found.push((*command, login, allowed.contains(&login), could));
            }
            let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(SNEAKY_SCRIPT).query_async(&mut connection).await?;
            let ticket = format!("{}:ticket:00", fleet.namespace());
            let sneaking = redis::cmd("EVALSHA").arg(sha).arg(0).arg(ticket).exec_async(&mut connection).await;
            found.push(("a script that reads a ticket", login, login == Gateway, may(sneaking)?));
        }
        for login in [Persister, Retention, Kaha] {
            ensure!(connect(&fleet.urls().of(login).redis).await.is_err(), "{login:?} has nothing to do in Redis");
        }
        let (_, place) = fleet.urls().redis.split_once('@').context("the address has a password")?;
        let mut nobody = connect(&format!("redis://{place}")).await?;
        let outcome = redis::cmd("PING").exec_async(&mut nobody).await;
        ensure!(outcome.is_err_and(|error| error.code() == Some("NOAUTH")), "without a password nothing is answered");
        // What was written to try it is nobody's inbox.
        let mut operator = connect(&fleet.urls().redis).await?;
        redis::cmd("DEL").arg(format!("{}:gateway:00", fleet.namespace())).exec_async(&mut operator).await?;
        assert_as_stated(&found)
    })
}

pub async fn connect(url: &str) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

/// Whether a command was let through, whatever came of it.
pub fn may(outcome: redis::RedisResult<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some("NOPERM") => Ok(false),
        // What a script may not do is told in words.
        Err(error) if error.to_string().contains("can't access") || error.to_string().contains("can't run") => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
