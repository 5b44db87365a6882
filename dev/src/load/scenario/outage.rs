//! `outage`: Postgres is gone for a while, and nobody who writes notices.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Sends, Writers};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        outcome::Outcome,
        run::{self, Measured, Stage, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros, phase},
    },
    terminal,
};

const WARM_UP: Duration = Duration::from_secs(3);
const NORMAL: Duration = Duration::from_secs(12);
/// For Postgres to be asked what it did until then.
const GAP: Duration = Duration::from_secs(1);
/// With Postgres back, so that the backlog is drained beside the live load.
const AFTER: Duration = Duration::from_secs(8);
const DRAIN: Duration = Duration::from_secs(30);
/// How long the backlog may take at the most until it is given up.
const BACKLOG_DEADLINE: Duration = Duration::from_mins(2);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);
/// As many as arrive in such a time count as no backlog.
const CAUGHT_UP: Duration = Duration::from_millis(250);
const PAIR: usize = 2;
/// Of what comes while Postgres is gone, so much must wait when it is back; else nothing was gone.
const BACKLOG_MIN: f64 = 0.1;
/// What the outage may make of the wait until a message is accepted.
const SLOWDOWN_MAX: f64 = 1.5;
/// How much faster than new messages come the backlog is to be stored.
const DRAIN_MIN: f64 = 5.0;

/// The phases, by their place.
const PHASE_NORMAL: usize = 0;
const PHASE_OUTAGE: usize = 1;

/// What was chosen.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Messages a second of all together.
    pub rate: f64,
    /// How many pairs of users.
    pub pairs: usize,
    /// How long Postgres is gone.
    pub outage: Duration,
}

/// How the backlog went.
#[derive(Debug, Clone, Copy)]
struct Backlog {
    /// Messages that waited when Postgres answered again.
    waiting: f64,
    /// Stored until nothing waited.
    stored: f64,
    /// How long that took.
    seconds: f64,
}

/// Measures.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("outage", settings(plan))?;
    let options = ChatOptions { gateways: 2, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(options).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let workload = workload(plan, &chat).await?;
    let measured =
        run::run_with(&chat, &workload, &setting.tools, async |stage| break_postgres(plan, &chat, stage).await).await?;
    chat.stop().await?;
    report(plan, &workload, measured, &mut outcome);
    outcome.finish()
}

fn settings(plan: &Plan) -> BTreeMap<String, serde_json::Value> {
    BTreeMap::from([
        ("messages per second".to_owned(), json!(plan.rate)),
        ("pairs".to_owned(), json!(plan.pairs)),
        ("seconds without Postgres".to_owned(), json!(plan.outage.as_secs())),
    ])
}

async fn workload(plan: &Plan, chat: &Chat) -> Result<Workload> {
    let gone_at = WARM_UP + NORMAL + GAP;
    let back_at = gone_at + plan.outage;
    let end = back_at + AFTER;
    let crowd = CrowdLoad {
        seats: chat.seats(plan.pairs, PAIR).await?,
        conversation_size: PAIR,
        sends: Some(Sends { per_second: plan.rate, from_us: 0, until_us: micros(end), writers: Writers::All }),
        ..CrowdLoad::default()
    };
    Ok(Workload {
        name: format!("{:.0}/s", plan.rate),
        crowds: vec![crowd],
        phases: vec![
            phase("before the outage", WARM_UP, WARM_UP + NORMAL),
            phase("without Postgres", gone_at, back_at),
        ],
        costed: PHASE_NORMAL,
        drain: DRAIN,
    })
}

