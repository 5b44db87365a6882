//! `retire`: a day of millions of messages ages out while users write to each other and should feel nothing of it (R1.6).

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use chat_load::plan::{Sends, Writers};
use clap::Args;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::HANDSHAKES_PER_SECOND;
use crate::{
    audit::stored,
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

const GATEWAYS: usize = 2;
const PAIR: usize = 2;
const WARM_UP: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
/// The age of the day: both of its limits have passed.
const AGE_DAYS: u32 = 105;
/// Conversations whose messages are stored by one statement.
const FILLED_TOGETHER: u32 = 1000;
/// Between two single inserts beside the load, whose longest is reported.
const INSERT_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks at the state of the day.
const PAUSE: Duration = Duration::from_millis(200);
/// Attempts of retention to get a lock that lets others wait.
const ATTEMPTS: &str = "chat_retention_lock_attempts_total";
/// What ageing out may make of the waits of users, and how long an insert may take.
const SLOWDOWN_MAX: f64 = 1.5;
const INSERT_MAX_MS: f64 = 200.0;
/// Retention looks once a minute: twice here, for the soft deletion and for the removal.
const LOOKS: Duration = Duration::from_mins(2);
/// Conversations a second whose floors retention raises at least, with its rests.
const FLOORS_PER_SECOND_MIN: u32 = 500;

const PHASE_BEFORE: usize = 0;
/// From the beginning of ageing out on a phase for each second, since its end is known only afterwards.
const PHASE_SECONDS: usize = 1;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many messages the day has
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=100_000_000))]
    rows: u32,
    /// How many conversations share them
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    conversations: u32,
    /// Messages a second that users send meanwhile
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How many pairs of users write to each other
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=9000))]
    pairs: u32,
    /// How long the users are measured before the day ages out
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

impl Options {
    /// Of all clients.
    pub fn connections(&self) -> usize {
        self.pairs as usize * PAIR
    }

    fn begins_at(&self) -> Duration {
        WARM_UP + Duration::from_secs(self.seconds)
    }

    /// How long the day may take until nothing of it is left.
    fn ageing_max(&self) -> Duration {
        LOOKS + Duration::from_secs((self.conversations / FLOORS_PER_SECOND_MIN).into()) + SECOND * 30
    }

    fn ends_at(&self) -> Duration {
        self.begins_at() + self.ageing_max()
    }
}

