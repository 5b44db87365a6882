//! `seed`: what the requirements count on for 50,000 users (R11.5), with the reading, typing, coming and going that belong
//! to it. Those who only stay connected are simulated by a part of them.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Absence, Manners, Phase, Reads, RealtimeDone, Seat, Sends, Writers};
use chat_shared::limits;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        desk::{self, Customer, Desk, Manner},
        gateway_sql, marks,
        outcome::Outcome,
        run::{self, Measured, Stage, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros},
        writes::{Idle, Writes, Written},
    },
    terminal,
};

/// Users that the figures are for.
const USERS: u32 = 50_000;
const PAIR: usize = 2;
const GATEWAYS: usize = 2;
/// Until what comes with the handshakes is over: the first confirmation of a connection, in its first heartbeat, is recorded.
const SETTLED: Duration = Duration::from_secs(limits::HEARTBEAT_INTERVAL.as_secs() + 2);
/// A round of heartbeats, with which gateways record what was confirmed: what is measured are whole rounds.
const ROUND: Duration = limits::HEARTBEAT_INTERVAL;
/// Nothing but heartbeats.
const IDLE: Duration = ROUND;
/// Until reading and leaving go on as they stay.
const WARM_UP: Duration = Duration::from_secs(12);
const DRAIN: Duration = Duration::from_secs(40);
/// Before a message is sent its sender says that they write,
const TYPING_BEFORE: Duration = Duration::from_secs(2);
/// and so long after it was shown it is marked as read.
const READ_AFTER: Duration = Duration::from_millis(1500);
/// Of those who come and go: online in the mean, and then away.
const ONLINE: Duration = Duration::from_secs(18);
const AWAY: Duration = Duration::from_secs(2);
/// What R11.5 counts on, a second.
const REDIS_WRITES: f64 = 500.0;
const SQL_WRITES: f64 = 50.0;
/// The same with a new case each second.
const SQL_WRITES_WITH_CASES: f64 = 60.0;
/// Agents of the business that gets the cases, and how long each takes to answer.
const AGENTS: usize = 5;
const ANSWERS_AFTER: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many connections there are; what those of the 50,000 that are not there would add is computed from the time in
    /// which these only send heartbeats, and said apart
    #[arg(long, value_name = "COUNT", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1000..=30_000))]
    connections: u32,
    /// Messages a second of all 50,000, in direct conversations. Each is announced by typing, confirmed, and marked as read
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// How many users a second connect, and as many leave; 28 if each of 50,000 comes twice an hour
    #[arg(long, value_name = "NUMBER", default_value_t = 28, value_parser = clap::value_parser!(u32).range(0..=40))]
    visits: u32,
    /// How long it is measured, at the least; in whole rounds of heartbeats of 15 seconds
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: u64,
    /// A customer comes to a business each second besides, writes one message, and gets an agent, an answer, and its case
    /// resolved
    #[arg(long)]
    cases: bool,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.connections as usize
    }

    /// Pairs that come and go so that as many users come as was asked for.
    fn visiting_pairs(&self) -> usize {
        (self.visits as usize * usize::try_from((ONLINE + AWAY).as_secs()).unwrap_or_default()).div_ceil(PAIR)
    }

    fn talking_pairs(&self) -> usize {
        self.connections() / PAIR - self.visiting_pairs()
    }

    /// When it is measured from, and until when.
    fn measured(&self) -> (Duration, Duration) {
        let from = SETTLED + IDLE + WARM_UP;
        (from, from + self.length())
    }

    fn length(&self) -> Duration {
        let rounds = self.seconds.div_ceil(ROUND.as_secs());
        ROUND * u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    /// How many cases open from when users begin to write until they stop.
    fn new_cases(&self) -> usize {
        if self.cases { usize::try_from((WARM_UP + self.length()).as_secs()).unwrap_or(usize::MAX) } else { 0 }
    }

    /// From when they begin to write and to leave until they stop.
    fn active_seconds(&self) -> f64 {
        (WARM_UP + self.length()).as_secs_f64()
    }
}

