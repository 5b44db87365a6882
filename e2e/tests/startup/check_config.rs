//! `--check-config`: tries everything, says what is wrong with each thing, and changes nothing.

use anyhow::{Context, Result, ensure};
use chat_dev::{
    fleet::Role::{self, Cold, Gateway, Notifier, Persister, Retention},
    ports::{self, Ports},
    servers::{Login, Redis},
};
use chat_e2e::{Setup, database, on_own_fleet};
use chat_shared::log::{self, stream_name};

use crate::scene::{self, Change, HUSHED, MASTER_KEY, OTHER_MASTER_KEY, Said, Scene};

const CHECK: &[&str] = &["--check-config"];

impl Said {
    /// Every line begins with its verdict, and no secret is in any.
    fn is_well_formed(&self) -> Result<()> {
        let verdicts = ["ok      ", "note    ", "wrong   "];
        ensure!(self.err.is_empty(), "it says on standard error: {}", self.err);
        for line in self.out.lines() {
            ensure!(verdicts.iter().any(|verdict| line.starts_with(verdict)), "a line without a verdict: {line}");
        }
        ensure!(!self.all().contains(HUSHED), "it gives a secret away: {}", self.all());
        Ok(())
    }

    /// The lines with a verdict.
    fn of(&self, verdict: &str) -> Vec<&str> {
        self.out.lines().filter_map(|line| line.strip_prefix(verdict)).map(str::trim_start).collect()
    }
}

/// With these changes something is wrong, and nothing but what these words are about; what is said.
async fn wrong(scene: &Scene, role: Role, changes: &[Change<'_>], words: &[&[&str]]) -> Result<Said> {
    let said = scene.run(role, CHECK, changes).await?;
    let who = format!("{} with {changes:?}", role.package());
    said.is_well_formed().with_context(|| who.clone())?;
    ensure!(said.code == Some(1), "{who} ends with {:?}: {}", said.code, said.out);
    let lines = said.of("wrong");
    ensure!(lines.len() == words.len(), "{who} finds other things wrong: {lines:#?}");
    for (line, words) in lines.iter().zip(words) {
        for word in *words {
            ensure!(line.contains(word), "{who} doesn't say {word:?}: {line}");
        }
    }
    Ok(said)
}

#[test]
fn r10_4_r10_5_a_running_fleet_finds_everything_in_order() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let servers = chat_dev::test_servers::TestServers::from_env()?;
        for service in fleet.services() {
            let settings = service.process().env().iter().cloned();
            let said = scene::run(&servers, service.role(), CHECK, settings).await?;
            said.is_well_formed()?;
            ensure!(said.code == Some(0), "{} finds: {}", service.name(), said.out);
            let expected: &[&str] = match service.role() {
                Gateway => &[
                    "PostgreSQL 1",
                    "NATS 2",
                    "Redis ",
                    "master key ",
                    "content keys open",
                    "keys of users' tokens: ",
                    "keys of services' tokens: ",
                    "kaha-main-v3: it takes our token",
                    "log and PostgreSQL",
                ],
                Persister => &["PostgreSQL 1", "NATS 2", "log and PostgreSQL"],
                Notifier => &["PostgreSQL 1", "NATS 2", "Redis ", "master key ", "notifications: "],
                Retention => &["PostgreSQL 1", "master key ", "partitions of messages: days can", "content keys open"],
                Cold => &["PostgreSQL 1", "no master key", "object store"],
            };
            for thing in expected {
                ensure!(said.of("ok").iter().any(|line| line.starts_with(thing)), "no {thing:?} in: {}", said.out);
            }
        }
        Ok(())
    })
}

