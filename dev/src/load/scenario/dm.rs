//! `dm` and `group`: users write to each other in conversations of two or of eight, at a fixed rate or at the highest
//! that is still served well.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::{plan::Seat, report::Run};
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::ChatOptions,
        outcome::Outcome,
        peer::Peer,
        run::{self, Measured, Tools},
        search::{Search, Step},
        setting::Setting,
        subject::Subject,
        workload::{Pace, Workload},
    },
    terminal,
};

const WARM_UP: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(30);
/// Of a step of a search.
const STEP: Duration = Duration::from_secs(7);
/// How long 99 of 100 deliveries may take at a rate that counts as served well.
const DELIVER_MAX_MS: f64 = 100.0;
/// How many of the sends must have been accepted in their time.
const ACCEPTED_MIN: f64 = 0.98;

/// What was chosen.
#[derive(Debug)]
pub struct Plan {
    /// `dm` or `group`.
    pub scenario: &'static str,
    /// Users in a conversation.
    pub conversation_size: usize,
    /// How many conversations.
    pub conversations: usize,
    /// Messages a second of all users together; where a search begins.
    pub rate: f64,
    /// Look for the highest rate.
    pub is_search: bool,
    /// How long the result is measured.
    pub length: Duration,
    /// How many gateways.
    pub gateways: usize,
    /// Who else gets the same load.
    pub peers: Vec<Peer>,
}

/// What a subject came to.
struct Finding {
    name: &'static str,
    run: Option<Run>,
}

/// Measures this backend, then each peer, one after the other.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin(plan.scenario, settings(plan))?;
    let options = ChatOptions { gateways: plan.gateways, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(options).await?;
    outcome.floors(floors);
    let ours = measure(chat, plan, &setting.tools, &mut outcome).await?;
    if !plan.is_search {
        outcome.accept_aim();
    }
    for peer in &plan.peers {
        let theirs = match peer {
            Peer::SocketIo => measure(setting.socket_io().await?, plan, &setting.tools, &mut outcome).await?,
            Peer::Ejabberd => measure(setting.ejabberd().await?, plan, &setting.tools, &mut outcome).await?,
        };
        compare(plan, &ours, &theirs, &mut outcome);
    }
    outcome.finish()
}

fn settings(plan: &Plan) -> BTreeMap<String, Value> {
    let rate = if plan.is_search { json!("the highest") } else { json!(plan.rate) };
    BTreeMap::from([
        ("messages per second".to_owned(), rate),
        ("seconds".to_owned(), json!(plan.length.as_secs())),
        ("conversations".to_owned(), json!(plan.conversations)),
        ("users in a conversation".to_owned(), json!(plan.conversation_size)),
        ("gateways".to_owned(), json!(plan.gateways)),
    ])
}

async fn measure<S: Subject>(subject: S, plan: &Plan, tools: &Tools, outcome: &mut Outcome) -> Result<Finding> {
    let name = subject.name();
    terminal::heading(&format!("{} of {name}", plan.scenario));
    outcome.versions(subject.versions().await?);
    let seats = subject.seats(plan.conversations, plan.conversation_size).await?;
    let run = if plan.is_search {
        search(&subject, plan, &seats, tools, outcome).await?
    } else {
        let measured = run::run(&subject, &at(plan, seats, plan.rate, plan.length, None), tools).await?;
        let run = measured.run.clone();
        outcome.add(measured);
        Some(run)
    };
    subject.stop().await?;
    Ok(Finding { name, run })
}

/// The load at a rate.
fn at(plan: &Plan, seats: Vec<Seat>, rate: f64, length: Duration, prefix: Option<&str>) -> Workload {
    let name = format!("{}{rate:.0}/s", prefix.unwrap_or_default());
    let pace = Pace { warm_up: WARM_UP, length, drain: DRAIN };
    Workload::steady(name, seats, plan.conversation_size, rate, pace)
}

