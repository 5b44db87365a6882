//! `lists`: conversation lists of fifty rows, whose names are known, unknown, or can't be asked for.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chat_load::report::Run;
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::HANDSHAKES_PER_SECOND;
use crate::{
    fleet::Service,
    kaha::Behaviour,
    load::{
        chat::{Chat, ChatOptions},
        gateway_sql,
        outcome::Outcome,
        run::{figure, number},
        setting::Setting,
        subject::Subject,
    },
    terminal, wait,
};

/// Conversations of each user, and rows of a list.
const ROWS: usize = 50;
const GATEWAYS: usize = 2;
/// Lists that are made at the same time.
const MAKING_MAX: usize = 16;
/// Connections of this process at once.
pub const CONNECTIONS_MAX: usize = 4 * MAKING_MAX;
const TOKEN_TTL: Duration = Duration::from_hours(1);
/// How long the persister may take for the last message.
const STORED_WITHIN: Duration = Duration::from_mins(1);
/// What asking for names may add to a list while kaha-main-v3 is down.
const ADDED_MAX_MS: f64 = 50.0;
/// Statements of a list.
const STATEMENTS_MAX: f64 = 2.0;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many users, each with fifty direct conversations with others; each reads their list once in each state
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..=1000))]
    users: u32,
}

/// A user who reads their list, at one gateway.
#[derive(Debug, Clone)]
struct Reader {
    /// Their turn; it says at which gateway they read.
    number: usize,
    token: String,
    gateway: String,
}

/// What reading all lists once came to.
struct Read {
    /// In the order they were read.
    milliseconds: Vec<f64>,
    calls: usize,
    statements: f64,
    /// Lists in which each name was the real one.
    named: usize,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    let settings = BTreeMap::from([
        ("users".to_owned(), json!(options.users)),
        ("rows of a list".to_owned(), json!(ROWS)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ]);
    let mut outcome = Outcome::begin("lists", settings)?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(chat).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    terminal::heading("lists of chat");
    let readers = make(&chat, options.users).await?;

    forget_names(&chat).await?;
    let cold = read(&chat, &readers).await?;
    let warm = read(&chat, &readers).await?;
    report(&mut outcome, "cold", &cold, None);
    report(&mut outcome, "warm", &warm, None);
    let each = number(cold.milliseconds.len() as u64);
    let calls = number(cold.calls as u64) / each;
    outcome.aim("calls for a list, cold", "exactly 1", format!("{calls}"), cold.calls == cold.milliseconds.len());
    outcome.aim("calls for a list, warm", "0", warm.calls.to_string(), warm.calls == 0);
    for (name, read) in [("cold", &cold), ("warm", &warm)] {
        let statements = read.statements / each;
        let what = format!("SQL statements for a list, {name}");
        outcome.aim(&what, "at most 2", format!("{statements}"), statements <= STATEMENTS_MAX);
        if read.named < read.milliseconds.len() {
            outcome.problem(format!("{name}: {} lists lacked names", read.milliseconds.len() - read.named));
        }
    }
    for (name, behaviour) in [("kaha silent", Behaviour::BlackHole), ("kaha down", Behaviour::Down)] {
        forget_names(&chat).await?;
        chat.fleet().kaha().behave(behaviour);
        let read = read(&chat, &readers).await?;
        chat.fleet().kaha().behave(Behaviour::Normal);
        let added = median(&read.milliseconds[..GATEWAYS]) - median(&warm.milliseconds);
        let later = median(&read.milliseconds[read.milliseconds.len() / 2..]) - median(&warm.milliseconds);
        report(&mut outcome, name, &read, Some((added, later)));
        let worst = read.milliseconds.iter().copied().fold(0.0, f64::max) - median(&warm.milliseconds);
        let what = format!("added to a list, {name}, the worst");
        outcome.aim(&what, "at most 50 ms", format!("{worst:.1} ms"), worst <= ADDED_MAX_MS);
    }
    chat.stop().await?;
    outcome.finish()
}

/// Users with full lists, each conversation with one message.
async fn make(chat: &Chat, users: u32) -> Result<Vec<Reader>> {
    terminal::progress(&format!("making {users} users with {ROWS} conversations each"));
    let gateways: Vec<_> = chat.fleet().gateways().iter().map(Service::url).collect();
    let mut making = JoinSet::new();
    let mut readers = Vec::new();
    for number in 0..users as usize {
        if making.len() >= MAKING_MAX {
            readers.extend(making.join_next().await.transpose()?.transpose()?);
        }
        let token = chat.fleet().kaha().tokens().user(Uuid::new_v4(), None, TOKEN_TTL)?;
        making.spawn(fill(Reader { number, token, gateway: gateways[number % gateways.len()].clone() }));
    }
    while let Some(made) = making.join_next().await {
        readers.push(made??);
    }
    let wanted = u64::from(users) * ROWS as u64;
    wait::until("storing the messages", STORED_WITHIN, async || Ok((chat.stored().await? == wanted).then_some(())))
        .await?;
    readers.sort_by_key(|reader| reader.number);
    Ok(readers)
}

async fn fill(reader: Reader) -> Result<Reader> {
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| -> Result<Value> {
        let url = format!("{}/v1/{path}", reader.gateway);
        loop {
            let answer = http.post(&url).bearer_auth(&reader.token).json(&body).send().await?;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer.error_for_status()?.json().await?);
            }
            let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
        }
    };
    for _ in 0..ROWS {
        let made = post("conversations", json!({ "kind": "direct", "user_id": Uuid::new_v4() })).await?;
        let id = made["conversation_id"].as_str().context("a conversation has an id")?;
        post(&format!("conversations/{id}/messages"), json!({ "message_id": Uuid::new_v4(), "text": "Hello" })).await?;
    }
    Ok(reader)
}