#[tokio::test]
async fn r10_4_r10_5_each_thing_that_is_wrong_is_said_and_nothing_stops_the_others() -> Result<()> {
    let scene = Scene::set().await?;
    let closed = ports::free()?;
    let no_postgres = format!("postgres://a:{HUSHED}@127.0.0.1:{closed}/x");
    let (no_nats, no_redis) = (format!("nats://a:{HUSHED}@127.0.0.1:{closed}"), format!("redis://127.0.0.1:{closed}"));
    let key_set = format!("http://127.0.0.1:{closed}/keys");
    let everything = [
        ("CHAT_POSTGRES_URL", Some(no_postgres.as_str())),
        ("CHAT_NATS_URL", Some(&no_nats)),
        ("CHAT_REDIS_URL", Some(&no_redis)),
        ("CHAT_JWT_SECRET_FILE", None),
        ("CHAT_JWKS_URL", Some(&key_set)),
        ("CHAT_MASTER_KEY", Some(HUSHED)),
        ("CHAT_MASK_KEY", Some("short")),
        ("CHAT_KAHA_URL", Some("https://kaha.invalid")),
    ];
    let words: &[&[&str]] = &[
        &["mask key", "fewer than 16 bytes"],
        &["master key", "32 random bytes in base64"],
        &["keys of users' tokens"],
        &["kaha-main-v3", "CHAT_SERVICE_KEY_FILE"],
        &["NATS", "is it running"],
        &["PostgreSQL at 127.0.0.1", "is it running"],
        &["Redis", "check address"],
    ];
    wrong(&scene, Gateway, &everything, words).await?;
    let (_, place) = scene.urls.postgres.rsplit_once('@').context("a user in the address")?;
    let wrong_password = format!("postgres://chat_gateway_1:{HUSHED}@{place}");
    let (_, place) = scene.urls.nats.rsplit_once('@').context("a user in the address")?;
    let wrong_nats = format!("nats://chat_gateway:{HUSHED}@{place}");
    let (_, place) = scene.urls.redis.rsplit_once('@').context("a user in the address")?;
    let wrong_redis = format!("redis://chat_gateway:{HUSHED}@{place}");
    for (role, change, words) in [
        (Gateway, ("CHAT_POSTGRES_URL", &wrong_password), ["PostgreSQL", "check user and password"]),
        (Gateway, ("CHAT_NATS_URL", &wrong_nats), ["NATS", "check user and password"]),
        (Gateway, ("CHAT_REDIS_URL", &wrong_redis), ["Redis", "check address, user and password"]),
        (Notifier, ("CHAT_REDIS_URL", &wrong_redis), ["Redis", "check address, user and password"]),
    ] {
        wrong(&scene, role, &[(change.0, Some(change.1.as_str()))], &[&words]).await?;
    }
    wrong(&scene, Gateway, &[("CHAT_SERVICE_AUDIENCE", Some("chat"))], &[&["CHAT_SERVICE_AUDIENCE"]]).await?;
    for variable in ["CHAT_PROXY_PROTOCOL", "CHAT_INTERNAL_PROXY_PROTOCOL"] {
        let words = [variable, "CHAT_TRUSTED_PROXIES"];
        wrong(&scene, Gateway, &[(variable, Some("required"))], &[&words]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn it_changes_nothing() -> Result<()> {
    let scene = Scene::set().await?;
    for role in Role::ALL {
        let said = scene.run(role, CHECK, &[]).await?;
        said.is_well_formed()?;
        ensure!(said.code == Some(0), "{} finds: {}", role.package(), said.out);
    }
    let nats = log::connect(&scene.urls.nats, "test", |_| {}).await?;
    let stream = async_nats::jetstream::new(nats).get_stream(stream_name(&scene.namespace)).await;
    ensure!(stream.is_err(), "it made the log's stream");
    let client = redis::Client::open(scene.urls.redis.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:*", scene.namespace)).query_async(&mut connection).await?;
    ensure!(keys.is_empty(), "it wrote to Redis: {keys:?}");
    let keys = database::count(&scene.urls.postgres, "select count(*) from content_keys").await?;
    ensure!(keys == 0, "it made content keys");
    Ok(())
}

#[tokio::test]
async fn r10_4_a_database_that_is_not_migrated_and_another_master_key_are_found() -> Result<()> {
    let scene = Scene::set().await?;
    let owner = scene.urls.of(Login::Owner).postgres;
    let prepared = scene.run(Retention, &["prepare"], &[("CHAT_POSTGRES_URL", Some(&owner))]).await?;
    ensure!(prepared.code == Some(0), "{prepared:?}");
    for role in [Gateway, Retention] {
        let change = [("CHAT_MASTER_KEY", Some(OTHER_MASTER_KEY))];
        wrong(&scene, role, &change, &[&["content keys: they are wrapped by master key"]]).await?;
        // R1.5: unless it is the old one.
        let change = [change[0], ("CHAT_MASTER_KEY_OLD", Some(MASTER_KEY))];
        let said = scene.run(role, CHECK, &change).await?;
        ensure!(said.code == Some(0), "{} finds: {}", role.package(), said.out);
        ensure!(said.of("note").iter().any(|line| line.contains("is the old one")), "{}", said.out);
    }
    database::execute(&scene.urls.postgres, "delete from _sqlx_migrations where version = 2").await?;
    for role in Role::ALL {
        wrong(&scene, role, &[], &[&["lacks migration 2", "run `chat-retention migrate`"]]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn r10_4_faults_of_partitions_are_found_each_with_its_remedy() -> Result<()> {
    let scene = Scene::set().await?;
    let url = &scene.urls.postgres;
    database::execute(url, "create table messages_rest partition of messages default").await?;
    let default: &[&str] = &["partitions of messages", "no day ages out", "messages_rest", "then detach it"];
    wrong(&scene, Retention, &[], &[default]).await?;
    database::execute(url, "create table messages_20010101 (like messages)").await?;
    let detached = &["partitions of messages", "messages_20010101", "attach it again, or rename it"];
    wrong(&scene, Retention, &[], &[detached, default]).await?;
    database::execute(url, "drop table messages_rest, messages_20010101").await?;
    let said = scene.run(Retention, CHECK, &[]).await?;
    ensure!(said.code == Some(0), "without faults it finds: {}", said.out);
    Ok(())
}

#[tokio::test]
async fn r10_5_a_redis_that_is_too_small_or_evicts_is_explained() -> Result<()> {
    let scene = Scene::set().await?;
    let directory = scene.servers.scratch.join(format!("redis-{}", scene.namespace));
    std::fs::create_dir_all(&directory)?;
    let redis = Redis::start_in(&scene.servers.binaries, &directory, &Ports::fresh()).await?;
    for (memory, policy, words) in [
        ("100mb", "noeviction", &[&["limited to 100 MB", "256 MB", "raise maxmemory"][..]][..]),
        ("300mb", "allkeys-lru", &[&["allkeys-lru", "lose inboxes", "noeviction"][..]][..]),
        ("100mb", "volatile-ttl", &[&["limited to 100 MB"][..], &["volatile-ttl", "noeviction"][..]][..]),
        ("1kb", "noeviction", &[&["Redis is full"][..], &["raise maxmemory"][..]][..]),
    ] {
        limit(&redis, policy, memory).await?;
        for (role, login) in [(Gateway, Login::Gateway), (Notifier, Login::Notifier)] {
            let url = chat_dev::servers::logins::url_as(&redis.url(), login);
            let said = wrong(&scene, role, &[("CHAT_REDIS_URL", Some(&url))], words).await?;
            ensure!(said.of("ok").iter().any(|line| line.starts_with("NATS")), "{said:?}");
        }
    }
    limit(&redis, "allkeys-lru", "0").await?;
    let url = chat_dev::servers::logins::url_as(&redis.url(), Login::Gateway);
    let said = scene.run(Gateway, CHECK, &[("CHAT_REDIS_URL", Some(&url))]).await?;
    ensure!(said.code == Some(0), "without a limit nothing is dropped: {}", said.out);
    ensure!(said.of("note").iter().any(|line| line.contains("noeviction before you set maxmemory")), "{}", said.out);
    redis.stop().await
}

/// Sets how much Redis may hold, and what it does then.
async fn limit(redis: &Redis, policy: &str, memory: &str) -> Result<()> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    for (name, value) in [("maxmemory-policy", policy), ("maxmemory", memory)] {
        redis::cmd("CONFIG").arg(&["SET", name, value]).exec_async(&mut connection).await?;
    }
    Ok(())
}
