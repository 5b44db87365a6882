//! `storm`: many clients lose their connections at once, miss messages, and come back at once, while others write to
//! each other and should feel nothing of it.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::{
    plan::{Absence, CrowdDone, Sends, Writers},
    report::Run,
};
use serde_json::json;

use crate::load::{
    chat::{Chat, ChatOptions},
    gateway_sql::{GatewaySql, Statements},
    outcome::Outcome,
    run::{self, Measured, figure, number},
    setting::Setting,
    subject::Subject,
    workload::{CrowdLoad, Workload, micros, phase},
};

const WARM_UP: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_secs(12);
/// Until they try to come back; meanwhile they are written to.
const AWAY: Duration = Duration::from_secs(5);
/// From when the first come back; longer for more than so many.
const STORM: Duration = Duration::from_secs(15);
const STORM_CLIENTS: usize = 10_000;
const DRAIN: Duration = Duration::from_mins(1);
/// Messages that each of them misses.
const MISSED: usize = 2;
/// One who stays and writes, and seven who go.
const GROUP: usize = 8;
const PAIR: usize = 2;
/// Pairs that write to each other all the time.
const LIVE_PAIRS: usize = 100;
/// What the storm may make of the others' waits.
const SLOWDOWN_MAX: f64 = 3.0;

/// The crowds and the phases, by their place.
const LIVE: usize = 0;
const STORMING: usize = 1;
const PHASE_QUIET: usize = 0;
const PHASE_STORM: usize = 1;
/// From the cut on a phase for each second, since it is known only afterwards when the last one is back.
const PHASE_SECONDS: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

/// What was chosen.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many go and come back.
    pub clients: usize,
    /// Messages a second of those who stay.
    pub rate: f64,
}

impl Plan {
    /// From when the first come back.
    fn storm(&self) -> Duration {
        STORM * u32::try_from(self.clients.div_ceil(STORM_CLIENTS)).unwrap_or(u32::MAX)
    }
}

/// Of all clients: for seven who go one who stays, and besides them those who write to each other.
pub fn connections(clients: usize) -> usize {
    clients.div_ceil(GROUP - 1) * GROUP + LIVE_PAIRS * PAIR
}

/// Measures.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("storm", settings(plan))?;
    let (chat, floors) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let workload = workload(plan, &chat).await?;
    let measured = run::run_with(&chat, &workload, &setting.tools, async |stage| {
        stage.reach(WARM_UP + QUIET + AWAY).await;
        let counting = GatewaySql::begin(&chat).await?;
        stage.reach(WARM_UP + QUIET + AWAY + plan.storm()).await;
        counting.end(&chat).await
    })
    .await?;
    chat.stop().await?;
    report(&workload, measured, &mut outcome);
    outcome.finish()
}

fn settings(plan: &Plan) -> BTreeMap<String, serde_json::Value> {
    BTreeMap::from([
        ("clients that come back".to_owned(), json!(plan.clients)),
        ("messages that each misses".to_owned(), json!(MISSED)),
        ("seconds away".to_owned(), json!(AWAY.as_secs())),
        ("messages per second of the others".to_owned(), json!(plan.rate)),
    ])
}

async fn workload(plan: &Plan, chat: &Chat) -> Result<Workload> {
    let groups = plan.clients.div_ceil(GROUP - 1);
    let cut_at = WARM_UP + QUIET;
    let back_at = cut_at + AWAY;
    let end = back_at + plan.storm();
    let live = CrowdLoad {
        seats: chat.seats(LIVE_PAIRS, PAIR).await?,
        conversation_size: PAIR,
        sends: Some(Sends { per_second: plan.rate, from_us: 0, until_us: micros(end), writers: Writers::All }),
        ..CrowdLoad::default()
    };
    // Written between the cut and the return, with room on both sides.
    let margin = AWAY / 10;
    let writing = margin * 8;
    let storming = CrowdLoad {
        seats: chat.seats(groups, GROUP).await?,
        conversation_size: GROUP,
        sends: Some(Sends {
            per_second: number((groups * MISSED) as u64) / writing.as_secs_f64(),
            from_us: micros(cut_at + margin),
            until_us: micros(cut_at + margin + writing),
            writers: Writers::First,
        }),
        absence: Some(Absence::Once { at_us: micros(cut_at), away_us: micros(AWAY) }),
        ..CrowdLoad::default()
    };
    let mut phases = vec![phase("quiet", WARM_UP, cut_at), phase("return", back_at, end)];
    let seconds = (cut_at.as_secs()..end.as_secs()).map(Duration::from_secs);
    phases.extend(seconds.map(|from| phase("others in the storm", from, from + SECOND)));
    Ok(Workload {
        name: format!("storm of {}", plan.clients),
        crowds: vec![live, storming],
        phases,
        costed: PHASE_STORM,
        drain: DRAIN,
    })
}

