//! `reconnect`: of 20,000 users a twentieth lose their connections each minute and come back a moment later, as in a
//! network that is not good. Those who only stay connected are simulated by a part of them.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::plan::{Absence, Manners, Tally};
use chat_shared::limits;
use clap::Args;
use serde_json::{Value, json};

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::{Chat, ChatOptions},
        gateway_sql::{GatewaySql, Statements},
        marks,
        outcome::Outcome,
        run::{self, Measured, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros, phase},
        writes::{Idle, Writes, Written},
    },
    terminal,
};

/// Users that the figures are for.
const USERS: u32 = 20_000;
/// How many of them come back in a second: 5 % a minute.
const RETURNS_PER_SECOND: f64 = 0.05 * 20_000.0 / 60.0;
const PAIR: usize = 2;
const GATEWAYS: usize = 2;
/// Until what came with the handshakes is over.
const SETTLED: Duration = Duration::from_secs(2);
/// Nothing but heartbeats, a whole round.
const IDLE: Duration = limits::HEARTBEAT_INTERVAL;
/// Of those who come and go: online in the mean, before they are away.
const ONLINE: Duration = Duration::from_secs(28);
/// For the last ones to be back, and for what is settled after they were.
const AFTERWARDS: Duration = Duration::from_secs(8);
const DRAIN: Duration = Duration::from_secs(30);

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many connections there are; of the 20,000 users a thousand lose theirs each minute, however many are here, and
    /// what the others would add is computed from the time in which these only send heartbeats, and said apart
    #[arg(long, value_name = "COUNT", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2000..=20_000))]
    connections: u32,
    /// For how long they are away, in the mean. Whoever is back within 5 seconds was never gone to those who watch
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=20))]
    away: u64,
    /// How long it goes on
    #[arg(long, value_name = "NUMBER", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..=600))]
    seconds: u64,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.connections as usize
    }

    fn away(&self) -> Duration {
        Duration::from_secs(self.away)
    }

    /// Pairs of which one comes and goes, so that as many come back as should, and the other stays and watches.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundreds")]
    fn returning_pairs(&self) -> usize {
        (RETURNS_PER_SECOND * (ONLINE + self.away()).as_secs_f64()).round() as usize
    }

    /// When the first one goes, and when all begin to stay.
    fn going(&self) -> (Duration, Duration) {
        (SETTLED + IDLE, SETTLED + IDLE + Duration::from_secs(self.seconds))
    }

    /// Nobody was away for long enough to be missed.
    fn is_unseen(&self) -> bool {
        // Up to one and a half times the mean, and a moment to come back.
        self.away() * 2 < limits::PRESENCE_GRACE
    }
}

