//! Clients lose their connections at once, vanish without a word, or read too slowly.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::ids::ConversationId;
use rand::seq::IteratorRandom;
use tokio::{task::JoinSet, time::sleep};

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
/// How often so many are sent. Each time is more than a gateway keeps for a connection.
const ROUNDS_MAX: usize = 12;
/// Between two looks after that.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Long texts that are sent at a time.
const LONG_TEXTS_AT_ONCE: usize = 16;

/// All connections of all clients are cut at once, several times.
pub async fn storm(trial: &mut Trial<'_>) -> Result<()> {
    let rounds = trial.scale.of(10, 2);
    let (ground, crowd) = (trial.ground, trial.crowd);
    for _ in 0..rounds {
        trial.pause(500..2000).await;
        let before: Vec<_> = crowd.devices.iter().map(Device::arrivals).collect();
        let statements = ground.of_gateways("chat_gateway_sql_statements_total", "").await?;
        let cut: u64 = crowd.devices.iter().map(Device::cut).sum();
        trial.fault(&format!("all {cut} connections of {} clients are cut", crowd.devices.len()));
        let returned = || returned(&crowd.devices, &before);
        // Whether all do is seen below.
        _ = wait::until("the return of all clients", BACK_DEADLINE, || async {
            Ok((returned() == crowd.devices.len()).then_some(()))
        })
        .await;
        let statements = ground.of_gateways("chat_gateway_sql_statements_total", "").await?.saturating_sub(statements);
        let returned = returned();
        trial.bite(
            cut >= crowd.devices.len() as u64 && returned == crowd.devices.len(),
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
    let before_each: Vec<_> = devices.iter().map(|device| device.arrivals()).collect();
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
    let returned = || returned(devices.iter().copied(), &before_each);
    // Whether all do is seen below.
    _ = wait::until("their return", BACK_DEADLINE, || async { Ok((returned() == FEW).then_some(())) }).await;
    let given_up = given_up.unwrap_or_default();
    trial.bite(given_up >= FEW as u64, format!("gateways ended {given_up} connections that had fallen silent"));
    let returned = returned();
    trial.bite(returned == FEW, format!("{returned} clients came back over new connections"));
    Ok(())
}

/// How many of these devices have connected since each of them had so often.
fn returned<'a>(devices: impl IntoIterator<Item = &'a Device>, before: &[usize]) -> usize {
    devices.into_iter().zip(before).filter(|(device, before)| device.arrivals() > **before).count()
}

/// Some clients stop reading while much is sent to them, until their connections end; then they go on. A connection that
/// reads its inbox at that time is given entries only as it takes them, and ends by the silence that its client notices.
pub async fn slow_readers(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, crowd) = (trial.ground, trial.crowd);
    let closed = async |reason| ground.of_gateways("chat_gateway_closed_total", &format!("reason=\"{reason}\"")).await;
    let before = [closed("slow_consumer").await?, closed("client_left").await?];
    // Second devices write JSON, and are in the conversation of everybody.
    let slow = &crowd.devices[crowd.people().len()..];
    let everybody = crowd.busy.iter().max_by_key(|room| room.members.len()).context("there is a group")?.id;
    slow.iter().flat_map(|device| &device.lines).for_each(|line| line.stall(true));
    trial.fault(&format!("{} clients stop reading", slow.len()));
    let rounds = AtomicUsize::new(0);
    let ended = wait::until("the end of the slow readers' connections", SLOW_DEADLINE, || async {
        if rounds.fetch_add(1, Ordering::Relaxed) < ROUNDS_MAX {
            say_much(trial, everybody).await?;
        } else {
            sleep(LOOK_PAUSE).await;
        }
        let ended = [closed("slow_consumer").await? - before[0], closed("client_left").await? - before[1]];
        Ok((ended.iter().sum::<u64>() >= slow.len() as u64).then_some(ended))
    })
    .await;
    slow.iter().flat_map(|device| &device.lines).for_each(|line| line.stall(false));
    trial.told.line("they read again");
    let [closed, left] = ended?;
    trial.bite(closed > 0, format!("gateways closed {closed} connections of slow readers, and {left} clients left"));
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
