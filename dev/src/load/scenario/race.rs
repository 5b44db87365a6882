//! `race`: many customers of one business come at once, agents go away and come back, gateways are killed one after the other.
//! Afterwards PostgreSQL is asked whether a case ever had two agents, an agent too many cases, or a customer none.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use chat_client::ids::BusinessId;
use chat_load::report::Run;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    fleet::READY_DEADLINE,
    load::{
        chat::{Chat, ChatOptions},
        desk::{self, Desk, Ledger, Manner},
        outcome::Outcome,
        run::{self, figure, number},
        setting::Setting,
        subject::Subject,
    },
    terminal,
};

/// How long it may take until all cases are resolved.
const DEADLINE: Duration = Duration::from_mins(4);
/// Between two looks at cases that wait.
const PAUSE: Duration = Duration::from_millis(250);
/// No agent may have room for longer than this while a case waits.
const STARVED_MIN: Duration = Duration::from_secs(5);
/// A younger case may be assigned before an older one by so much, in milliseconds.
const OVERTAKING_MAX_MS: u32 = 100;
/// What one business is to reach.
const ASSIGNMENTS_PER_SECOND_MIN: f64 = 100.0;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many customers come
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    pub customers: u32,
    /// Within how many seconds they come
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// How many agents the business has; each has five cases at a time
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub agents: u32,
    /// How long an agent takes to answer; then it resolves the case
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub answer_ms: u64,
    /// How many gateways
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=8))]
    pub gateways: u32,
    /// Between two gateways that are killed and started again
    #[arg(long, value_name = "NUMBER", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub kill_ms: u64,
}

/// What PostgreSQL says afterwards.
#[derive(Debug)]
pub struct Verdict {
    /// Gateways that were killed.
    pub kills: u32,
    /// How long it took until all cases were resolved.
    pub lasted: Duration,
    /// How the cases went.
    pub ledger: Ledger,
    /// Pairs of assignments of one case at the same time.
    pub overlapping: u64,
    /// The most cases that the router gave an agent at a time.
    pub load_max: u64,
    /// Younger cases that were assigned before older ones, by more than may be.
    pub overtaking: u64,
    /// How often an agent had room for longer than may be while a case waited that it could get.
    pub starved: u64,
    /// Customers whose last message was neither answered nor resolved, in a case that is not open.
    pub forgotten: u64,
}

impl Verdict {
    /// Which promises are broken.
    pub fn failures(&self) -> Vec<String> {
        run::those([
            (self.overlapping > 0, format!("{} times a case had two agents at once", self.overlapping)),
            (self.load_max > desk::CAPACITY.into(), format!("an agent had {} cases at a time", self.load_max)),
            (self.overtaking > 0, format!("{} younger cases were assigned before older ones", self.overtaking)),
            (self.starved > 0, format!("{} times an agent had room for 5 s while a case waited", self.starved)),
            (self.forgotten > 0, format!("{} customers were forgotten", self.forgotten)),
            (self.ledger.open > 0, format!("{} cases were not resolved in {DEADLINE:?}", self.ledger.open)),
        ])
    }
}

/// Races and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("race", settings(options))?;
    let chat = ChatOptions { gateways: options.gateways as usize, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    terminal::heading("customers of one business race");
    let verdict = race(options, &chat).await?;
    chat.stop().await?;
    report(options, &verdict, &mut outcome);
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("customers".to_owned(), json!(options.customers)),
        ("seconds in which they come".to_owned(), json!(options.seconds)),
        ("agents".to_owned(), json!(options.agents)),
        ("milliseconds until an agent answers".to_owned(), json!(options.answer_ms)),
        ("gateways".to_owned(), json!(options.gateways)),
        ("milliseconds between kills".to_owned(), json!(options.kill_ms)),
    ])
}