/// What the servers wrote, and were asked.
struct Cost {
    idle: Written,
    written: Written,
    statements: Statements,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("reconnect", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    let workload = workload(options, &chat).await?;
    let (from, until) = options.going();
    terminal::heading("reconnecting to chat");
    let measured = run::run_with(&chat, &workload, &setting.tools, async |stage| {
        stage.reach(SETTLED).await;
        let before = Writes::of(&chat).await?;
        stage.reach(from).await;
        let after = Writes::of(&chat).await?;
        let counting = GatewaySql::begin(&chat).await?;
        stage.reach(until + AFTERWARDS).await;
        let written = Writes::of(&chat).await?.since(&after);
        Ok(Cost { idle: after.since(&before), written, statements: counting.end(&chat).await? })
    })
    .await?;
    chat.stop().await?;
    let measured = with_figures(measured, options, &mut outcome);
    outcome.add(measured);
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("users".to_owned(), json!(USERS)),
        ("of those connected here".to_owned(), json!(options.connections)),
        ("users who come back per second".to_owned(), json!(RETURNS_PER_SECOND)),
        ("seconds away, in the mean".to_owned(), json!(options.away)),
        ("seconds".to_owned(), json!(options.seconds)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

async fn workload(options: &Options, chat: &Chat) -> Result<Workload> {
    let (from, until) = options.going();
    let manners = Manners { watches: true, ..Manners::default() };
    let returning = options.returning_pairs();
    let absence = Absence::Often {
        online_us: micros(ONLINE),
        away_us: micros(options.away()),
        from_us: micros(from),
        until_us: micros(until),
        says_goodbye: false,
        first_stays: true,
    };
    let staying = CrowdLoad {
        seats: chat.seats(options.connections() / PAIR - returning, PAIR).await?,
        conversation_size: PAIR,
        manners,
        ..CrowdLoad::default()
    };
    let returning = CrowdLoad {
        seats: chat.seats(returning, PAIR).await?,
        conversation_size: PAIR,
        sends: None,
        absence: Some(absence),
        manners,
    };
    let phase = phase("reconnecting", from, until + AFTERWARDS);
    let name = format!("{RETURNS_PER_SECOND:.1} returns/s");
    Ok(Workload { name, crowds: vec![staying, returning], phases: vec![phase], costed: 0, drain: DRAIN })
}

fn with_figures(mut measured: Measured<Cost>, options: &Options, outcome: &mut Outcome) -> Measured<Cost> {
    let (tally, done) = (measured.done.tally(), marks::realtime(&measured.done));
    let Cost { idle, written, statements } = &measured.meanwhile;
    measured.problems.extend(problems(options, tally.returned));
    aims(options, &tally, *statements, done.presence_shown, outcome);
    let returned = number(tally.returned).max(1.0);
    let idle = Idle { written: idle, connections: options.connections };
    let idle_calls = idle.written.redis_per_second() * written.seconds;
    let of_return = (written.redis_calls() - idle_calls).max(0.0) / returned;
    let of_all = RETURNS_PER_SECOND * of_return + idle.of_more(USERS) + Idle::signs_of_life(USERS);
    let commands = format!(
        "Commands that changed something in Redis for a connection that is lost and one that comes back, those within \
         scripts included: {}.",
        written.most(returned)
    );
    let all = format!(
        "Computed: {RETURNS_PER_SECOND:.1} returns a second, {USERS} connections that send heartbeats, of which {} are not \
         here, and the sign of life twice a day of all, which nobody here stays for.",
        USERS.saturating_sub(options.connections)
    );
    let returns = &measured.done.crowds[1].returns;
    let waits = "From the first try until the connection was open, half of them. Clients wait up to 250 ms first, so that \
                 not all come at once.";
    let resumed = "Of those, how often the server couldn't say all that was missed.";
    let watching = "One looks up whom the client may watch; connecting and resuming need none.";
    let presence = "How often somebody was shown that another user came or went. Somebody who stays watches each of those who come and go.";
    let figures = [
        ("returns", number(tally.returned), "", "How often a client came back after a lost connection."),
        ("returns without resuming", number(tally.not_resumed), "", resumed),
        ("return p50", returns.percentile_ms(50.0), "ms", waits),
        ("return p99", returns.percentile_ms(99.0), "ms", "The same, 99 of 100."),
        ("SQL statements of gateways for each return", statements.counted / returned, "", watching),
        ("Redis writes for each return", of_return, "", commands.as_str()),
        ("Redis writes per second of 20,000 users", of_all, "/s", &all),
        ("presence changes shown", number(done.presence_shown), "", presence),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    measured
}

fn aims(options: &Options, tally: &Tally, statements: Statements, presence_shown: u64, outcome: &mut Outcome) {
    let returned = tally.returned;
    // Each client says whom it watches when it is back, and whether it may is looked up.
    let counted = statements.counted - number(returned);
    let logged = number(statements.logged as u64) - number(returned);
    outcome.aim(
        "SQL statements while users come back, but for one for each watch_presence",
        "0",
        format!("{counted} counted by gateways, {logged} logged by PostgreSQL"),
        counted < 1.0 && logged < 1.0,
    );
    let resumed = returned - tally.not_resumed;
    let said = format!("{resumed} of {returned}");
    outcome.aim("returns that got everything by resuming", "all", said, resumed == returned);
    if options.is_unseen() {
        let what = "presence changes shown of users who were back within 5 s";
        outcome.aim(what, "0", presence_shown.to_string(), presence_shown == 0);
    }
}

/// Why it is not the load that was asked for.
fn problems(options: &Options, returned: u64) -> Vec<String> {
    #[expect(clippy::cast_precision_loss, reason = "seconds of minutes")]
    let wanted = RETURNS_PER_SECOND * options.seconds as f64;
    let found = number(returned);
    run::those([(
        (found - wanted).abs() > wanted * 0.25,
        format!("{wanted:.0} users were to come back, and {found} did"),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(away: u64) -> Options {
        Options { connections: 5000, away, seconds: 40 }
    }

    #[test]
    fn a_thousand_of_20_000_come_back_in_a_minute() {
        assert_eq!(options(2).returning_pairs(), 500, "each once in 30 seconds");
        assert!(problems(&options(2), 667).is_empty());
        assert_eq!(problems(&options(2), 400).len(), 1);
        assert!(options(20).returning_pairs() * PAIR < 2000);
    }

    #[test]
    fn who_is_away_for_longer_than_the_grace_is_seen_to_go() {
        assert!(options(2).is_unseen() && !options(3).is_unseen());
    }
}