/// What the servers wrote.
struct Cost {
    idle: Written,
    written: Written,
    gateway_sql: f64,
    /// Customers that got an agent.
    assigned: usize,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("seed", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let (from, until) = options.measured();
    let workload = workload(options, &chat).await?;
    terminal::heading("the seed's load on chat");
    let desk = if options.cases { Some(desk(&chat).await?) } else { None };
    let meanwhile = async |stage: &Stage<'_>| {
        let count = async {
            stage.reach(SETTLED).await;
            let before = Writes::of(&chat).await?;
            stage.reach(SETTLED + IDLE).await;
            let idle = Writes::of(&chat).await?.since(&before);
            stage.reach(from).await;
            let (before, statements) = (Writes::of(&chat).await?, gateway_sql::counted(&chat).await?);
            stage.reach(until).await;
            let written = Writes::of(&chat).await?.since(&before);
            anyhow::Ok((idle, written, gateway_sql::counted(&chat).await? - statements))
        };
        let ((idle, written, gateway_sql), assigned) =
            tokio::try_join!(count, cases(&chat, options, desk.as_ref(), stage))?;
        Ok(Cost { idle, written, gateway_sql, assigned })
    };
    let mut measured = Box::pin(run::run_with(&chat, &workload, &setting.tools, meanwhile)).await?;
    put_into(&mut measured, &chat, options, &mut outcome).await?;
    outcome.add(measured);
    chat.stop().await?;
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("users".to_owned(), json!(USERS)),
        ("of those connected here".to_owned(), json!(options.connections)),
        ("messages per second".to_owned(), json!(options.rate)),
        ("users who come per second".to_owned(), json!(options.visits)),
        ("seconds".to_owned(), json!(options.length().as_secs())),
        ("a new case each second".to_owned(), json!(options.cases)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

async fn workload(options: &Options, chat: &Chat) -> Result<Workload> {
    let (from, until) = options.measured();
    let (begin_us, until_us) = (micros(SETTLED + IDLE), micros(until));
    let watching = Manners { watches: true, ..Manners::default() };
    let sends = Sends {
        per_second: options.rate.into(),
        from_us: micros(SETTLED + IDLE + TYPING_BEFORE),
        until_us,
        writers: Writers::All,
    };
    let talking = CrowdLoad {
        seats: pairs(chat, options.talking_pairs()).await?,
        conversation_size: PAIR,
        sends: Some(sends),
        absence: None,
        manners: Manners {
            types_before_us: Some(micros(TYPING_BEFORE)),
            reads: Some(Reads::Each { after_us: micros(READ_AFTER) }),
            ..watching
        },
    };
    let (online_us, away_us) = (micros(ONLINE), micros(AWAY));
    let absence =
        Absence::Often { online_us, away_us, from_us: begin_us, until_us, says_goodbye: true, first_stays: false };
    let visiting = CrowdLoad {
        seats: pairs(chat, options.visiting_pairs()).await?,
        conversation_size: PAIR,
        sends: None,
        absence: Some(absence),
        manners: watching,
    };
    let phase = Phase { name: "seed".to_owned(), from_us: micros(from), until_us };
    let name = format!("{} messages/s, {} visits/s", options.rate, options.visits);
    Ok(Workload { name, crowds: vec![talking, visiting], phases: vec![phase], costed: 0, drain: DRAIN })
}

/// A business with agents that answer.
async fn desk(chat: &Chat) -> Result<Desk> {
    let mut desk = Desk::open(chat, AGENTS, Manner { answers_after: ANSWERS_AFTER, is_unsteady: false }).await?;
    desk.begin().await?;
    Ok(desk)
}

/// Lets a customer come each second while users write. How many of them got an agent.
async fn cases(chat: &Chat, options: &Options, desk: Option<&Desk>, stage: &Stage<'_>) -> Result<usize> {
    let Some(desk) = desk else { return Ok(0) };
    let (since, customers) = (desk::now(chat).await?, desk.customers(chat, options.new_cases())?);
    let coming = (0_u32..).zip(&customers).map(async |(number, customer): (u32, &Customer)| {
        stage.reach(SETTLED + IDLE + SECOND * number).await;
        let id = desk.contact(customer).await?;
        desk.write(customer, id).await
    });
    try_join_all(coming).await?;
    desk::assigned(chat, desk.business_id, &since).await
}

async fn pairs(chat: &Chat, count: usize) -> Result<Vec<Seat>> {
    if count == 0 { Ok(Vec::new()) } else { chat.seats(count, PAIR).await }
}

async fn put_into(measured: &mut Measured<Cost>, chat: &Chat, options: &Options, outcome: &mut Outcome) -> Result<()> {
    let done = marks::realtime(&measured.done);
    let stored = marks::stored(chat, &done.furthest).await?;
    measured.problems.extend(marks::problems(&done, stored));
    let visits = visits_per_second(options, measured.done.tally().returned);
    measured.problems.extend(problems(options, &done, visits, measured.meanwhile.assigned));
    marks::put_into(&mut measured.run, &done, stored);
    let Cost { idle, written, gateway_sql, assigned } = &measured.meanwhile;
    let absent = USERS.saturating_sub(options.connections);
    let idle = Idle { written: idle, connections: options.connections };
    let redis = written.redis_per_second();
    let redis_of_all = redis + idle.of_more(absent) + Idle::signs_of_life(USERS);
    let seconds = written.seconds.max(0.001);
    let commands = format!(
        "Commands that changed something in Redis, those within scripts included. A second: {}. Most of pexpire is for \
         users to whom something happens for the first time in the run.",
        written.most(seconds)
    );
    let rest = format!(
        "Computed: {absent} more connections that only send heartbeats, as those here did before ({:.1} writes/s), and the \
         sign of life twice a day of all {USERS}, which nobody here stays for.",
        idle.written.redis_per_second()
    );
    let per_second = |count: u64| number(count) / options.active_seconds();
    let figures = [
        ("Redis writes per second", redis, "/s", commands.as_str()),
        (
            "Redis write operations per second",
            written.operations_per_second(),
            "/s",
            "The same as services ask for them: a script, which changes several keys of one user, is one.",
        ),
        ("Redis writes per second of those who are not here", redis_of_all - redis, "/s", &rest),
        (
            "SQL statements of gateways per second",
            gateway_sql / seconds,
            "/s",
            "Reads, mostly: whose presence may be watched is looked up when a client says whom it watches.",
        ),
        ("users who came per second", visits, "/s", "They had said goodbye; as many left meanwhile."),
        ("typing said per second", per_second(done.typing_said), "/s", "Nothing of it is stored."),
        ("typing shown per second", per_second(done.typing_shown), "/s", "To the other side."),
        (
            "presence shown per second",
            per_second(done.presence_shown),
            "/s",
            "Changes shown to those who watch; everybody watches one other user.",
        ),
        (
            "receipts of deliveries shown per second",
            per_second(done.deliveries_shown),
            "/s",
            "To the senders, once a device has confirmed.",
        ),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    if options.cases {
        let meaning = "Customers that came to a business, one each second, and got an agent.";
        figure(&mut measured.run, "cases", number(*assigned as u64), "", meaning);
    }
    if let Some(sql) = written.sql_per_second() {
        let meaning = "Statements of all services that changed rows; a batch of rows is one statement.";
        figure(&mut measured.run, "SQL write statements per second", sql, "/s", meaning);
    }
    let sql_max = if options.cases { SQL_WRITES_WITH_CASES } else { SQL_WRITES };
    aims(&measured.meanwhile.written, redis_of_all - redis, sql_max, outcome);
    Ok(())
}

/// `absent` is what those who are not here would make Redis write in a second.
fn aims(written: &Written, absent: f64, sql_max: f64, outcome: &mut Outcome) {
    let operations =
        ("Redis writes per second for 50,000 users, a script counted as one", written.operations_per_second());
    let commands = ("the same, each command within a script counted", written.redis_per_second());
    for (what, here) in [operations, commands] {
        let all = here + absent;
        outcome.aim(what, &format!("≤ {REDIS_WRITES}"), format!("{all:.0}"), all <= REDIS_WRITES);
    }
    if let Some(sql) = written.sql_per_second() {
        let what = "SQL write statements per second for 50,000 users";
        outcome.aim(what, &format!("≤ {sql_max}"), format!("{sql:.0}"), sql <= sql_max);
    }
}

fn visits_per_second(options: &Options, returned: u64) -> f64 {
    number(returned) / options.active_seconds()
}

/// Why it is not the load that was asked for.
fn problems(options: &Options, done: &RealtimeDone, visits: f64, assigned: usize) -> Vec<String> {
    let (wanted, cases) = (f64::from(options.visits), options.new_cases());
    run::those([
        (assigned < cases, format!("{assigned} of {cases} cases were assigned")),
        ((visits - wanted).abs() > wanted * 0.25, format!("{wanted} users a second were to come, and {visits:.1} did")),
        (done.typing_shown == 0, "nobody was shown that somebody writes".to_owned()),
        (done.presence_shown == 0 && options.visits > 0, "nobody was shown that somebody came or went".to_owned()),
        (done.deliveries_shown == 0, "nobody was shown that a message was delivered".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { connections: 5000, rate: 50, visits: 28, seconds: 30, cases: false }
    }

    #[test]
    fn talking_and_visiting_users_make_up_the_connections() {
        let options = options();
        assert_eq!(options.visiting_pairs(), 280);
        assert_eq!((options.talking_pairs() + options.visiting_pairs()) * PAIR, 5000);
        assert_eq!(Options { seconds: 31, ..options }.length(), ROUND * 3);
        assert!(Options { connections: 1000, visits: 40, ..options }.talking_pairs() > 0);
    }

    #[test]
    fn another_load_than_was_asked_for_is_a_problem() {
        let done = RealtimeDone { typing_shown: 1, presence_shown: 1, deliveries_shown: 1, ..RealtimeDone::default() };
        assert!(problems(&options(), &done, 27.0, 0).is_empty());
        assert_eq!(problems(&options(), &done, 14.0, 0).len(), 1);
        assert_eq!(problems(&options(), &RealtimeDone::default(), 28.0, 0).len(), 3);
        let with_cases = Options { cases: true, ..options() };
        assert_eq!(problems(&with_cases, &done, 28.0, 41), ["41 of 42 cases were assigned"]);
    }
}