fn report(workload: &Workload, mut measured: Measured<Statements>, outcome: &mut Outcome) {
    let quiet = run::part(&measured.run, workload, &measured.done, LIVE, PHASE_QUIET..PHASE_STORM);
    let crowd = &measured.done.crowds[STORMING];
    let (storm_end, end) = (PHASE_SECONDS + storm_seconds(crowd), workload.phases.len());
    if storm_end > end {
        measured.problems.push("the last clients came back when the others wrote no more".to_owned());
    }
    let live = run::part(&measured.run, workload, &measured.done, LIVE, PHASE_SECONDS..storm_end.min(end));
    let slowdown = live.deliver.p99_ms / quiet.deliver.p99_ms.max(f64::MIN_POSITIVE);
    let clients = workload.crowds[STORMING].seats.len() / GROUP * (GROUP - 1);
    let (tally, statements) = (&crowd.tally, measured.meanwhile);
    outcome.aim(
        "clients back and caught up",
        "all",
        format!(
            "{} of {clients} back, {} of {} missed messages shown",
            tally.returned, tally.shown, tally.expected_shows
        ),
        tally.absent == 0
            && tally.not_resumed == 0
            && tally.shown == tally.expected_shows
            && tally.returned >= clients as u64,
    );
    outcome.aim(
        "SQL statements of gateways for the returns",
        "0",
        format!("{:.0} counted by gateways, {} logged by Postgres", statements.counted, statements.logged),
        statements.counted < 1.0 && statements.logged == 0,
    );
    outcome.aim(
        "delivery p99 of the others during the storm against before",
        "≤ 3 ×",
        format!("{slowdown:.2} × ({:.1} ms, {:.1} ms before)", live.deliver.p99_ms, quiet.deliver.p99_ms),
        slowdown <= SLOWDOWN_MAX,
    );
    let figures = storm_figures(crowd, &live, slowdown);
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    outcome.add_step(quiet);
    outcome.add(measured);
}

/// Whole seconds from the cut until the last is back.
fn storm_seconds(crowd: &CrowdDone) -> usize {
    let last = AWAY + Duration::from_secs_f64(crowd.returns.max_ms() / 1000.0);
    usize::try_from(last.as_secs() + 1).unwrap_or(usize::MAX)
}

type Told = (&'static str, f64, &'static str, &'static str);

fn storm_figures(crowd: &CrowdDone, live: &Run, slowdown: f64) -> [Told; 8] {
    let (returns, catch_up, tally) = (&crowd.returns, &crowd.catch_up, &crowd.tally);
    [
        ("came back", number(tally.returned), "", "Clients whose connections were cut and that connected again."),
        (
            "came back without resuming",
            number(tally.not_resumed),
            "",
            "Of those, to how many the server couldn't say all that they missed.",
        ),
        (
            "return p50",
            returns.percentile_ms(50.0),
            "ms",
            "From the first try until the connection was open, half of them. Clients wait a random time up to 250 ms first, and a gateway lets in 1,000 a second and asks the others to come later.",
        ),
        ("return, the last", returns.max_ms(), "ms", "From the first try until the last one was back."),
        (
            "missed message shown p50",
            catch_up.percentile_ms(50.0),
            "ms",
            "From the beginning of the storm until a message that was missed was shown, half of them.",
        ),
        (
            "missed message shown, the last",
            catch_up.max_ms(),
            "ms",
            "From the beginning of the storm until the last message that was missed was shown.",
        ),
        (
            "delivery p99 of the others",
            live.deliver.p99_ms,
            "ms",
            "Messages between those who stayed, from the cut until the last of the others was back.",
        ),
        ("delivery p99 of the others / before", slowdown, "×", "What the storm made of it."),
    ]
}
