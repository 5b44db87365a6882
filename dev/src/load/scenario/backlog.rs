//! `backlog`: users who were away while their inboxes filled come back, all at once.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Absence, Seat, Sends, Writers};
use clap::Args;
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::ChatOptions,
        gateway_sql::{GatewaySql, Statements},
        outcome::Outcome,
        run::{self, Measured, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros, phase},
    },
    terminal,
};

/// Users of a group: one writes, the others are away.
const GROUP_SIZE: usize = 8;
const GATEWAYS: usize = 2;
/// When they go, after all were connected.
const LEAVING: Duration = Duration::from_secs(1);
/// Between their going and the first message, and between the last one and their return.
const QUIET: Duration = Duration::from_secs(4);
/// How long it is measured from their return on.
const RETURNING: Duration = Duration::from_secs(20);
/// How long it may take besides until everybody has everything.
const DRAIN: Duration = Duration::from_mins(1);

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many groups of eight; in each one user writes and seven are away
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=2000))]
    groups: u32,
    /// How many messages each of those who are away misses; an inbox holds 256
    #[arg(long, value_name = "COUNT", default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=255))]
    missed: u32,
    /// Messages a second of all who write meanwhile
    #[arg(long, value_name = "NUMBER", default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.groups as usize * GROUP_SIZE
    }
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    super::ensure_rate(options.rate.into(), options.groups as usize)?;
    let mut outcome = Outcome::begin("backlog", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let seats = chat.seats(options.groups as usize, GROUP_SIZE).await?;
    terminal::heading("backlog of chat");
    let (workload, returning) = workload(options, seats);
    let measured = run::run_with(&chat, &workload, &setting.tools, async |stage| {
        stage.reach(returning).await;
        let counting = GatewaySql::begin(&chat).await?;
        stage.reach(returning + RETURNING).await;
        counting.end(&chat).await
    })
    .await?;
    let Statements { counted, logged } = measured.meanwhile;
    outcome.aim(
        "SQL statements of gateways while everybody comes back",
        "0",
        format!("{counted} counted by them, {logged} logged by PostgreSQL"),
        counted < 1.0 && logged == 0,
    );
    outcome.add(with_figures(measured, options));
    chat.stop().await?;
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("groups of eight".to_owned(), json!(options.groups)),
        ("messages missed by each".to_owned(), json!(options.missed)),
        ("messages per second meanwhile".to_owned(), json!(options.rate)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

/// The load, and when those who are away begin to come back.
fn workload(options: &Options, seats: Vec<Seat>) -> (Workload, Duration) {
    // Half a message less, so that rounding adds none.
    let messages = f64::from(options.groups * options.missed) - 0.5;
    let filling = Duration::from_secs_f64(messages / f64::from(options.rate));
    let first = LEAVING + QUIET;
    let returning = first + filling + QUIET;
    let crowd = CrowdLoad {
        seats,
        conversation_size: GROUP_SIZE,
        sends: Some(Sends {
            per_second: options.rate.into(),
            from_us: micros(first),
            until_us: micros(first + filling),
            writers: Writers::First,
        }),
        absence: Some(Absence::Once { at_us: micros(LEAVING), away_us: micros(returning.saturating_sub(LEAVING)) }),
        ..CrowdLoad::default()
    };
    let phase = phase("returning", returning, returning + RETURNING);
    let name = "everybody comes back".to_owned();
    (Workload { name, crowds: vec![crowd], phases: vec![phase], costed: 0, drain: DRAIN }, returning)
}

/// Why it says little of users who come back with full inboxes.
fn problems(options: &Options, returned: u64, pushes: u64) -> Vec<String> {
    let away = u64::from(options.groups) * (GROUP_SIZE as u64 - 1);
    let missed = away * u64::from(options.missed);
    run::those([
        (returned != away, format!("{away} users were away, and {returned} returns were seen")),
        (pushes != missed, format!("{missed} messages should have waited in inboxes, and {pushes} did")),
    ])
}

fn with_figures(mut measured: Measured<Statements>, options: &Options) -> Measured<Statements> {
    let crowd = &measured.done.crowds[0];
    let (tally, caught_up) = (&crowd.tally, &crowd.caught_up);
    let pushes = crowd.catch_up.count();
    measured.problems.extend(problems(options, tally.returned, pushes));
    let services = measured.run.processes.values().filter(|cost| !cost.is_generator);
    let cpu: f64 = services.map(|cost| cost.cpu_seconds).sum();
    let seconds = |ms: f64| ms / 1000.0;
    let figures = [
        ("users that came back", number(tally.returned), "", "Users who were away, and connected again at once."),
        (
            "pushes that had waited",
            number(pushes),
            "",
            "Messages that waited in inboxes and were pushed after the return.",
        ),
        (
            "caught up p50",
            seconds(caught_up.percentile_ms(50.0)),
            "s",
            "From the moment when all began to come back, until half of the users had everything they missed.",
        ),
        (
            "caught up p99",
            seconds(caught_up.percentile_ms(99.0)),
            "s",
            "From the moment when all began to come back, until 99 of 100 users had everything they missed.",
        ),
        (
            "pushes per second",
            number(pushes) / seconds(caught_up.max_ms()).max(0.001),
            "/s",
            "Messages pushed from inboxes a second, until the last user had everything.",
        ),
        (
            "connected again p99",
            seconds(crowd.returns.percentile_ms(99.0)),
            "s",
            "From a user's first try until the connection was open and had resumed, 99 of 100 at most.",
        ),
        (
            "could not resume",
            number(tally.not_resumed),
            "",
            "Users who were told that not everything is there, and would have to load it from history.",
        ),
        (
            "processor time for 1,000 pushes",
            cpu * 1000.0 / number(pushes.max(1)),
            "s",
            "Of one processor, of all but the load generator, while everybody came back.",
        ),
        (
            "SQL statements",
            measured.meanwhile.counted,
            "",
            "Statements that gateways sent to PostgreSQL on behalf of clients while everybody came back.",
        ),
    ];
    for (name, value, unit, meaning) in figures {
        run::figure(&mut measured.run, name, value, unit, meaning);
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_come_back_to_all_that_was_missed_makes_a_problem() {
        let options = Options { groups: 2, missed: 10, rate: 1 };
        assert!(problems(&options, 14, 140).is_empty());
        assert_eq!(problems(&options, 0, 140).len(), 1);
        assert_eq!(problems(&options, 14, 139).len(), 1);
    }
}
