//! `jitter`: clients whose connections are lost every few seconds, as in a train, while messages flow.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Absence, Phase, Sends, Writers};
use serde_json::json;

use crate::load::{
    chat::ChatOptions,
    outcome::Outcome,
    run::{self, figure, number},
    setting::Setting,
    subject::Subject,
    workload::{CrowdLoad, Workload, micros},
};

const WARM_UP: Duration = Duration::from_secs(3);
/// Online in the mean, and then away.
const ONLINE: Duration = Duration::from_secs(15);
const AWAY: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(40);
/// Users in a conversation.
const PAIR: usize = 2;

/// What was chosen.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many clients.
    pub clients: usize,
    /// Messages a second of all together.
    pub rate: f64,
    /// How long it goes on.
    pub length: Duration,
}

/// Measures.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("jitter", settings(plan))?;
    let (chat, floors) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let workload = workload(plan, chat.seats(plan.clients / PAIR, PAIR).await?);
    let mut measured = run::run(&chat, &workload, &setting.tools).await?;
    chat.stop().await?;
    let crowd = &measured.done.crowds[0];
    let (tally, returns) = (&crowd.tally, &crowd.returns);
    let shown = 100.0 * number(tally.shown) / number(tally.expected_shows.max(1));
    let said = format!("{shown:.3} % ({} of {})", tally.shown, tally.expected_shows);
    outcome.aim("accepted messages shown to the other side", "100.000 %", said, tally.shown == tally.expected_shows);
    outcome.aim(
        "returns that got everything by resuming",
        "all",
        format!("{} of {}", tally.returned - tally.not_resumed, tally.returned),
        tally.not_resumed == 0 && tally.returned > 0,
    );
    let figures = [
        ("delivered", shown, "%", "Accepted messages that the other side was shown, in spite of everything."),
        ("returns", number(tally.returned), "", "How often a client came back after a lost connection."),
        (
            "returns without resuming",
            number(tally.not_resumed),
            "",
            "Of those, how often the server couldn't say all that was missed.",
        ),
        (
            "return p50",
            returns.percentile_ms(50.0),
            "ms",
            "From a client's first try to come back until its connection was open, half of them. Clients wait up to 250 ms first, so that not all come at once.",
        ),
        ("return p99", returns.percentile_ms(99.0), "ms", "The same, 99 of 100."),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    outcome.add(measured);
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

fn workload(plan: &Plan, seats: Vec<chat_load::plan::Seat>) -> Workload {
    let (from_us, until_us) = (micros(WARM_UP), micros(WARM_UP + plan.length));
    let sends = Sends { per_second: plan.rate, from_us: 0, until_us, writers: Writers::All };
    let absence = Absence::Often { online_us: micros(ONLINE), away_us: micros(AWAY), from_us: 0, until_us };
    let crowd = CrowdLoad { seats, conversation_size: PAIR, sends: Some(sends), absence: Some(absence) };
    let phase = Phase { name: "jitter".to_owned(), from_us, until_us };
    let name = format!("{} clients, {:.0}/s", plan.clients, plan.rate);
    Workload { name, crowds: vec![crowd], phases: vec![phase], costed: 0, drain: DRAIN }
}
