//! `jitter`: clients whose connections are lost every few seconds, as in a train, while messages flow.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use chat_load::{
    plan::{Absence, CrowdDone, Phase, Seat, Sends, TargetKind, Writers},
    report::Run,
};
use serde_json::json;

use crate::{
    load::{
        chat::ChatOptions,
        comparison::{Comparable, with_peers},
        outcome::Outcome,
        peer::Peer,
        run::{self, Tools, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros},
    },
    terminal,
};

const WARM_UP: Duration = Duration::from_secs(3);
/// Online in the mean, and then away.
const ONLINE: Duration = Duration::from_secs(15);
const AWAY: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(40);
/// Users in a conversation.
const PAIR: usize = 2;

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many clients.
    pub clients: usize,
    /// Messages a second of all together.
    pub rate: f64,
    /// How long it goes on.
    pub length: Duration,
    /// Who else gets the same load.
    pub peers: Vec<Peer>,
}

/// Measures this backend, then each peer, one after the other.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("jitter", settings(plan))?;
    let (chat, floors) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await?;
    outcome.floors(floors);
    let ours = plan.measure(chat, &setting.tools, &mut outcome).await?;
    aims(&ours, &mut outcome);
    with_peers(plan, &plan.peers, &ours, setting, &mut outcome).await?;
    outcome.finish()
}

fn settings(plan: &Plan) -> BTreeMap<String, serde_json::Value> {
    BTreeMap::from([
        ("clients".to_owned(), json!(plan.clients)),
        ("messages per second".to_owned(), json!(plan.rate)),
        ("seconds".to_owned(), json!(plan.length.as_secs())),
        ("seconds online, in the mean".to_owned(), json!(ONLINE.as_secs())),
        ("seconds away, in the mean".to_owned(), json!(AWAY.as_secs())),
    ])
}

impl Comparable for Plan {
    type Finding = Finding;

    async fn measure<S: Subject>(&self, subject: S, tools: &Tools, outcome: &mut Outcome) -> Result<Finding> {
        let (name, target) = (subject.name(), subject.target());
        terminal::heading(&format!("jitter of {name}"));
        outcome.versions(subject.versions().await?);
        let workload = workload(self, subject.seats(self.clients / PAIR, PAIR).await?);
        let mut measured = run::run(&subject, &workload, tools).await?;
        subject.stop().await?;
        let finding = Finding::of(name, measured.done.crowds.first().context("there was nobody")?);
        finding.put_into(&mut measured.run);
        if target == TargetKind::Chat {
            outcome.add(measured);
        } else {
            outcome.add_compared(measured);
        }
        Ok(finding)
    }

    fn compare(&self, ours: &Finding, theirs: &Finding, outcome: &mut Outcome) {
        let peer = theirs.name;
        outcome.compare("accepted messages shown, %", peer, ours.shown_percent(), theirs.shown_percent());
        outcome.compare("return p50, ms", peer, ours.return_p50_ms, theirs.return_p50_ms);
        outcome.compare("return p99, ms", peer, ours.return_p99_ms, theirs.return_p99_ms);
        outcome.compare("repeats for 1,000 shows", peer, ours.repeats_per_1000(), theirs.repeats_per_1000());
    }
}

fn workload(plan: &Plan, seats: Vec<Seat>) -> Workload {
    let (from_us, until_us) = (micros(WARM_UP), micros(WARM_UP + plan.length));
    let sends = Sends { per_second: plan.rate, from_us: 0, until_us, writers: Writers::All };
    let absence = Absence::Often {
        online_us: micros(ONLINE),
        away_us: micros(AWAY),
        from_us: 0,
        until_us,
        says_goodbye: false,
        first_stays: false,
    };
    let (sends, absence) = (Some(sends), Some(absence));
    let crowd = CrowdLoad { seats, conversation_size: PAIR, sends, absence, ..CrowdLoad::default() };
    let phase = Phase { name: "jitter".to_owned(), from_us, until_us };
    let name = format!("{} clients, {:.0}/s", plan.clients, plan.rate);
    Workload { name, crowds: vec![crowd], phases: vec![phase], costed: 0, drain: DRAIN }
}