/// Stops Postgres, starts it again, and looks at how its backlog is stored.
async fn break_postgres(plan: &Plan, chat: &Chat, stage: &Stage<'_>) -> Result<Backlog> {
    // Nothing has been sent yet.
    let before = number(chat.stored().await?);
    stage.reach(WARM_UP + NORMAL + GAP).await;
    // What its clients hold on to is not waited for.
    chat.servers().postgres.stop().await?;
    terminal::progress("Postgres is stopped");
    stage.reach(WARM_UP + NORMAL + GAP + plan.outage).await;
    chat.servers().postgres.start().await?;
    let began = Instant::now();
    let stored_first = number(chat.stored().await?);
    terminal::progress("Postgres is back");
    let waiting = before + accepted(plan, stage) - stored_first;
    let mut stored = stored_first;
    while began.elapsed() < BACKLOG_DEADLINE {
        stored = number(chat.stored().await?);
        if before + accepted(plan, stage) - stored <= plan.rate * CAUGHT_UP.as_secs_f64() {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(Backlog { waiting, stored: stored - stored_first, seconds: began.elapsed().as_secs_f64() })
}

/// Messages that clients were told to be accepted, so far.
fn accepted(plan: &Plan, stage: &Stage<'_>) -> f64 {
    let seconds: Vec<u64> = stage.seconds.all().iter().map(|second| second.accepted).collect();
    let sending = WARM_UP + NORMAL + GAP + plan.outage + AFTER;
    accepted_until(stage.elapsed().min(sending), &seconds, plan.rate)
}

/// By what clients have said, which is up to a second old: since then as many as are due. Not all processes may have
/// said the last second.
fn accepted_until(elapsed: Duration, seconds: &[u64], rate: f64) -> f64 {
    let whole = seconds.split_last().map_or(&[][..], |(_, whole)| whole);
    let since = elapsed.as_secs_f64() - number(whole.len() as u64);
    number(whole.iter().sum()) + rate * since.max(0.0)
}

fn report(plan: &Plan, workload: &Workload, mut measured: Measured<Backlog>, outcome: &mut Outcome) {
    let normal = run::part(&measured.run, workload, &measured.done, 0, PHASE_NORMAL..PHASE_OUTAGE);
    let outage = run::part(&measured.run, workload, &measured.done, 0, PHASE_OUTAGE..PHASE_OUTAGE + 1);
    let slowdown = outage.accept.p99_ms / normal.accept.p99_ms.max(f64::MIN_POSITIVE);
    let tally = measured.done.tally();
    let failed = tally.rejected + tally.unanswered;
    let Backlog { waiting, stored, seconds } = measured.meanwhile;
    let pace = stored / seconds.max(0.001) / plan.rate;
    let missed = plan.rate * plan.outage.as_secs_f64();
    if waiting < missed * BACKLOG_MIN {
        let problem = format!("{waiting:.0} messages waited for Postgres, of {missed:.0}: it was hardly gone");
        measured.problems.push(problem);
    }
    outcome.aim("failed sends", "0", format!("{failed} of {}", tally.sent), failed == 0);
    outcome.aim(
        "accept p99 without Postgres against before",
        "≤ 1.5 ×",
        format!("{slowdown:.2} × ({:.1} ms, {:.1} ms before)", outage.accept.p99_ms, normal.accept.p99_ms),
        slowdown <= SLOWDOWN_MAX,
    );
    outcome.aim(
        "backlog stored, against the rate of new messages",
        "≥ 5 ×",
        format!("{pace:.1} × ({stored:.0} in {seconds:.1} s)"),
        pace >= DRAIN_MIN,
    );
    let run = &mut measured.run;
    figure(run, "backlog", waiting, "messages", "Accepted and not yet in Postgres when it answered again.");
    let meaning = "From when Postgres answered again until it had everything, while new messages came.";
    figure(run, "backlog stored within", seconds, "s", meaning);
    let meaning = "Messages stored a second in that time, against new ones that came.";
    figure(run, "backlog stored / arrival rate", pace, "×", meaning);
    figure(run, "accept p99 without Postgres / before", slowdown, "×", "What the outage made of it.");
    outcome.add(measured);
    outcome.add_step(outage);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_have_not_said_yet_counts_as_accepted() {
        let at = |ms, seconds: &[u64]| accepted_until(Duration::from_millis(ms), seconds, 100.0);
        assert!((at(500, &[]) - 50.0).abs() < 1e-9);
        // Half of the processes have said the last second, and it is not counted.
        assert!((at(2010, &[90, 100, 50]) - 191.0).abs() < 1e-9);
        // Clients go on after the last message, until everything has come.
        assert!((at(2000, &[100, 100, 0, 0]) - 200.0).abs() < 1e-9);
    }
}