/// Takes every name from Redis and from the memory of the gateways.
async fn forget_names(chat: &Chat) -> Result<()> {
    let mut redis = redis::Client::open(chat.servers().redis.url())?.get_multiplexed_async_connection().await?;
    let pattern = format!("{}:profile:*", chat.fleet().namespace());
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await?;
    for some in keys.chunks(1000) {
        let _count: u64 = redis::cmd("UNLINK").arg(some).query_async(&mut redis).await?;
    }
    for gateway in chat.fleet().gateways() {
        gateway.stop().await?;
        gateway.start_ready().await?;
    }
    Ok(())
}

/// Each reads their list, one after the other.
async fn read(chat: &Chat, readers: &[Reader]) -> Result<Read> {
    let http = reqwest::Client::new();
    for gateway in chat.fleet().gateways() {
        // The first request makes connections, which is not what is measured.
        http.get(format!("{}/openapi.json", gateway.url())).send().await?.error_for_status()?;
        let stranger = chat.fleet().kaha().tokens().user(Uuid::new_v4(), None, TOKEN_TTL)?;
        http.get(format!("{}/v1/conversations", gateway.url()))
            .bearer_auth(stranger)
            .send()
            .await?
            .error_for_status()?;
    }
    let (calls, statements) = (chat.fleet().kaha().calls().all().len(), gateway_sql::counted(chat).await?);
    let (mut milliseconds, mut named) = (Vec::new(), 0);
    for reader in readers {
        let began = Instant::now();
        let url = format!("{}/v1/conversations?limit={ROWS}", reader.gateway);
        let answer = http.get(url).bearer_auth(&reader.token).send().await?.error_for_status()?;
        let page: Value = answer.json().await?;
        milliseconds.push(began.elapsed().as_secs_f64() * 1000.0);
        let rows = page["conversations"].as_array().context("a page has conversations")?;
        ensure!(rows.len() == ROWS, "a list has {} rows", rows.len());
        named += usize::from(rows.iter().all(|row| row["name"]["is_fallback"].is_null()));
    }
    Ok(Read {
        milliseconds,
        calls: chat.fleet().kaha().calls().all().len() - calls,
        statements: gateway_sql::counted(chat).await? - statements,
        named,
    })
}

fn median(milliseconds: &[f64]) -> f64 {
    percentile(milliseconds, 50)
}

fn percentile(milliseconds: &[f64], percent: usize) -> f64 {
    let mut sorted = milliseconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

/// `added` is what the first lists and the later ones took beyond those whose names were known.
fn report(outcome: &mut Outcome, name: &str, read: &Read, added: Option<(f64, f64)>) {
    let lists = read.milliseconds.len() as u64;
    let mut run = Run {
        target: "chat".to_owned(),
        name: name.to_owned(),
        seconds: read.milliseconds.iter().sum::<f64>() / 1000.0,
        ..Run::default()
    };
    let of_each = |count: f64| count / number(lists.max(1));
    let mut figures = vec![
        ("lists", number(lists), "", "Lists of fifty rows that were read, one after the other."),
        ("list, p50", median(&read.milliseconds), "ms", "Until a list was read whole."),
        ("list, p99", percentile(&read.milliseconds, 99), "ms", "The same, for 99 of 100."),
        ("calls per list", of_each(number(read.calls as u64)), "", "Calls to kaha-main-v3."),
        ("SQL statements per list", of_each(read.statements), "", "By the gateways' counter."),
        ("lists with every name", number(read.named as u64), "", "Without a neutral name."),
    ];
    if let Some((first, later)) = added {
        let meaning = "What the first list at each gateway took beyond those whose names were known.";
        figures.push(("added at first", first, "ms", meaning));
        figures.push(("added later", later, "ms", "The same of the second half, in the median."));
    }
    for (name, value, unit, meaning) in figures {
        figure(&mut run, name, value, unit, meaning);
    }
    outcome.add_step(run);
}
