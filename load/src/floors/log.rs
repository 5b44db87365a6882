//! Appends to a bare stream of the server that holds the log, with whatever durability it is configured for.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use async_nats::{
    ConnectOptions, ServerAddr,
    jetstream::{
        self, ContextBuilder,
        message::PublishMessage,
        stream::{Config, StorageType},
    },
};
use uuid::Uuid;

use super::{Stopwatch, rate};
use crate::report::Spread;

/// About an event of the log.
const EVENT: &[u8] = &[7; 256];
/// Appends without an answer, when there are many.
const IN_FLIGHT: usize = 1024;
/// How long the server may take to answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The server empties the stream by itself if it could not be removed.
const AGE_MAX: Duration = Duration::from_mins(10);
/// How the names of these streams begin.
const PREFIX: &str = "load-floor-";

#[derive(Debug)]
pub(super) struct Appends {
    pub per_second: f64,
    pub one_at_a_time_us: Spread,
}

pub(super) async fn measure(nats_url: &str, length: Duration) -> Result<Appends> {
    let client = connect(nats_url).await.context("the log's server can't be reached")?;
    let context =
        ContextBuilder::new().timeout(WAIT_MAX).ack_timeout(WAIT_MAX).max_ack_inflight(IN_FLIGHT).build(client);
    let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
    let config = Config {
        name: name.clone(),
        subjects: vec![name.clone()],
        storage: StorageType::File,
        max_age: AGE_MAX,
        allow_direct: true,
        ..Config::default()
    };
    context.create_stream(config).await.context("the log's server makes no stream")?;
    let measured = append(&context, &name, length).await;
    context.delete_stream(&name).await.context("a stream could not be removed")?;
    measured
}

/// As the user that the address names, which the client does not look for there.
async fn connect(nats_url: &str) -> Result<async_nats::Client> {
    let address: ServerAddr = nats_url.parse()?;
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => ConnectOptions::new().user_and_password(user.to_owned(), password.to_owned()),
        _ => ConnectOptions::new(),
    };
    Ok(options.connect(address).await?)
}

async fn append(context: &jetstream::Context, subject: &str, length: Duration) -> Result<Appends> {
    let mut stopwatch = Stopwatch::for_next(length);
    while stopwatch.is_running() {
        let began = Instant::now();
        context.publish(subject.to_owned(), EVENT.into()).await?.await?;
        stopwatch.lap(began);
    }
    let per_second = keep_in_flight(context, subject, length).await?;
    Ok(Appends { per_second, one_at_a_time_us: stopwatch.spread() })
}

/// How many a second are answered. The server answers in the order of the appends.
async fn keep_in_flight(context: &jetstream::Context, subject: &str, length: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut outstanding = VecDeque::with_capacity(IN_FLIGHT);
    let mut count = 0;
    while began.elapsed() < length {
        if outstanding.len() == IN_FLIGHT
            && let Some(oldest) = outstanding.pop_front()
        {
            wait(oldest).await?;
            count += 1;
        }
        let publish = PublishMessage::build().payload(EVENT.into());
        outstanding.push_back(context.send_publish(subject.to_owned(), publish).await?);
    }
    for append in outstanding {
        wait(append).await?;
        count += 1;
    }
    Ok(rate(count, began.elapsed()))
}

async fn wait(append: jetstream::context::PublishAckFuture) -> Result<()> {
    append.await.context("an append was refused")?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    pub async fn assert_gone(nats_url: &str) {
        let client = super::connect(nats_url).await.unwrap();
        let names: Vec<String> = jetstream::new(client).stream_names().try_collect().await.unwrap();
        assert!(!names.iter().any(|name| name.starts_with(PREFIX)), "{names:?}");
    }
}
