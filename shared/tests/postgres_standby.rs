//! A pool whose address leads to a standby for a while.

use anyhow::{Result, ensure};
use chat_dev::{
    ports::Ports,
    servers::{Durability, Postgres},
    test_servers::TestServers,
};
use chat_shared::{
    postgres::{PostgresError, check, connect},
    settings::PostgresSettings,
};
use sqlx::{Connection, Executor, PgConnection};

#[tokio::test]
async fn a_pool_keeps_no_connection_to_a_standby() -> Result<()> {
    let servers = TestServers::from_env()?;
    let directory = tempfile::tempdir_in(&servers.scratch)?;
    let postgres =
        Postgres::start_in(&servers.binaries, directory.path(), Durability::ThrowAway, &Ports::fresh()).await?;
    postgres.stop().await?;
    std::fs::write(postgres.data_dir().join("standby.signal"), "")?;
    postgres.start().await?;

    let pool = connect(&PostgresSettings::new(postgres.url(), 1), "test")?;
    ensure!(pool.acquire().await.is_err(), "a standby takes no writes");
    ensure!(matches!(check(&pool).await, Err(PostgresError::Standby)));
    PgConnection::connect(&postgres.url()).await?.execute("select pg_promote()").await?;
    pool.acquire().await?.execute("create table writable ()").await?;
    Ok(())
}