/// The highest rate that is served well, on one set of servers.
async fn search<S: Subject>(
    subject: &S,
    plan: &Plan,
    seats: &[Seat],
    tools: &Tools,
    outcome: &mut Outcome,
) -> Result<Option<Run>> {
    let mut search = Search::from(plan.rate);
    let mut last = None;
    loop {
        let (rate, length, prefix) = match search.step() {
            Step::Try(rate) => (rate, STEP, "step "),
            Step::Confirm(rate) => (rate, plan.length, "highest "),
            Step::End(Some(_)) => return Ok(last),
            Step::End(None) => {
                outcome.problem(format!("{}: no rate was served well", subject.name()));
                return Ok(None);
            }
        };
        let workload = at(plan, seats.to_vec(), rate, length, Some(prefix));
        let measured = run::run(subject, &workload, tools).await?;
        let verdict = failure(&measured);
        let said = verdict.as_deref().unwrap_or("served well");
        terminal::progress(&format!("{}: {said}", workload.name));
        search.report(verdict.is_none());
        last = Some(measured.run.clone());
        outcome.add_step(measured.run);
    }
}

/// Why a rate is not served well; none if it is.
fn failure(measured: &Measured<()>) -> Option<String> {
    let run = &measured.run;
    let share = run.accepted_per_second / run.offered_per_second.max(1.0);
    let rejected: u64 = run.errors.values().sum();
    let all = [
        (!measured.problems.is_empty(), measured.problems.join("; ")),
        (rejected > 0, format!("{rejected} errors: {}", run.errors.keys().cloned().collect::<Vec<_>>().join(", "))),
        (share < ACCEPTED_MIN, format!("only {:.1} % were accepted in time", share * 100.0)),
        (run.deliver.p99_ms > DELIVER_MAX_MS, format!("delivery p99 is {:.1} ms", run.deliver.p99_ms)),
    ];
    all.into_iter().find(|(is_so, _)| *is_so).map(|(_, said)| said)
}

fn compare(plan: &Plan, ours: &Finding, theirs: &Finding, outcome: &mut Outcome) {
    let (Some(our), Some(their)) = (&ours.run, &theirs.run) else { return };
    let peer = theirs.name;
    if plan.is_search {
        let (our, their) = (our.accepted_per_second, their.accepted_per_second);
        outcome.compare("highest rate with delivery p99 ≤ 100 ms, messages/s", peer, our, their);
        let ratio = our / their.max(1.0);
        outcome.aim(&format!("highest rate against {peer}"), "≥ 5 ×", format!("{ratio:.2} ×"), ratio >= 5.0);
    } else {
        outcome.compare("accept p50, ms", peer, our.accept.p50_ms, their.accept.p50_ms);
        outcome.compare("accept p99, ms", peer, our.accept.p99_ms, their.accept.p99_ms);
        outcome.compare("delivery p50, ms", peer, our.deliver.p50_ms, their.deliver.p50_ms);
        outcome.compare("delivery p99, ms", peer, our.deliver.p99_ms, their.deliver.p99_ms);
    }
    let at = rates(plan.is_search, our, their);
    let (our, their) = (our.cpu_seconds_per_1000, their.cpu_seconds_per_1000);
    outcome.compare(&format!("processor seconds for 1,000 messages, {at}"), peer, our, their);
    let ratio = our / their.max(f64::MIN_POSITIVE);
    let what = format!("processor time for a message against {peer}, {at}");
    outcome.aim(&what, "≤ 0.25 ×", format!("{ratio:.2} ×"), ratio <= 0.25);
}

/// At which rates both were measured: what a message costs depends on how many come.
fn rates(is_search: bool, our: &Run, their: &Run) -> String {
    if is_search {
        format!(
            "each at its highest rate, {:.0}/s and the other {:.0}/s",
            our.offered_per_second, their.offered_per_second
        )
    } else {
        format!("at {:.0}/s", our.offered_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_labelled_with_the_rates_that_they_were_measured_at() {
        let run = |offered_per_second| Run { offered_per_second, ..Run::default() };
        assert_eq!(rates(false, &run(1000.0), &run(1000.2)), "at 1000/s");
        let searched = rates(true, &run(5000.0), &run(900.0));
        assert_eq!(searched, "each at its highest rate, 5000/s and the other 900/s");
    }
}
