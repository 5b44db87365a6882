//! The private servers: started, broken, started again with what they kept.

use anyhow::{Context, Result};
use async_nats::jetstream::{self, stream};
use chat_dev::{
    paths,
    ports::Ports,
    process::Process,
    servers::{Binaries, Durability, NatsServers, Servers, postgres},
};
use chat_shared::log;
use sqlx::{Connection, Executor, PgConnection, Row};

async fn start(scratch: &tempfile::TempDir) -> Result<Servers> {
    let binaries = Binaries::find_or_fetch().await?;
    Servers::start(&binaries, scratch.path(), Durability::ThrowAway, NatsServers::One, &Ports::fresh()).await
}

async fn count_rows(url: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(connection.fetch_one("SELECT count(*) FROM kept").await?.try_get(0)?)
}

async fn stream(url: &str) -> Result<stream::Stream> {
    let context = jetstream::new(log::connect(url, "test", |_| {}).await?);
    let config = stream::Config { name: "kept".to_owned(), subjects: vec!["kept".to_owned()], ..Default::default() };
    Ok(context.get_or_create_stream(config).await?)
}

async fn redis_says(url: &str, command: &str, key: &str) -> Result<Option<String>> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut call = redis::cmd(command);
    call.arg(key);
    if command == "SET" {
        call.arg("value");
    }
    Ok(call.query_async(&mut connection).await?)
}

#[tokio::test]
async fn servers_keep_their_data_and_addresses_through_stop_and_kill() -> Result<()> {
    let scratch = paths::scratch("servers-test")?;
    let servers = start(&scratch).await?;
    servers.postgres.ensure_database("chat").await?;
    let urls = servers.urls("chat");
    let mut connection = PgConnection::connect(&urls.postgres).await?;
    connection.execute("CREATE TABLE kept AS SELECT 1 AS one").await?;
    let messages = stream(&urls.nats).await?;
    let context = jetstream::new(log::connect(&urls.nats, "test", |_| {}).await?);
    context.publish("kept", "1".into()).await?.await?;
    drop((messages, context));

    servers.stop().await?;
    assert!(servers.processes().all(|process| !process.is_running()));
    tokio::try_join!(servers.postgres.start(), servers.nats.start(), servers.redis.start())?;
    assert_eq!(count_rows(&urls.postgres).await?, 1);
    assert_eq!(stream(&urls.nats).await?.cached_info().state.messages, 1);

    tokio::try_join!(servers.postgres.kill(), servers.nats.kill(), servers.redis.kill())?;
    tokio::try_join!(servers.postgres.start(), servers.nats.start(), servers.redis.start())?;
    assert_eq!(count_rows(&urls.postgres).await?, 1);
    assert_eq!(stream(&urls.nats).await?.cached_info().state.messages, 1);
    Ok(())
}

#[tokio::test]
async fn a_paused_server_answers_nobody_until_it_is_resumed() -> Result<()> {
    let scratch = paths::scratch("servers-test")?;
    let servers = start(&scratch).await?;
    let mut connection = PgConnection::connect(&servers.postgres.url()).await?;
    redis_says(&servers.redis.url(), "SET", "key").await?;

    servers.postgres.pause()?;
    servers.redis.pause()?;
    let patience = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, connection.ping()).await.is_err());
    let redis = servers.redis.url();
    let asked = redis_says(&redis, "GET", "key");
    assert!(!tokio::time::timeout(patience, asked).await.is_ok_and(|answer| answer.is_ok()));

    servers.postgres.resume()?;
    servers.redis.resume()?;
    PgConnection::connect(&servers.postgres.url()).await?.ping().await?;
    assert_eq!(redis_says(&servers.redis.url(), "GET", "key").await?.as_deref(), Some("value"));
    Ok(())
}

#[tokio::test]
async fn a_copied_database_has_what_its_template_has() -> Result<()> {
    let scratch = paths::scratch("servers-test")?;
    let servers = start(&scratch).await?;
    servers.postgres.ensure_database("template_one").await?;
    servers.postgres.ensure_database("template_one").await?;
    let mut connection = PgConnection::connect(&servers.postgres.database_url("template_one")).await?;
    connection.execute("CREATE TABLE kept AS SELECT 1 AS one").await?;
    connection.close().await?;
    let server = servers.postgres.url();
    tokio::try_join!(
        postgres::copy_database(&server, "template_one", "one"),
        postgres::copy_database(&server, "template_one", "two"),
    )?;
    assert_eq!(count_rows(&servers.postgres.database_url("one")).await?, 1);
    postgres::drop_database(&server, "one").await?;
    assert!(count_rows(&servers.postgres.database_url("one")).await.is_err());
    assert_eq!(count_rows(&servers.postgres.database_url("two")).await?, 1);
    Ok(())
}

#[tokio::test]
async fn nothing_survives_its_owner() -> Result<()> {
    let scratch = paths::scratch("servers-test")?;
    let servers = start(&scratch).await?;
    let pids: Vec<u32> = servers.processes().filter_map(Process::pid).collect();
    let lock = servers.postgres.data_dir().join("postmaster.pid");
    assert_eq!(pids.len(), 3);
    std::fs::metadata(&lock).context("postgres holds its lock")?;
    drop(servers);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    Ok(())
}
