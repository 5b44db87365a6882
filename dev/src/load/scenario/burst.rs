//! `burst`: all customers of one business write at once, while others write to each other and should feel nothing of it.

use std::{collections::BTreeMap, ops::Range, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Sends, Writers};
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        desk::{self, Customer, Desk, Ledger, Manner},
        outcome::Outcome,
        run::{self, Measured, Stage, Tools, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros, phase},
    },
    terminal,
};

const GATEWAYS: usize = 2;
const PAIR: usize = 2;
const WARM_UP: Duration = Duration::from_secs(3);
/// The customers write within this time.
const BURST: Duration = Duration::from_secs(2);
/// Customers for each second in which the cases have to be assigned.
const ASSIGNED_PER_SECOND_MIN: u32 = 50;
const DRAIN: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);
/// From the burst on, after which a customer without an agent counts as one that gets none.
const ASSIGNED_DEADLINE: Duration = Duration::from_mins(2);
/// Between two looks at the assignments.
const PAUSE: Duration = Duration::from_millis(100);
/// What the burst may make of the waits of private chats.
const SLOWDOWN_MAX: f64 = 1.5;

/// The crowds and the phases, by their place.
const PRIVATE: usize = 0;
const CUSTOMERS: usize = 1;
const PHASE_BEFORE: usize = 0;
const PHASE_AFTER: usize = 1;
/// The burst as a whole, whose cost is counted.
const PHASE_BURST: usize = 2;
/// From the burst on a phase for each second, since it is known only afterwards when the last case is assigned.
const PHASE_SECONDS: usize = 3;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many customers write to the business within two seconds
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    pub customers: u32,
    /// How many agents the business has; each has five cases at a time
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub agents: u32,
    /// How long an agent takes to answer; then it resolves the case
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub answer_ms: u64,
    /// The conversations are made within the two seconds as well, by REST, and the messages are sent by REST
    #[arg(long)]
    pub new: bool,
    /// Messages a second of the private chats
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// How many pairs of users write to each other
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=9000))]
    pub pairs: u32,
    /// How long the private chats are measured alone, before the burst and after it
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.pairs as usize * PAIR + self.customers as usize + self.agents as usize
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn burst_at(&self) -> Duration {
        WARM_UP + self.length()
    }

    /// From the burst until all cases have to be assigned.
    fn settling(&self) -> Duration {
        let by_agents =
            Duration::from_millis(self.answer_ms) * self.customers.div_ceil(self.agents * desk::CAPACITY) * 2;
        BURST + Duration::from_secs((self.customers / ASSIGNED_PER_SECOND_MIN).into()).max(by_agents) + SECOND * 3
    }

    fn after(&self) -> Range<Duration> {
        let from = self.burst_at() + self.settling();
        from..from + self.length()
    }
}