/// How the day went.
#[derive(Debug, Clone, Copy)]
struct Retired {
    /// From the beginning until the day was soft-deleted, and from then until nothing of it was left.
    soft_deleted_after: Duration,
    gone_after: Duration,
    /// The longest of the single inserts before and meanwhile.
    longest_before: Duration,
    longest: Duration,
    /// Attempts of retention to get the lock of all days, and those that it did not get.
    attempts: u64,
    refused: u64,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    super::ensure_rate(options.rate.into(), options.connections())?;
    let mut outcome = Outcome::begin("retire", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    terminal::heading("a day ages out while users write");
    // A process that is stopped by a signal is still one whose time is counted.
    chat.fleet().retention().pause()?;
    fill(options, &chat).await?;
    let workload = workload(options, &chat).await?;
    let measured = Box::pin(run::run_with(&chat, &workload, &setting.tools, async |stage| {
        Box::pin(retire(options, &chat, stage)).await
    }))
    .await?;
    chat.stop().await?;
    report(options, &workload, measured, &mut outcome);
    outcome.finish()
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("messages of the day".to_owned(), json!(options.rows)),
        ("conversations of the day".to_owned(), json!(options.conversations)),
        ("messages per second meanwhile".to_owned(), json!(options.rate)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

/// Puts the day into PostgreSQL. Its envelopes are as long as those of short texts, and are not opened.
async fn fill(options: &Options, chat: &Chat) -> Result<()> {
    let began = Instant::now();
    let mut database = chat.database().await?;
    let first = format!("((now() at time zone 'UTC')::date - {AGE_DAYS})");
    let each = options.rows.div_ceil(options.conversations);
    let setup = format!(
        "select make_message_partition({first});
         create temp table talks as
             select n, gen_random_uuid() as id, least(a, b) as low, greatest(a, b) as high
             from (select n, gen_random_uuid() as a, gen_random_uuid() as b from generate_series(1, {conversations}) n) pair;
         insert into conversations (
             conversation_id, kind, direct_low, direct_high, last_seq, last_message_id, last_message_at, created_at,
             last_activity_at
         )
         select id, 'direct', low, high, {each}, gen_random_uuid(), {first}, {first}, {first} from talks;
         insert into participants (conversation_id, user_id, role, joined_at)
         select id, unnest(array[low, high]), 'member', {first} from talks",
        conversations = options.conversations,
    );
    let mut transaction = database.begin().await?;
    transaction.execute(AssertSqlSafe(setup)).await?;
    transaction.commit().await?;
    for from in (1..=options.conversations).step_by(FILLED_TOGETHER as usize) {
        let until = from + FILLED_TOGETHER - 1;
        let rows = format!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             select id, seq, {first} + seq * interval '1 day' / ({each} + 1), gen_random_uuid(), low,
                 decode(repeat('5a', 133), 'hex')
             from talks cross join generate_series(1, {each}) seq where n between {from} and {until}"
        );
        database.execute(AssertSqlSafe(rows)).await?;
        if (until / FILLED_TOGETHER).is_multiple_of(10) {
            terminal::progress(&format!("{} messages stored", u64::from(until) * u64::from(each)));
        }
    }
    database.execute("vacuum (analyze) messages, conversations, participants").await?;
    database.execute("checkpoint").await?;
    database.close().await?;
    terminal::progress(&format!("the day is stored, in {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn workload(options: &Options, chat: &Chat) -> Result<Workload> {
    let (begins_at, ends_at) = (options.begins_at(), options.ends_at());
    let crowd = CrowdLoad {
        seats: chat.seats(options.pairs as usize, PAIR).await?,
        conversation_size: PAIR,
        sends: Some(Sends {
            per_second: options.rate.into(),
            from_us: 0,
            until_us: micros(ends_at),
            writers: Writers::All,
        }),
        ..CrowdLoad::default()
    };
    let mut phases = vec![phase("before", WARM_UP, begins_at)];
    let seconds = (begins_at.as_secs()..ends_at.as_secs()).map(Duration::from_secs);
    phases.extend(seconds.map(|from| phase("while the day ages out", from, from + SECOND)));
    let name = format!("{} messages age out", options.rows);
    Ok(Workload { name, crowds: vec![crowd], phases, costed: PHASE_BEFORE, drain: DRAIN })
}

/// Lets retention work, and waits until nothing of the day is left.
async fn retire(options: &Options, chat: &Chat, stage: &Stage<'_>) -> Result<Retired> {
    stage.reach(WARM_UP).await;
    let before = Box::pin(longest_insert(chat, stage.reach(options.begins_at()))).await?;
    let begins = Instant::now();
    chat.fleet().retention().resume()?;
    let mut soft_deleted_after = Duration::ZERO;
    let ageing = async {
        until_state(chat, "deleted", begins + options.ageing_max()).await?;
        soft_deleted_after = begins.elapsed();
        terminal::progress("the day is soft-deleted");
        // A day that is soft-deleted late is kept for seven days: they have passed.
        let passing =
            "update message_days set soft_deleted_at = soft_deleted_at - interval '8 days' where state = 'deleted'";
        chat.database().await?.execute(passing).await?;
        until_state(chat, "gone", begins + options.ageing_max()).await?;
        terminal::progress("nothing of the day is left");
        anyhow::Ok(())
    };
    let mut aged = Ok(());
    let during = Box::pin(longest_insert(chat, async { aged = ageing.await })).await?;
    aged?;
    let gone_after = begins.elapsed().saturating_sub(soft_deleted_after);
    let retention = chat.fleet().retention();
    let attempts = retention.counter(ATTEMPTS, "").await?;
    let refused = retention.counter(ATTEMPTS, "outcome=\"refused\"").await?;
    Ok(Retired { soft_deleted_after, gone_after, longest_before: before, longest: during, attempts, refused })
}

/// Waits until the day has a state.
async fn until_state(chat: &Chat, state: &str, deadline: Instant) -> Result<()> {
    // One connection and few questions, since the load is measured meanwhile.
    let mut database = chat.database().await?;
    let question = format!(
        "select count(*) from message_days where day = (now() at time zone 'UTC')::date - {AGE_DAYS} and state = '{state}'"
    );
    while stored::number(&mut database, question.clone()).await? == 0 {
        ensure!(Instant::now() <= deadline, "the day is not {state} in time; retention's log has the cause");
        sleep(PAUSE).await;
    }
    Ok(database.close().await?)
}

/// The longest of single inserts of messages of today, made for as long as `work` takes.
async fn longest_insert(chat: &Chat, work: impl Future<Output = ()>) -> Result<Duration> {
    let is_over = CancellationToken::new();
    let inserting = async {
        let mut database = chat.database().await?;
        let insert = "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
                      values (gen_random_uuid(), 1, now(), gen_random_uuid(), gen_random_uuid(), '\\x5a')";
        let mut longest = Duration::ZERO;
        while !is_over.is_cancelled() {
            let began = Instant::now();
            database.execute(insert).await?;
            longest = longest.max(began.elapsed());
            sleep(INSERT_INTERVAL).await;
        }
        database.close().await?;
        anyhow::Ok(longest)
    };
    let working = async {
        work.await;
        is_over.cancel();
    };
    let (longest, ()) = tokio::join!(inserting, working);
    longest
}

fn report(options: &Options, workload: &Workload, mut measured: Measured<Retired>, outcome: &mut Outcome) {
    let Retired { soft_deleted_after, gone_after, longest_before, longest, attempts, refused } = measured.meanwhile;
    let seconds = usize::try_from((soft_deleted_after + gone_after).as_secs()).unwrap_or(usize::MAX).saturating_add(1);
    let end = PHASE_SECONDS.saturating_add(seconds).min(workload.phases.len());
    let part = |phases| run::part(&measured.run, workload, &measured.done, 0, phases);
    let (before, during) = (part(PHASE_BEFORE..PHASE_SECONDS), part(PHASE_SECONDS..end));
    let slowdown = during.accept.p99_ms / before.accept.p99_ms.max(f64::MIN_POSITIVE);
    let tally = measured.done.tally();
    let failed = tally.rejected + tally.unanswered;
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    outcome.aim("failed sends", "0", format!("{failed} of {}", tally.sent), failed == 0);
    outcome.aim(
        "accept p99 while the day ages out against before",
        &format!("≤ {SLOWDOWN_MAX} ×"),
        format!("{slowdown:.2} × ({:.1} ms, {:.1} ms before)", during.accept.p99_ms, before.accept.p99_ms),
        slowdown <= SLOWDOWN_MAX,
    );
    outcome.aim(
        "longest insert while the day ages out",
        &format!("≤ {INSERT_MAX_MS} ms"),
        format!("{:.1} ms ({:.1} ms before)", millis(longest), millis(longest_before)),
        millis(longest) <= INSERT_MAX_MS,
    );
    let figures = [
        ("messages of the day", f64::from(options.rows), "", "Stored before the load began."),
        (
            "soft-deleted after",
            soft_deleted_after.as_secs_f64(),
            "s",
            "From when retention began; it raises the floors of all conversations first, and rests nine tenths of the time.",
        ),
        (
            "gone after",
            gone_after.as_secs_f64(),
            "s",
            "From the soft deletion until key, rows and ledgers were removed; retention looks once a minute.",
        ),
        ("longest insert", millis(longest), "ms", "Of single inserts of messages of today, 50 a second, meanwhile."),
        ("longest insert before", millis(longest_before), "ms", "The same, before the day aged out."),
        ("attempts to lock", number(attempts), "", "Of retention, to get a lock that lets others wait."),
        ("attempts refused", number(refused), "", "Those of them that gave up after 50 ms."),
        ("accept p99 / before", slowdown, "×", "What ageing out made of it."),
    ];
    for (name, value, unit, meaning) in figures {
        figure(&mut measured.run, name, value, unit, meaning);
    }
    outcome.add_step(before);
    outcome.add_step(during);
    outcome.add(measured);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_cover_the_time_that_the_day_may_take() {
        let options = Options { rows: 10_000_000, conversations: 100_000, rate: 200, pairs: 100, seconds: 20 };
        assert_eq!(options.begins_at(), Duration::from_secs(23));
        assert_eq!(options.ends_at(), Duration::from_secs(23 + 120 + 200 + 30));
    }
}
