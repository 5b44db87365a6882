//! A phone vanishes without a word: what is sent to it meanwhile has to reach it as a notification.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use chat_client::ids::{ConversationId, MessageId};
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::{
    audit::{Check, Diary},
    chaos::{
        line::Line,
        phone::{Notified, Phone},
        settle,
        trial::Trial,
    },
    fleet::Service,
    person::{Person, SHOWN_DEADLINE},
    wait,
};

/// How long after a message its notification may come: 30 s of silence, and what is left for a quick return.
const NOTIFIED_WITHIN: Duration = Duration::from_secs(35);
/// How much longer than that it is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Messages that are sent to a phone that has vanished.
const MESSAGES: usize = 3;
/// How long a phone may take to be back; its client waits longer after each failure.
const BACK_DEADLINE: Duration = Duration::from_secs(45);

/// Somebody who talks to somebody whose phone vanishes and to somebody whose phone is there, both with registered devices.
struct Trio {
    room: ConversationId,
    speaker: Person,
    vanishing: Person,
    /// The one way to a gateway, and where it leads.
    line: Line,
    gateway: String,
    vanishing_phones: Vec<Phone>,
    listener: Person,
    listener_phones: Vec<Phone>,
}

/// Several times. Who has vanished is notified once of each message; who is there is not.
pub async fn vanished(trial: &mut Trial<'_>) -> Result<()> {
    let mut trio = Trio::meet(trial).await?;
    for _ in 0..trial.scale.of(4, 1) {
        round(trial, &trio).await?;
    }
    for person in [&mut trio.speaker, &mut trio.vanishing, &mut trio.listener] {
        person.leave().await?;
    }
    Ok(())
}

async fn round(trial: &mut Trial<'_>, trio: &Trio) -> Result<()> {
    let ground = trial.ground;
    let (metric, label) = ("chat_gateway_closed_total", "reason=\"heartbeat_missed\"");
    let closed_before = ground.of_gateways(metric, label).await?;
    let (here, _) = trio.say().await?;
    trio.until_shown(here, "a message while all is well", SHOWN_DEADLINE).await?;
    trial.pause(0..3000).await;
    trio.line.silence();
    trio.line.lead_to(None);
    trial.fault("a phone vanishes without a word; its connection stays open");
    let mut said = BTreeMap::new();
    for _ in 0..MESSAGES {
        let (message_id, at) = trio.say().await?;
        said.insert(message_id, at);
        trial.pause(0..500).await;
    }
    let taken = || taken(trial, &trio.vanishing_phones, &said);
    let wanted = said.len() * trio.vanishing_phones.len();
    // What is missing then is found below.
    _ = wait::until("notifications", NOTIFIED_WITHIN + PATIENCE, || async {
        Ok((taken().len() >= wanted).then_some(()))
    })
    .await;
    let closed = ground.of_gateways(metric, label).await?.saturating_sub(closed_before);
    trial.bite(closed > 0, format!("gateways ended {closed} connections that had fallen silent"));

    trio.line.lead_to(Some(trio.gateway.clone()));
    let last =
        said.iter().max_by_key(|(_, at)| **at).map(|(message_id, _)| *message_id).context("something was said")?;
    let back = trio.until_shown(last, "the last message after the phone's return", BACK_DEADLINE).await;
    trial.bite(back.is_ok(), "the phone came back and was shown what it had missed");
    // A second notification would come out of the queue.
    settle::drain_queue(ground).await;
    judge(trial, trio, &said, wanted);
    Ok(())
}

fn judge(trial: &mut Trial<'_>, trio: &Trio, said: &BTreeMap<MessageId, Instant>, wanted: usize) {
    let taken = taken(trial, &trio.vanishing_phones, said);
    let mut first: BTreeMap<(usize, MessageId), Duration> = BTreeMap::new();
    let mut again = 0;
    for (phone, notified) in &taken {
        let Some(said_at) = said.get(&notified.message_id) else { continue };
        let took = notified.at.saturating_duration_since(*said_at);
        if first.insert((*phone, notified.message_id), took).is_some() {
            again += 1;
        }
    }
    let missing = wanted - first.len();
    let late: Vec<_> = first.values().filter(|took| **took > NOTIFIED_WITHIN).collect();
    let told = |count: usize, what: &str| (count > 0).then(|| format!("{what} to the phone that vanished"));
    trial.promise(Check::NotNotified, missing, wanted, told(missing, "a message"));
    trial.promise(Check::NotifiedTwice, again, taken.len(), told(again, "a message"));
    let first_late = late.first().map(|took| format!("{} ms after the message", took.as_millis()));
    trial.promise(Check::NotifiedLate, late.len(), wanted, first_late);
    let slowest = first.values().max().map_or(0, Duration::as_millis);
    trial.told.line(&format!("notified within {slowest} ms of the message"));
    let wrongly: usize =
        trio.listener_phones.iter().map(|phone| phone.notified(trial.ground.fleet.push_services()).len()).sum();
    let whom = (wrongly > 0).then(|| format!("{} was notified though they were there", trio.listener.name));
    trial.promise(Check::NotifiedWrongly, wrongly, said.len() * trio.listener_phones.len(), whom);
}

/// Notifications of these messages, each with the phone that it is for.
fn taken(trial: &Trial<'_>, phones: &[Phone], said: &BTreeMap<MessageId, Instant>) -> Vec<(usize, Notified)> {
    let services = trial.ground.fleet.push_services();
    let of = |(number, phone): (usize, &Phone)| {
        let notified = phone.notified(services).into_iter().filter(|it| said.contains_key(&it.message_id));
        notified.map(move |notified| (number, notified)).collect::<Vec<_>>()
    };
    phones.iter().enumerate().flat_map(of).collect()
}

impl Trio {
    async fn meet(trial: &mut Trial<'_>) -> Result<Self> {
        let (fleet, services) = (&trial.ground.fleet, trial.ground.fleet.push_services());
        let gateways: Vec<_> = fleet.gateways().iter().map(Service::url).collect();
        let speaker = Person::appear("speaker", fleet.kaha(), gateways.clone()).await?;
        let listener = Person::appear("listener", fleet.kaha(), gateways).await?;
        let gateway = fleet.gateways().choose(&mut trial.rng).map(Service::address).context("a fleet has gateways")?;
        let line = Line::open(Some(gateway.clone()), None).await?;
        let vanishing = Person::appear("vanishing", fleet.kaha(), vec![format!("http://{}", line.address())]).await?;
        let phones =
            async |person: &Person| Phone::register_all(&person.name, person.user_id, person.rest()?, services).await;
        let (vanishing_phones, listener_phones) = (phones(&vanishing).await?, phones(&listener).await?);
        let room = speaker.rest()?.create_group([listener.user_id, vanishing.user_id]).await?.conversation_id;
        Ok(Self { room, speaker, vanishing, line, gateway, vanishing_phones, listener, listener_phones })
    }

    /// A message to both, and when it was accepted.
    async fn say(&self) -> Result<(MessageId, Instant)> {
        let accepted = self.speaker.client()?.send(self.room, "are you there?").await?;
        Ok((accepted.message_id, Instant::now()))
    }

    /// Waits until the one who vanishes is shown a message.
    async fn until_shown(&self, message_id: MessageId, what: &str, deadline: Duration) -> Result<()> {
        let shown = |diary: &Diary| diary.messages(self.room).iter().any(|message| message.message_id == message_id);
        self.vanishing.until(what, deadline, shown).await
    }
}