/// What the burst came to.
#[derive(Debug)]
pub struct Burst {
    /// Conversations that got an agent.
    pub assigned: usize,
    /// From the first message until the last of them had one.
    pub lasted: Duration,
    /// As PostgreSQL has it when the private chats are measured alone again.
    pub ledger: Ledger,
    /// Cases that agents left open for good.
    pub forgotten: u64,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("burst", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    terminal::heading("customers of one business write at once");
    let (workload, measured) = measure(options, &chat, &setting.tools).await?;
    chat.stop().await?;
    report(options, &workload, measured, &mut outcome);
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("customers that write within two seconds".to_owned(), json!(options.customers)),
        ("conversations are made in the burst".to_owned(), json!(options.new)),
        ("agents".to_owned(), json!(options.agents)),
        ("milliseconds until an agent answers".to_owned(), json!(options.answer_ms)),
        ("private messages per second".to_owned(), json!(options.rate)),
        ("seconds before and after".to_owned(), json!(options.seconds)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

/// Measures the private chats before, during and after the burst.
pub async fn measure(options: &Options, chat: &Chat, tools: &Tools) -> Result<(Workload, Measured<Burst>)> {
    let manner = Manner { answers_after: Duration::from_millis(options.answer_ms), is_unsteady: false };
    let mut desk = Desk::open(chat, options.agents as usize, manner).await?;
    let customers = desk.customers(chat, options.customers as usize)?;
    let workload = workload(options, chat, &desk, &customers).await?;
    desk.begin().await?;
    let measured = run::run_with(chat, &workload, tools, async |stage| {
        let new = if options.new { &customers[..] } else { &[] };
        burst(options, chat, &desk, new, stage).await
    })
    .await?;
    Ok((workload, measured))
}

/// The load; customers that have their conversations before the burst are a crowd of it.
async fn workload(options: &Options, chat: &Chat, desk: &Desk, customers: &[Customer]) -> Result<Workload> {
    let (burst_at, after) = (options.burst_at(), options.after());
    let private = CrowdLoad {
        seats: chat.seats(options.pairs as usize, PAIR).await?,
        conversation_size: PAIR,
        sends: Some(Sends {
            per_second: options.rate.into(),
            from_us: 0,
            until_us: micros(after.end),
            writers: Writers::All,
        }),
        ..CrowdLoad::default()
    };
    let mut crowds = vec![private];
    if !options.new {
        terminal::progress(&format!("making the conversations of {} customers", customers.len()));
        let per_second = f64::from(options.customers) / BURST.as_secs_f64();
        // Half a message less, so that rounding adds none.
        let writing = Duration::from_secs_f64((f64::from(options.customers) - 0.5) / per_second);
        crowds.push(CrowdLoad {
            seats: desk.seats(chat, customers).await?,
            conversation_size: 1,
            sends: Some(Sends {
                per_second,
                from_us: micros(burst_at),
                until_us: micros(burst_at + writing),
                writers: Writers::All,
            }),
            ..CrowdLoad::default()
        });
    }
    let mut phases = vec![
        phase("private chats before", WARM_UP, burst_at),
        phase("private chats after", after.start, after.end),
        phase("burst", burst_at, burst_at + BURST),
    ];
    let seconds = (burst_at.as_secs()..after.start.as_secs()).map(Duration::from_secs);
    phases.extend(seconds.map(|from| phase("private chats during the burst", from, from + SECOND)));
    let name = format!("burst of {} customers", options.customers);
    Ok(Workload { name, crowds, phases, costed: PHASE_BURST, drain: DRAIN })
}

/// Waits until each customer's case has been assigned, also while the private chats are measured again: a slow run reports
/// it as a problem. Customers without a conversation write.
async fn burst(options: &Options, chat: &Chat, desk: &Desk, new: &[Customer], stage: &Stage<'_>) -> Result<Burst> {
    let burst_at = options.burst_at();
    stage.reach(burst_at.saturating_sub(SECOND)).await;
    let since = desk::now(chat).await?;
    stage.reach(burst_at).await;
    let interval = BURST / options.customers;
    let writing = try_join_all((0_u32..).zip(new).map(async |(number, customer)| {
        stage.reach(burst_at + interval * number).await;
        let id = desk.contact(customer).await?;
        desk.write(customer, id).await
    }));
    let watching = async {
        loop {
            let assigned = desk::assigned(chat, desk.business_id, &since).await?;
            let lasted = stage.elapsed().saturating_sub(burst_at);
            if assigned >= options.customers as usize || lasted >= options.settling().max(ASSIGNED_DEADLINE) {
                return anyhow::Ok((assigned, lasted));
            }
            sleep(PAUSE).await;
        }
    };
    let (_, (assigned, lasted)) = tokio::try_join!(writing, watching)?;
    // The last answers and resolves belong to the burst too.
    stage.reach(options.after().start).await;
    let ledger = Ledger::read(chat, desk.business_id, &since).await?;
    Ok(Burst { assigned, lasted, ledger, forgotten: desk.until_resolved(chat).await? })
}

fn report(options: &Options, workload: &Workload, mut measured: Measured<Burst>, outcome: &mut Outcome) {
    let Burst { assigned, lasted, ledger, forgotten } = measured.meanwhile;
    let customers = options.customers as usize;
    let part = |phases| run::part(&measured.run, workload, &measured.done, PRIVATE, phases);
    let seconds = usize::try_from(lasted.as_secs()).unwrap_or(usize::MAX).saturating_add(1);
    let end = PHASE_SECONDS.saturating_add(seconds).min(workload.phases.len());
    let (before, during, after) =
        (part(PHASE_BEFORE..PHASE_AFTER), part(PHASE_SECONDS..end), part(PHASE_AFTER..PHASE_BURST));
    let problems = run::those([
        (assigned < customers, format!("{} of {customers} customers got no agent", customers - assigned)),
        (
            lasted > options.settling(),
            format!("the last case was assigned after {lasted:.1?}, while the private chats were measured again"),
        ),
        (forgotten > 0, format!("{forgotten} cases were never resolved")),
        (
            ledger.open > 0,
            format!("{} cases were not resolved when the private chats were measured alone", ledger.open),
        ),
    ]);
    measured.problems.extend(problems);
    for (what, alone, beside) in [
        ("accept p99", before.accept.p99_ms, during.accept.p99_ms),
        ("delivery p99", before.deliver.p99_ms, during.deliver.p99_ms),
    ] {
        let ratio = beside / alone.max(f64::MIN_POSITIVE);
        let meaning = "What the burst made of it.";
        figure(&mut measured.run, &format!("{what} of private chats / before"), ratio, "×", meaning);
        outcome.aim(
            &format!("{what} of private chats during the burst against before"),
            &format!("≤ {SLOWDOWN_MAX} ×"),
            format!("{ratio:.2} × ({beside:.1} ms, {alone:.1} ms before)"),
            ratio <= SLOWDOWN_MAX,
        );
    }
    let figures = [
        ("customers that got an agent", number(assigned as u64), "", "Of those that wrote."),
        ("burst lasted", lasted.as_secs_f64(), "s", "From the first message until the last customer had an agent."),
        (
            "assignments per second",
            ledger.per_second(),
            "/s",
            "Of the business, from the first to the last. Agents with five cases each, who answer after the time in the settings, \
             take no more than that allows.",
        ),
        (
            "wait for an agent p50",
            ledger.waited_p50_ms,
            "ms",
            "From when the message was accepted, or the conversation made, until an agent was assigned: half of the customers.",
        ),
        ("wait for an agent p99", ledger.waited_p99_ms, "ms", "The same, 99 of 100."),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    if let Some(crowd) = measured.done.crowds.get(CUSTOMERS) {
        let accept_ms = crowd.phases[PHASE_BURST].accept.percentile_ms(99.0);
        let meaning = "From when a message of a customer was due until it was accepted, 99 of 100.";
        figure(&mut measured.run, "accept p99 of customers", accept_ms, "ms", meaning);
    }
    outcome.add_step(before);
    outcome.add_step(during);
    outcome.add_step(after);
    outcome.add(measured);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_intervals_follow_each_other_and_the_burst_has_time_to_be_answered() {
        let options =
            Options { customers: 2000, agents: 50, answer_ms: 1000, new: false, rate: 200, pairs: 100, seconds: 20 };
        assert_eq!(options.burst_at(), Duration::from_secs(23));
        assert_eq!(options.settling(), Duration::from_secs(45));
        assert_eq!(options.after(), Duration::from_secs(68)..Duration::from_secs(88));
        let slow = Options { answer_ms: 10_000, ..options };
        assert_eq!(slow.settling(), Duration::from_secs(165), "agents answer 25 customers a second at most");
    }
}