/// What losing connections came to at one subject.
#[derive(Debug)]
pub struct Finding {
    name: &'static str,
    expected_shows: u64,
    shown: u64,
    returned: u64,
    not_resumed: u64,
    /// Pushed again, whether clients could tell or not.
    repeats: u64,
    return_p50_ms: f64,
    return_p99_ms: f64,
}

impl Finding {
    fn of(name: &'static str, CrowdDone { tally, returns, .. }: &CrowdDone) -> Self {
        Self {
            name,
            expected_shows: tally.expected_shows,
            shown: tally.shown,
            returned: tally.returned,
            not_resumed: tally.not_resumed,
            repeats: tally.repeated_raw + tally.repeated,
            return_p50_ms: returns.percentile_ms(50.0),
            return_p99_ms: returns.percentile_ms(99.0),
        }
    }

    fn shown_percent(&self) -> f64 {
        100.0 * number(self.shown) / number(self.expected_shows.max(1))
    }

    fn repeats_per_1000(&self) -> f64 {
        1000.0 * number(self.repeats) / number(self.shown.max(1))
    }

    fn put_into(&self, run: &mut Run) {
        let figures = [
            (
                "delivered",
                self.shown_percent(),
                "%",
                "Accepted messages that the other side was shown, in spite of everything.",
            ),
            ("returns", number(self.returned), "", "How often a client came back after a lost connection."),
            (
                "returns without resuming",
                number(self.not_resumed),
                "",
                "Of those, how often the server couldn't say all that was missed.",
            ),
            (
                "return p50",
                self.return_p50_ms,
                "ms",
                "From a client's first try to come back until it was let in again, half of them: a token or a password \
                 was checked, and the client could send. What it missed may come after that. Clients wait up to 250 ms \
                 first, so that not all come at once, and that is a part of it.",
            ),
            ("return p99", self.return_p99_ms, "ms", "The same, 99 of 100."),
            (
                "repeats for 1,000 shows",
                self.repeats_per_1000(),
                "",
                "Messages that were pushed to a client which had them. In chat and socket.io they have numbers, by \
                 which clients leave repeats out. In ejabberd they have none: users would see each of them twice.",
            ),
        ];
        for (name, value, unit, meaning) in figures {
            figure(run, name, value, unit, meaning);
        }
    }
}

fn aims(ours: &Finding, outcome: &mut Outcome) {
    let said = format!("{:.3} % ({} of {})", ours.shown_percent(), ours.shown, ours.expected_shows);
    outcome.aim("accepted messages shown to the other side", "100.000 %", said, ours.shown == ours.expected_shows);
    let resumed = ours.returned - ours.not_resumed;
    let said = format!("{resumed} of {}", ours.returned);
    outcome.aim("returns that got everything by resuming", "all", said, ours.not_resumed == 0 && resumed > 0);
}

#[cfg(test)]
mod tests {
    use chat_load::plan::Tally;

    use super::*;

    #[test]
    fn repeats_count_whether_clients_can_tell_or_not() {
        let tally = |repeated_raw, repeated| Tally {
            expected_shows: 1000,
            shown: 500,
            repeated_raw,
            repeated,
            ..Tally::default()
        };
        for tally in [tally(2, 0), tally(0, 2)] {
            let finding = Finding::of("peer", &CrowdDone { tally, ..CrowdDone::default() });
            assert!((finding.shown_percent() - 50.0).abs() < 1e-9);
            assert!((finding.repeats_per_1000() - 4.0).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_sent_is_nothing_repeated() {
        let finding = Finding::of("peer", &CrowdDone::default());
        assert!(finding.repeats_per_1000().abs() < 1e-9 && finding.shown_percent().abs() < 1e-9);
    }
}
