//! A connection to NATS that stays open and answers nothing.

#[path = "input/relay.rs"]
mod relay;

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Event;
use chat_dev::test_servers::TestServers;
use chat_shared::log;
use tokio::{sync::watch, time::timeout};

use self::relay::Relay;

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_connection_to_nats_that_answers_nothing_is_left() -> Result<()> {
    let url = &TestServers::from_env()?.nats_url;
    let (login, target) = url.rsplit_once('@').context("the address holds name and password")?;
    let relay = Relay::open(target.trim_end_matches('/').to_owned()).await?;
    let connected = watch::Sender::new(0);
    let noted = connected.clone();
    let client = log::connect(&format!("{login}@{}", relay.address), "silence-test", move |event| {
        if event == Event::Connected {
            noted.send_modify(|count| *count += 1);
        }
    })
    .await?;
    let mut counted = connected.subscribe();
    timeout(DEADLINE, counted.wait_for(|count| *count == 1)).await??;
    relay.silence();
    timeout(DEADLINE, counted.wait_for(|count| *count == 2)).await.context("another connection")??;
    timeout(DEADLINE, client.flush()).await.context("it answers")??;
    Ok(())
}
