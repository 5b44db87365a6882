//! `hostile`: a tenth of the clients break the rules while the others write to each other. What those others feel of it
//! is measured against the same load with nobody else there.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use chat_load::{plan::Seat, report::Run, rude::RudeDone};
use chat_shared::limits;
use clap::Args;
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        outcome::Outcome,
        rude::{Rude, RudeOutcome},
        run::{self, Measured, Tools, number},
        setting::Setting,
        subject::Subject,
        workload::{Pace, Workload},
    },
    terminal,
};

const GATEWAYS: usize = 2;
/// One of so many clients is rude.
const RUDE_SHARE: u32 = 10;
/// By so much more may others wait.
const SLOWER_MAX: f64 = 3.0;
/// A gateway may hold so much for each rude client besides what it may keep for it to read.
const BYTES_PER_CLIENT_MAX: u64 = 64 * 1024;
/// By so much the memory of a gateway differs from one load to the next anyway.
const BYTES_SLACK: u64 = 8 * 1024 * 1024;
const WARM_UP: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(30);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many clients; a tenth of them breaks the rules
    #[arg(long, value_name = "COUNT", default_value_t = 800, value_parser = clap::value_parser!(u32).range(120..=10_000))]
    clients: u32,
    /// Messages a second of all who keep the rules
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How often a second a client that breaks the rules does so, while it is connected; who floods does it ten times as often
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    deeds: u32,
    /// How long each of the two loads is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.clients as usize
    }
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("hostile", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let rude_couples = options.clients / RUDE_SHARE / 2;
    let polite = chat.seats((options.clients / 2 - rude_couples) as usize, 2).await?;
    let rude = chat.seats(rude_couples as usize, 2).await?;
    terminal::heading("hostile clients of chat");
    let alone = run::run(&chat, &workload(options, "undisturbed", polite.clone()), &setting.tools).await?;
    let (beside, came_of_it) = beside_rude(&chat, options, polite, &rude, &setting.tools).await?;
    compare(&mut outcome, &alone.run, &beside.run, rude.len() as u64);
    outcome.add(alone);
    outcome.add(with_figures(beside, &came_of_it));
    chat.stop().await?;
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("clients".to_owned(), json!(options.clients)),
        ("of those rude".to_owned(), json!(options.clients / RUDE_SHARE / 2 * 2)),
        ("messages per second of the others".to_owned(), json!(options.rate)),
        ("rude deeds per second and client".to_owned(), json!(options.deeds)),
        ("seconds".to_owned(), json!(options.seconds)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

fn workload(options: &Options, name: &str, seats: Vec<Seat>) -> Workload {
    let pace = Pace { warm_up: WARM_UP, length: Duration::from_secs(options.seconds), drain: DRAIN };
    Workload::steady(name.to_owned(), seats, 2, options.rate.into(), pace)
}

/// The rude ones begin with the warm-up and end when all has been measured.
async fn beside_rude(
    chat: &Chat,
    options: &Options,
    polite: Vec<Seat>,
    rude: &[Seat],
    tools: &Tools,
) -> Result<(Measured<()>, RudeOutcome)> {
    let foreign = polite.first().context("there is nobody to disturb")?.conversation.clone();
    let workload = workload(options, "beside rude clients", polite);
    let measured = run::run_with(chat, &workload, tools, async |stage| {
        let rude = Rude::start(chat, &tools.generator, &tools.scratch, rude, &foreign, options.deeds.into())?;
        stage.reach(WARM_UP + Duration::from_secs(options.seconds)).await;
        rude.end().await
    })
    .await?;
    let Measured { run, done, mut problems, failures, connect_seconds, stored_after, meanwhile } = measured;
    problems.extend(harmless(&meanwhile.done));
    Ok((Measured { run, done, problems, failures, connect_seconds, stored_after, meanwhile: () }, meanwhile))
}

/// Why nobody was disturbed.
fn harmless(rude: &RudeDone) -> Vec<String> {
    run::those([
        (rude.deeds == 0, "rude clients did nothing rude".to_owned()),
        (rude.ended == 0, "no server ended a visit of a rude client".to_owned()),
    ])
}

fn compare(outcome: &mut Outcome, alone: &Run, beside: &Run, rude: u64) {
    let ratio = beside.deliver.p99_ms / alone.deliver.p99_ms.max(f64::MIN_POSITIVE);
    outcome.aim(
        "delivery p99 of the others, against undisturbed",
        &format!("≤ {SLOWER_MAX} ×"),
        format!("{ratio:.2} ×"),
        ratio <= SLOWER_MAX,
    );
    let grown = gateway_peak(beside).saturating_sub(gateway_peak(alone));
    let bound = rude * (limits::OUTBOX_BYTES_MAX as u64 + BYTES_PER_CLIENT_MAX) + BYTES_SLACK;
    outcome.aim(
        &format!("how much more a gateway holds beside {rude} rude clients"),
        &format!("≤ {:.0} MiB", number(bound) / MEBIBYTE),
        format!("{:.1} MiB", number(grown) / MEBIBYTE),
        grown <= bound,
    );
}

/// The most that any gateway held.
fn gateway_peak(run: &Run) -> u64 {
    let gateways = run.processes.iter().filter(|(name, _)| name.starts_with("gateway"));
    gateways.map(|(_, cost)| cost.memory_peak_bytes).max().unwrap_or_default()
}

fn with_figures(mut measured: Measured<()>, rude: &RudeOutcome) -> Measured<()> {
    let run = &mut measured.run;
    let visits = "Connections that rude clients opened. Who is thrown out comes back a second later. Below, what they met \
                  with, and how often.";
    run::figure(run, "rude visits", number(rude.done.visits), "", visits);
    let ended = "Of those, how many a server ended: by closing the connection, with or without a reason.";
    run::figure(run, "rude visits ended by servers", number(rude.done.ended), "", ended);
    let deeds = "Frames that break a rule or ask for too much: garbage, too large, without a mask, too many, or large \
                 messages to somebody who reads nothing.";
    run::figure(run, "rude deeds", number(rude.done.deeds), "", deeds);
    let cpu = "Processor time that rude clients took themselves; it is missing to all others.";
    run::figure(run, "processor time of rude clients", rude.cpu_seconds, "s", cpu);
    for (answer, count) in &rude.done.answers {
        run::figure(run, &format!("rude visits: {answer}"), number(*count), "", "");
    }
    measured
}
