//! Clients lose their connections at once, vanish without a word, or read too slowly.

use std::time::Duration;

use anyhow::{Context, Result};
use chat_client::ids::ConversationId;
use rand::seq::IteratorRandom;
use tokio::task::JoinSet;

use crate::{
    chaos::{crowd::Device, load::Voice, trial::Trial},
    fleet::Service,
    wait,
};

/// How long clients may take to be back; they wait longer after each failure.
const BACK_DEADLINE: Duration = Duration::from_secs(45);
/// Gateways end what was silent for 30 s.
const SILENCE_DEADLINE: Duration = Duration::from_secs(75);
/// How long it may take until a slow reader is noticed.
const SLOW_DEADLINE: Duration = Duration::from_mins(1);
/// How many vanish, and how many read slowly.
const FEW: usize = 4;
/// A text that is six times as long in JSON, so that what waits for slow readers grows fast.
const LONG_TEXT: usize = 8000;
/// Long texts that are sent at a time.
const LONG_TEXTS_AT_ONCE: usize = 16;

/// All connections of all clients are cut at once, several times.
pub async fn storm(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(10, 2);
    let (ground, crowd) = (trial.ground, trial.crowd);
    for _ in 0..rounds {
        trial.pause(500..2000).await;
        let arrivals = crowd.arrivals();
        let statements = ground.of_gateways("chat_gateway_sql_statements_total", "").await?;
        let cut: u64 = crowd.devices.iter().map(Device::cut).sum();
        trial.fault(&format!("all {cut} connections of {} clients are cut", crowd.devices.len()));
        let wanted = arrivals + crowd.devices.len();
        let back = wait::until("the return of all clients", BACK_DEADLINE, || async {
            Ok((crowd.arrivals() >= wanted).then_some(()))
        })
        .await;
        let statements = ground.of_gateways("chat_gateway_sql_statements_total", "").await?.saturating_sub(statements);
        let returned = crowd.arrivals() - arrivals;
        trial.bite(
            cut >= crowd.devices.len() as u64 && back.is_ok(),
            format!(
                "{cut} connections were cut, {returned} clients are back, with {statements} statements to PostgreSQL"
            ),
        );
    }
    Ok(())
}

/// Some clients vanish: their connections stay open and move no byte, until gateways give them up.
pub async fn half_open(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let (metric, label) = ("chat_gateway_closed_total", "reason=\"heartbeat_missed\"");
    let before = ground.of_gateways(metric, label).await?;
    let devices = trial.crowd.devices.iter().sample(&mut trial.rng, FEW);
    for line in devices.iter().flat_map(|device| &device.lines) {
        line.silence();
        line.lead_to(None);
    }
    let arrivals: usize = devices.iter().map(|device| device.person.diary().arrivals().len()).sum();
    trial.fault(&format!("{} clients vanish without a word; their connections stay open", devices.len()));
    let given_up = wait::until("the end of the silent connections", SILENCE_DEADLINE, || async {
        Ok(Some(ground.of_gateways(metric, label).await?.saturating_sub(before)).filter(|count| *count >= FEW as u64))
    })
    .await;
    for device in &devices {
        for (line, gateway) in device.lines.iter().zip(ground.fleet.gateways()) {
            line.lead_to(Some(Service::address(gateway)));
        }
    }
    trial.told.line("they can connect again");
    let back = wait::until("their return", BACK_DEADLINE, || async {
        let now: usize = devices.iter().map(|device| device.person.diary().arrivals().len()).sum();
        Ok((now >= arrivals + FEW).then_some(()))
    })
    .await;
    let given_up = given_up.unwrap_or_default();
    trial.bite(given_up >= FEW as u64, format!("gateways ended {given_up} connections that had fallen silent"));
    trial.bite(back.is_ok(), format!("{} clients came back over new connections", devices.len()));
    Ok(())
}

/// Some clients stop reading while much is sent to them, until gateways close them; then they go on.
pub async fn slow_readers(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, crowd) = (trial.ground, trial.crowd);
    let (metric, label) = ("chat_gateway_closed_total", "reason=\"slow_consumer\"");
    let before = ground.of_gateways(metric, label).await?;
    // Second devices write JSON, and are in the conversation of everybody.
    let slow = &crowd.devices[crowd.people().len()..];
    let everybody = crowd.busy.iter().max_by_key(|room| room.members.len()).context("there is a group")?.id;
    slow.iter().flat_map(|device| &device.lines).for_each(|line| line.stall(true));
    trial.fault(&format!("{} clients stop reading", slow.len()));
    let closed = wait::until("the end of the slow readers' connections", SLOW_DEADLINE, || async {
        say_much(trial, everybody).await?;
        let closed = ground.of_gateways(metric, label).await?.saturating_sub(before);
        Ok((closed >= slow.len() as u64).then_some(closed))
    })
    .await;
    slow.iter().flat_map(|device| &device.lines).for_each(|line| line.stall(false));
    trial.told.line("they read again");
    let closed = closed.unwrap_or_default();
    trial.bite(closed >= slow.len() as u64, format!("gateways closed {closed} connections of slow readers"));
    Ok(())
}

async fn say_much(trial: &Trial<'_>, room: ConversationId) -> Result<()> {
    let people = trial.crowd.people();
    let mut sending = JoinSet::new();
    for turn in 0..LONG_TEXTS_AT_ONCE {
        let device = &people[turn % people.len()];
        let voice = Voice::new(device.person.user_id, device.client()?.0, &trial.load.ledger, &trial.load.samples);
        let text = format!("{:016x}{}", rand::random::<u64>(), "\u{1}".repeat(LONG_TEXT));
        sending.spawn(voice.send(room, text));
    }
    while sending.join_next().await.is_some() {}
    Ok(())
}
