//! `reading`: everybody marks everything as read at the same moment.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Manners, Reads, Seat, Sends, Writers};
use clap::Args;
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        marks,
        outcome::Outcome,
        run::{self, Measured, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros, phase},
        writes::{Writes, Written},
    },
    terminal,
};

/// Users of a group: one writes, the others read.
const GROUP_SIZE: usize = 8;
const GATEWAYS: usize = 2;
/// Messages a second, before anybody reads.
const RATE: f64 = 400.0;
/// Between the last message and the moment when all read.
const QUIET: Duration = Duration::from_secs(3);
/// How long it is measured from then on.
const READING: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(40);
/// Statements that change rows for 1,000 marks: they are written together.
const SQL_WRITES_MAX: f64 = 20.0;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many groups of eight; in each one user writes, and seven mark everything as read at the same moment
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=2000))]
    groups: u32,
    /// How many messages each of those has not read until then
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=200))]
    unread: u32,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.groups as usize * GROUP_SIZE
    }

    /// Users who read.
    fn readers(&self) -> u64 {
        u64::from(self.groups) * (GROUP_SIZE as u64 - 1)
    }

    /// How long it takes until all messages are sent; half a message less, so that rounding adds none.
    fn writing(&self) -> Duration {
        Duration::from_secs_f64((f64::from(self.groups * self.unread) - 0.5) / RATE)
    }
}

/// What the storm made of the servers.
struct Storm {
    written: Written,
    appends: u64,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("reading", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let seats = chat.seats(options.groups as usize, GROUP_SIZE).await?;
    terminal::heading("reading storm of chat");
    let (workload, reading) = workload(options, seats);
    let mut measured = run::run_with(&chat, &workload, &setting.tools, async |stage| {
        // Late enough for the persister to be done with the messages.
        stage.reach(reading.saturating_sub(QUIET / 10)).await;
        let (before, last) = (Writes::of(&chat).await?, chat.log_end().await?);
        stage.reach(reading + READING).await;
        let written = Writes::of(&chat).await?.since(&before);
        Ok(Storm { written, appends: chat.log_end().await? - last })
    })
    .await?;
    put_into(&mut measured, &chat, options, &mut outcome).await?;
    outcome.add(measured);
    chat.stop().await?;
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("groups of eight".to_owned(), json!(options.groups)),
        ("users who read".to_owned(), json!(options.readers())),
        ("messages that each has not read".to_owned(), json!(options.unread)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

/// The load, and when all read.
fn workload(options: &Options, seats: Vec<Seat>) -> (Workload, Duration) {
    let reading = options.writing() + QUIET;
    let until_us = micros(options.writing());
    let crowd = CrowdLoad {
        seats,
        conversation_size: GROUP_SIZE,
        sends: Some(Sends { per_second: RATE, from_us: 0, until_us, writers: Writers::First }),
        manners: Manners { reads: Some(Reads::Together { at_us: micros(reading) }), ..Manners::default() },
        ..CrowdLoad::default()
    };
    let phase = phase("reading", reading, reading + READING);
    let name = format!("{} read at once", options.readers());
    (Workload { name, crowds: vec![crowd], phases: vec![phase], costed: 0, drain: DRAIN }, reading)
}

async fn put_into(measured: &mut Measured<Storm>, chat: &Chat, options: &Options, outcome: &mut Outcome) -> Result<()> {
    let done = marks::realtime(&measured.done);
    let stored = marks::stored(chat, &done.furthest).await?;
    let mut problems = marks::problems(&done, stored);
    if done.marks != options.readers() {
        problems.push(format!("{} users were to read, and {} marks were sent", options.readers(), done.marks));
    }
    measured.problems.append(&mut problems);
    let run = &mut measured.run;
    marks::put_into(run, &done, stored);
    let marks = number(done.marks).max(1.0);
    let Storm { written, appends } = &measured.meanwhile;
    let per_1000 = |count: f64| count * 1000.0 / marks;
    let redis = format!(
        "Commands that changed something in Redis, those within scripts included. For each mark: {}.",
        written.most(marks)
    );
    let figures = [
        (
            "read marks written, the last",
            done.written.max_ms(),
            "ms",
            "Until the load generator had written the last of the marks, which all are due at once. It is part of every wait \
             that is reported.",
        ),
        (
            "marks per second",
            number(done.marks_done) / (done.done.max_ms() / 1000.0).max(0.001),
            "/s",
            "Marks that were answered, by the time until the last one was.",
        ),
        (
            "events appended",
            number(*appends),
            "",
            "What came to stand in the log meanwhile: one for each user and conversation.",
        ),
        (
            "receipt shown, the last",
            done.shown.max_ms(),
            "ms",
            "Until the last participant was shown the last receipt.",
        ),
        ("Redis writes for 1,000 marks", per_1000(written.redis_calls()), "", &redis),
    ];
    for (name, value, unit, meaning) in figures {
        figure(run, name, value, unit, meaning);
    }
    if let Some(sql) = written.sql {
        let sql = per_1000(number(sql));
        let meaning = "Statements of all services that changed rows, in the same time.";
        figure(run, "SQL write statements for 1,000 marks", sql, "", meaning);
        let (what, aim) = ("SQL write statements for 1,000 marks", format!("≤ {SQL_WRITES_MAX}"));
        outcome.aim(what, &aim, format!("{sql:.1}"), sql <= SQL_WRITES_MAX);
    }
    let (users, what) = (done.furthest.len(), "users who have read in PostgreSQL as far as they marked");
    outcome.aim(what, "all", format!("{stored} of {users}"), stored == options.readers());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_as_much_to_read_as_was_asked_for() {
        let options = Options { groups: 3, unread: 4 };
        assert_eq!((options.readers(), options.connections()), (21, 24));
        let messages = options.writing().as_secs_f64() * RATE;
        assert!((11.0..12.0).contains(&messages), "the last one is due before the end: {messages}");
    }
}