/// Lets customers come, kills gateways until all cases are resolved, and asks PostgreSQL.
pub async fn race(options: &Options, chat: &Chat) -> Result<Verdict> {
    let manner = Manner { answers_after: Duration::from_millis(options.answer_ms), is_unsteady: true };
    let mut desk = Desk::open(chat, options.agents as usize, manner).await?;
    desk.begin().await?;
    let (business_id, since) = (desk.business_id, desk::now(chat).await?);
    let (mut kills, mut room) = (0, Room::default());
    let began = Instant::now();
    tokio::select! {
        broken = kill(options, chat, &mut kills) => match broken? {},
        broken = watch(chat, business_id, &mut room) => match broken? {},
        done = play(options, chat, &desk) => done?,
    }
    let lasted = began.elapsed();
    for gateway in chat.fleet().gateways() {
        gateway.wait_ready(READY_DEADLINE).await?;
    }
    let ledger = Ledger::read(chat, business_id, &since).await?;
    let verdict = Verdict {
        kills,
        lasted,
        ledger,
        starved: room.starved,
        overlapping: 0,
        load_max: 0,
        overtaking: 0,
        forgotten: 0,
    };
    judge(chat, business_id, verdict).await
}

/// Customers come and write one message each; it ends when all cases are resolved, or at the deadline.
async fn play(options: &Options, chat: &Chat, desk: &Desk) -> Result<()> {
    let (began, customers) = (Instant::now(), desk.customers(chat, options.customers as usize)?);
    let between = Duration::from_secs(options.seconds) / options.customers;
    let coming = (0_u32..).zip(&customers).map(async |(number, customer)| {
        sleep_until(began + between * number).await;
        let id = desk.contact(customer).await?;
        desk.write(customer, id).await
    });
    try_join_all(coming).await?;
    desk.calm();
    // The persister may not have stored a message yet that opens a case again.
    let question = format!(
        "select count(*) from cases k join conversations c using (conversation_id)
         where k.business_id = '{}' and k.state = 'resolved' and c.customer_seq > 0
             and c.customer_seq <= greatest(c.agent_seq, c.resolved_seq)",
        desk.business_id.as_uuid()
    );
    while began.elapsed() < DEADLINE {
        if count(chat, question.clone()).await? >= options.customers.into() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Kills one gateway after the other, and starts each again at once.
async fn kill(options: &Options, chat: &Chat, kills: &mut u32) -> Result<Infallible> {
    let mut turns = interval(Duration::from_millis(options.kill_ms));
    turns.tick().await;
    for gateway in chat.fleet().gateways().iter().cycle() {
        turns.tick().await;
        gateway.kill().await?;
        gateway.start()?;
        *kills += 1;
    }
    bail!("there is no gateway")
}

/// Agents that have room while a case waits, since when, each until it gets a case.
#[derive(Debug, Default)]
struct Room {
    since: HashMap<String, Instant>,
    starved: u64,
}

impl Room {
    /// `idle` are those that have room now, each with its last assignment.
    fn note(&mut self, idle: &[String], now: Instant) {
        self.since.retain(|agent, _| idle.contains(agent));
        for agent in idle {
            let since = *self.since.entry(agent.clone()).or_insert(now);
            if now.duration_since(since) > STARVED_MIN {
                self.starved += 1;
                self.since.insert(agent.clone(), now);
            }
        }
    }
}

/// Looks all the time for agents that could get a case that waits, and get none. All agents are reachable: they have devices.
async fn watch(chat: &Chat, business_id: BusinessId, room: &mut Room) -> Result<Infallible> {
    let question = format!(
        "select coalesce(string_agg(s.user_id::text || coalesce(s.last_assigned_at::text, ''), ','), '')
         from staff s join businesses b using (business_id)
         where b.business_id = '{}' and s.status = 'available'
             and (
                 select count(*) from cases k
                 where k.business_id = b.business_id and k.agent_id = s.user_id and k.state = 'assigned'
             ) < coalesce(s.capacity, b.capacity)
             and exists (
                 select from cases k
                 where k.business_id = b.business_id and k.state = 'waiting' and s.user_id <> all (k.missed_by)
             )",
        business_id.as_uuid()
    );
    loop {
        let idle: String = desk::ask(chat, question.clone()).await?.try_get(0)?;
        let idle: Vec<_> = idle.split(',').filter(|agent| !agent.is_empty()).map(str::to_owned).collect();
        room.note(&idle, Instant::now());
        sleep(PAUSE).await;
    }
}

async fn count(chat: &Chat, question: String) -> Result<u64> {
    Ok(desk::ask(chat, question).await?.try_get::<i64, _>(0)?.unsigned_abs())
}

/// Completes the verdict by what the ledger and the conversations show.
async fn judge(chat: &Chat, business_id: BusinessId, verdict: Verdict) -> Result<Verdict> {
    let id = business_id.as_uuid();
    let overlapping = format!(
        "select count(*) from assignments a join assignments b
             on a.conversation_id = b.conversation_id and a.assignment_id < b.assignment_id
             and a.assigned_at < coalesce(b.released_at, 'infinity') and b.assigned_at < coalesce(a.released_at, 'infinity')
         where a.business_id = '{id}'"
    );
    // Cases end before others begin at the same moment.
    let load_max = format!(
        "select coalesce(max(load), 0)::bigint from (
             select sum(change) over (partition by agent_id order by at, change) as load from (
                 select agent_id, assigned_at as at, 1 as change from assignments
                 where business_id = '{id}' and assigned_by is null
                 union all
                 select agent_id, released_at, -1 from assignments
                 where business_id = '{id}' and assigned_by is null and released_at is not null
             ) changes
         ) loads"
    );
    // Of first assignments: a case that was given back waits for other agents than a new one does.
    let overtaking = format!(
        "with firsts as (
             select distinct on (conversation_id, case_number) assigned_at,
                 assigned_at - waited_ms * interval '1 ms' as waiting_since
             from assignments where business_id = '{id}'
             order by conversation_id, case_number, assignment_id
         )
         select count(*) from firsts older join firsts younger
             on younger.waiting_since > older.waiting_since + interval '{OVERTAKING_MAX_MS} ms'
             and younger.assigned_at < older.assigned_at"
    );
    let forgotten = format!(
        "select count(*) from cases k join conversations c using (conversation_id)
         where k.business_id = '{id}' and k.state = 'resolved' and c.customer_seq > greatest(c.agent_seq, c.resolved_seq)"
    );
    Ok(Verdict {
        overlapping: count(chat, overlapping).await?,
        load_max: count(chat, load_max).await?,
        overtaking: count(chat, overtaking).await?,
        forgotten: count(chat, forgotten).await?,
        ..verdict
    })
}

