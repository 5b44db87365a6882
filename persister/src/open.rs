//! Opens what the service needs: waits for what is not there yet, and refuses what is wrong.

use std::time::Duration;

use anyhow::Context;
use chat_shared::{
    log::{self, Consumer, Log, LogError, LogState},
    postgres::{self, CheckpointError},
    settings::{NamespaceSettings, NatsSettings},
    telemetry::Latch,
};
use sqlx::PgPool;

use crate::worker::consumer_spec;

/// Between two attempts.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Opens the log, as soon as there is a NATS server that has it. `is_connected` follows the connection from then on.
pub async fn log(
    namespace: &NamespaceSettings,
    nats: &NatsSettings,
    is_connected: &Latch,
) -> anyhow::Result<(async_nats::Client, Log)> {
    let url = nats.url()?;
    let client = loop {
        let latch = is_connected.clone();
        let follow = move |event: async_nats::Event| match event {
            async_nats::Event::Connected => latch.set(true),
            async_nats::Event::Disconnected => {
                latch.set(false);
                tracing::warn!("the connection to NATS is lost, connecting again");
            }
            _ => {}
        };
        match log::connect(url.expose(), "chat-persister", follow).await {
            Ok(client) => break client,
            Err(error) if error.is_transient() => tracing::warn!(%error, "trying again"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    };
    loop {
        match Log::open(&client, &namespace.namespace, nats.replicas()).await {
            Ok(log) => return Ok((client, log)),
            Err(error @ (LogError::ServerTooOld { .. } | LogError::Unfit(_))) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the log can't be opened, trying again"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Checks the database and compares it with the log, as soon as both answer.
pub async fn check(pool: &PgPool, log: &Log) -> anyhow::Result<LogState> {
    loop {
        match checked(pool, log).await {
            Ok(state) => return Ok(state),
            Err(CheckpointError::Postgres(error)) if error.is_transient() => tracing::warn!(%error, "trying again"),
            Err(CheckpointError::Log(error)) => tracing::warn!(%error, "the log can't be asked, trying again"),
            Err(error) => return Err(error).context("the database can't be used with this log"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Opens the consumer that all instances share, as soon as the log lets it.
pub async fn consumer(log: &Log) -> Consumer {
    loop {
        match log.consumer(consumer_spec()).await {
            Ok(consumer) => return consumer,
            Err(error) => tracing::warn!(%error, "trying again"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn checked(pool: &PgPool, log: &Log) -> Result<LogState, CheckpointError> {
    postgres::check(pool).await?;
    postgres::check_log(pool, log).await
}
