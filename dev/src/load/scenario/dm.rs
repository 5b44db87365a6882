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
        comparison::{Comparable, with_peers},
        outcome::Outcome,
        peer::Peer,
        run::{self, LATENESS_MAX_MS, Measured, Tools},
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
/// How long after the last show the database may lack messages.
const STORED_AFTER_MAX: Duration = Duration::from_secs(2);
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
#[derive(Debug)]
pub struct Finding {
    name: &'static str,
    run: Option<Run>,
    /// Not the subject was the limit of its highest rate, but who loaded it.
    is_least: bool,
}

/// Measures this backend, then each peer, one after the other.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    super::ensure_rate(plan.rate, plan.conversations * plan.conversation_size)?;
    let mut outcome = Outcome::begin(plan.scenario, settings(plan))?;
    let options = ChatOptions { gateways: plan.gateways, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(options).await?;
    outcome.floors(floors);
    let ours = plan.measure(chat, &setting.tools, &mut outcome).await?;
    if !plan.is_search {
        outcome.accept_aim();
    }
    with_peers(plan, &plan.peers, &ours, setting, &mut outcome).await?;
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

impl Comparable for Plan {
    type Finding = Finding;

    async fn measure<S: Subject>(&self, subject: S, tools: &Tools, outcome: &mut Outcome) -> Result<Finding> {
        let name = subject.name();
        terminal::heading(&format!("{} of {name}", self.scenario));
        outcome.versions(subject.versions().await?);
        let seats = subject.seats(self.conversations, self.conversation_size).await?;
        let finding = if self.is_search {
            search(&subject, self, &seats, tools, outcome).await?
        } else {
            let mut measured = run::run(&subject, &at(self, seats, self.rate, self.length, None), tools).await?;
            measured.problems.extend(problems(&measured));
            let run = Some(measured.run.clone());
            outcome.add(measured);
            Finding { name, run, is_least: false }
        };
        subject.stop().await?;
        Ok(finding)
    }

    fn compare(&self, ours: &Finding, theirs: &Finding, outcome: &mut Outcome) {
        let (Some(our), Some(their)) = (&ours.run, &theirs.run) else { return };
        let peer = theirs.name;
        if self.is_search {
            let (our, their) = (our.accepted_per_second, their.accepted_per_second);
            outcome.compare("highest rate with delivery p99 ≤ 100 ms, messages/s", peer, our, their);
            let ratio = our / their.max(1.0);
            let said = format!("{}{ratio:.2} ×", if ours.is_least { "at least " } else { "" });
            outcome.aim(&format!("highest rate against {peer}"), "≥ 5 ×", said, ratio >= 5.0);
            if theirs.is_least {
                outcome
                    .problem(format!("{peer}: its highest rate is not known, since the load generator was the limit"));
            }
        } else {
            outcome.compare("accept p50, ms", peer, our.accept.p50_ms, their.accept.p50_ms);
            outcome.compare("accept p99, ms", peer, our.accept.p99_ms, their.accept.p99_ms);
            outcome.compare("delivery p50, ms", peer, our.deliver.p50_ms, their.deliver.p50_ms);
            outcome.compare("delivery p99, ms", peer, our.deliver.p99_ms, their.deliver.p99_ms);
        }
        let at = rates(self.is_search, our, their);
        let (our, their) = (our.cpu_seconds_per_1000, their.cpu_seconds_per_1000);
        outcome.compare(&format!("processor seconds for 1,000 messages, {at}"), peer, our, their);
        let ratio = our / their.max(f64::MIN_POSITIVE);
        let what = format!("processor time for a message against {peer}, {at}");
        outcome.aim(&what, "≤ 0.25 ×", format!("{ratio:.2} ×"), ratio <= 0.25);
    }
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
) -> Result<Finding> {
    let mut search = Search::from(plan.rate);
    let mut found = Finding { name: subject.name(), run: None, is_least: false };
    let mut lowest_failed = f64::INFINITY;
    loop {
        let (rate, length, prefix) = match search.step() {
            Step::Try(rate) if rate > super::rate_max(seats.len()) => {
                (lowest_failed, found.is_least) = (rate, true);
                search.report(false);
                continue;
            }
            Step::Try(rate) => (rate, STEP, "step "),
            Step::Confirm(rate) => (rate, plan.length, if found.is_least { "at least " } else { "highest " }),
            Step::End(Some(_)) => return Ok(found),
            Step::End(None) => {
                outcome.problem(format!("{}: no rate was served well", subject.name()));
                return Ok(Finding { run: None, ..found });
            }
        };
        let workload = at(plan, seats.to_vec(), rate, length, Some(prefix));
        let measured = run::run(subject, &workload, tools).await?;
        let failure = failure(&measured);
        let said = failure.as_ref().map_or("served well", |failure| failure.said.as_str());
        terminal::progress(&format!("{}: {said}", workload.name));
        search.report(failure.is_none());
        if let Some(failure) = failure.filter(|_| rate < lowest_failed) {
            (lowest_failed, found.is_least) = (rate, failure.is_of_load);
        }
        found.run = Some(measured.run.clone());
        outcome.add_step(measured.run);
    }
}

/// Why a rate doesn't count as served well.
struct Failure {
    said: String,
    /// It was the load generator that could not keep up; the subject might have.
    is_of_load: bool,
}

/// Why a rate is not served well; none if it is.
fn failure(measured: &Measured<()>) -> Option<Failure> {
    let (run, lateness_ms) = (&measured.run, measured.lateness_ms());
    let is_late = lateness_ms > LATENESS_MAX_MS;
    let deliver_ms = run.deliver.p99_ms - if is_late { lateness_ms } else { 0.0 };
    let share = run.accepted_per_second / run.offered_per_second.max(1.0);
    let errors: u64 = run.errors.values().sum();
    let kinds = run.errors.keys().cloned().collect::<Vec<_>>().join(", ");
    let all = [
        (!measured.failures.is_empty(), measured.failures.join("; "), false),
        (errors > 0, format!("{errors} errors: {kinds}"), false),
        (is_lagging(measured), lag(measured), false),
        (deliver_ms > DELIVER_MAX_MS, format!("delivery p99 is {:.1} ms", run.deliver.p99_ms), false),
        (!measured.problems.is_empty(), measured.problems.join("; "), is_late),
        (share < ACCEPTED_MIN, format!("only {:.1} % were accepted in time", share * 100.0), false),
    ];
    let failed = all.into_iter().find(|(is_so, ..)| *is_so);
    failed.map(|(_, said, is_of_load)| Failure { said, is_of_load })
}

/// Why what messages cost at a fixed rate can't be compared.
fn problems(measured: &Measured<()>) -> Vec<String> {
    let rejected = measured.done.tally().rejected;
    run::those([(rejected > 0, format!("{rejected} sends were refused")), (is_lagging(measured), lag(measured))])
}

/// A part of the work was left for after the load, and is in no figure of it.
fn is_lagging<R>(measured: &Measured<R>) -> bool {
    measured.stored_after > STORED_AFTER_MAX
}

fn lag<R>(measured: &Measured<R>) -> String {
    format!(
        "the database had everything only {:.1} s after the last show, and {} s is what may be",
        measured.stored_after.as_secs_f64(),
        STORED_AFTER_MAX.as_secs()
    )
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
    use chat_load::plan::Done;

    use super::*;

    /// A load whose shows took so long at the 99th percentile, and whose messages were written so late.
    fn measured(deliver_ms: f64, late_ms: u64, stored_after: Duration) -> Measured<()> {
        let mut done = Done::default();
        done.lateness.record(late_ms * 1000);
        let problems = if late_ms > 25 { vec!["late".to_owned()] } else { vec![] };
        let mut run = Run { offered_per_second: 100.0, accepted_per_second: 100.0, ..Run::default() };
        run.deliver.p99_ms = deliver_ms;
        Measured { run, done, problems, failures: vec![], connect_seconds: 0.0, stored_after, meanwhile: () }
    }

    #[test]
    fn a_rate_fails_by_the_load_generator_only_if_nothing_else_is_wrong() {
        let is_of_load = |deliver_ms, late_ms| {
            failure(&measured(deliver_ms, late_ms, Duration::ZERO)).map(|failure| failure.is_of_load)
        };
        assert_eq!(is_of_load(50.0, 1), None);
        assert_eq!(is_of_load(110.0, 1), Some(false));
        assert_eq!(is_of_load(110.0, 40), Some(true));
        assert_eq!(is_of_load(300.0, 40), Some(false));
    }

    #[test]
    fn work_left_for_after_the_load_makes_a_rate_fail_and_its_cost_useless() {
        let lagging = measured(5.0, 1, Duration::from_secs(3));
        assert!(failure(&lagging).is_some_and(|failure| failure.said.contains("3.0 s after the last show")));
        assert_eq!(problems(&lagging).len(), 1);
        assert!(problems(&measured(5.0, 1, Duration::from_secs(1))).is_empty());
    }

    #[test]
    fn costs_are_labelled_with_the_rates_that_they_were_measured_at() {
        let run = |offered_per_second| Run { offered_per_second, ..Run::default() };
        assert_eq!(rates(false, &run(1000.0), &run(1000.2)), "at 1000/s");
        let searched = rates(true, &run(5000.0), &run(900.0));
        assert_eq!(searched, "each at its highest rate, 5000/s and the other 900/s");
    }
}