fn report(options: &Options, verdict: &Verdict, outcome: &mut Outcome) {
    let Verdict { ledger, .. } = verdict;
    let mut run = Run {
        target: "chat".to_owned(),
        name: format!("{} customers in {} s", options.customers, options.seconds),
        seconds: verdict.lasted.as_secs_f64(),
        ..Run::default()
    };
    let figures = [
        ("gateways killed", f64::from(verdict.kills), "", "With SIGKILL, each started again at once."),
        ("lasted", verdict.lasted.as_secs_f64(), "s", "From the first customer until the last case was resolved."),
        ("assignments", number(ledger.assignments), "", "Some cases are given back and assigned again."),
        ("assignments per second", ledger.per_second(), "/s", "From the first to the last."),
        ("wait for an agent p50", ledger.waited_p50_ms, "ms", "From the opening of a case until its first assignment."),
        ("wait for an agent p99", ledger.waited_p99_ms, "ms", "The same, 99 of 100."),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut run, name, value, unit, meaning);
    }
    let aims = [
        ("cases with two agents at once", 0, verdict.overlapping),
        ("cases of an agent at a time, at the most", desk::CAPACITY.into(), verdict.load_max),
        ("agents with room for more than 5 s while a case waits", 0, verdict.starved),
        ("younger cases more than 100 ms before older ones", 0, verdict.overtaking),
        ("customers that were forgotten", 0, verdict.forgotten),
    ];
    for (what, most, found) in aims {
        outcome.aim(what, &format!("≤ {most}"), found.to_string(), found <= most);
    }
    let per_second = ledger.per_second();
    outcome.aim(
        "assignments per second of one business",
        &format!("≥ {ASSIGNMENTS_PER_SECOND_MIN}"),
        format!("{per_second:.0}"),
        per_second >= ASSIGNMENTS_PER_SECOND_MIN,
    );
    for failure in verdict.failures() {
        outcome.problem(failure);
    }
    outcome.add_step(run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_starved_when_it_has_room_for_long_and_gets_no_case() {
        let (mut room, begin) = (Room::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let agents = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        room.note(&agents(&["one", "two since 1"]), at(0));
        // The second one got a case, which shows in its last assignment, and then was full for a moment.
        room.note(&agents(&["one", "two since 2"]), at(4));
        room.note(&agents(&["one"]), at(5));
        assert_eq!(room.starved, 0);
        room.note(&agents(&["one", "two since 2"]), at(6));
        assert_eq!(room.starved, 1);
    }
}
