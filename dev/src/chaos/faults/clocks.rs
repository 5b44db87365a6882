//! One gateway's clock is an hour ahead of everybody else's.

use std::time::Duration;

use anyhow::{Context, Result};
use chat_client::clock::Clock;

use crate::{
    audit::stored,
    chaos::{
        ground::{AHEAD_S, GATEWAY_AHEAD, Ground},
        trial::Trial,
    },
};

/// Less than it is ahead by, and far more than a slow machine is off.
const CLEARLY_AHEAD_MS: i64 = AHEAD_S.cast_signed() * 1000 * 9 / 10;

/// Messages are sent at both; then the one that is ahead dies, and the conversations that it pulled ahead go on.
pub async fn apart(trial: &mut Trial<'_>) -> Result<()> {
    let length = trial.scale.seconds(20, 5);
    let ground = trial.ground;
    let rooms: Vec<_> = trial.crowd.rooms().iter().map(|room| room.id).collect();
    trial.fault(&format!("one of two gateways has a clock that is {AHEAD_S} s ahead"));
    let now = Clock::System.now().0;
    let shown_ms = [shown_ms(ground, 0).await? - now, shown_ms(ground, GATEWAY_AHEAD).await? - now];
    trial.last(length).await;
    let ahead = &ground.fleet.gateways()[GATEWAY_AHEAD];
    let gateway = ahead.name().to_owned();
    ahead.kill().await?;
    trial.fault(&format!("{gateway}, which is ahead, is killed with SIGKILL"));
    trial.last(length).await;
    ahead.start_ready().await?;
    trial.last(length).await;
    let rows = stored::rows(&mut ground.postgres().await?, &rooms).await?;
    let in_future = rows.iter().filter(|row| row.sent_at.0 - now > CLEARLY_AHEAD_MS).count();
    trial.bite(
        shown_ms[0].abs() < CLEARLY_AHEAD_MS && shown_ms[1] > CLEARLY_AHEAD_MS,
        format!("gateways show times {} s and {} s from ours", shown_ms[0] / 1000, shown_ms[1] / 1000),
    );
    trial.bite(in_future > 0, format!("{in_future} of {} messages stored so far have a time in an hour", rows.len()));
    Ok(())
}

/// The time in the date of a gateway's answer.
async fn shown_ms(ground: &Ground, gateway: usize) -> Result<i64> {
    let url = format!("{}/openapi.json", ground.fleet.gateway(gateway).url());
    let answer = reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await?;
    let date = answer.headers().get("date").context("a gateway's answer has no date")?.to_str()?.to_owned();
    let at = httpdate::parse_http_date(&date)?;
    let since = at.duration_since(std::time::SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}
