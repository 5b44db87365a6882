//! `history`: pages of conversations with millions of rows behind them, the newest ones, those from anywhere, and those whose
//! bodies are in packs of an object store.

mod fill;
mod packs;
mod readers;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::{
    clock,
    pages::{Depth, Pages, PagesPlan, PagesTalk},
    report::{ProcessCost, Run, Second},
};
use clap::Args;
use serde_json::{Value, json};

use self::{
    fill::{Archive, Size},
    readers::Readers,
};
use super::HANDSHAKES_PER_SECOND;
use crate::{
    fleet::Service,
    load::{
        chat::{Chat, ChatOptions},
        cost, gateway_sql,
        outcome::Outcome,
        run::{self, LATENESS_MAX_MS, Tools, number},
        sampler::{Sample, Sampler},
        setting::Setting,
        subject::{Subject, Watched},
    },
    terminal,
};

const GATEWAYS: usize = 2;
/// Participants of a conversation, who take turns in reading it.
const READERS: u32 = 2;
/// Before it counts, so that pools are filled.
const WARM_UP: Duration = Duration::from_secs(2);
/// Aims: waits of 99 of 100 pages, the cost of moving ten million bodies, and requests to the store for 1,000 messages.
const NEWEST_P99_MAX_MS: f64 = 10.0;
const PACKED_P99_MAX_MS: f64 = 40.0;
const PACKING_CPU_MAX_S: f64 = 600.0;
const PACKING_MEMORY_MAX_MIB: f64 = 128.0;
const SCROLL_REQUESTS_MAX: f64 = 3.0;

/// What can be chosen.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many messages there are
    #[arg(long, value_name = "COUNT", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    rows: u64,
    /// How many conversations share them
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conversations: u32,
    /// How many days they are spread over; each has a partition and a key of its own
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=90))]
    days: u16,
    /// Pages a second; they are asked for when they are due, whatever became of earlier ones
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Messages of a page
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit: u64,
    /// How long each kind of page is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Bodies of days that are older than 14 days move into an object store, which is measured, and pages are read from there
    #[arg(long)]
    cold: bool,
}

/// Measures and reports.
pub async fn run(options: &Options, setting: &Setting) -> Result<ExitCode> {
    super::ensure_rate(options.rate.into(), (options.conversations * READERS) as usize)?;
    if options.cold {
        packs::ensure_days(options.days)?;
    }
    let mut outcome = Outcome::begin("history", settings(options))?;
    let chat = ChatOptions { gateways: GATEWAYS, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = if options.cold { setting.chat_with_store(chat).await? } else { setting.chat(chat).await? };
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    terminal::heading("history of chat");
    if options.cold {
        packs::hold(&chat)?;
    }
    terminal::progress(&format!("sealing and storing {} messages", options.rows));
    let size = Size { rows: options.rows, conversations: options.conversations.into(), days: options.days };
    let archive = fill::fill(chat.fleet(), &size).await?;
    terminal::progress(&format!("{} messages in {:.0} s", archive.rows, archive.seconds));
    learn_keys(&chat).await?;
    let newest = step(options, setting, &chat, &archive, ("newest pages", Depth::Newest), &mut outcome).await?;
    aim(&mut outcome, "p99 of newest pages", NEWEST_P99_MAX_MS, "ms", newest);
    step(options, setting, &chat, &archive, ("pages from anywhere", Depth::Anywhere), &mut outcome).await?;
    if options.cold {
        cold(options, setting, &chat, &archive, &mut outcome).await?;
    }
    chat.stop().await?;
    outcome.finish()
}

/// Moves old bodies into packs, and reads them.
async fn cold(
    options: &Options,
    setting: &Setting,
    chat: &Chat,
    archive: &Archive,
    outcome: &mut Outcome,
) -> Result<()> {
    terminal::progress("moving old bodies into packs");
    let last_cold_seq = packs::last_cold_seq(archive, options.days);
    let moved = packs::move_all(chat).await?;
    let mut run = Run { target: chat.name().to_owned(), name: "move into packs".to_owned(), ..Run::default() };
    for (name, value, unit, meaning) in moved.figures() {
        run::figure(&mut run, name, value, unit, meaning);
    }
    let requests = packs::scroll(chat, archive, last_cold_seq).await?;
    let meaning = "Requests of a gateway to the object store while a reader scrolls 1,000 messages back.";
    run::figure(&mut run, "requests of scrolling", requests, "", meaning);
    outcome.add_step(run);
    let cpu = moved.worker_cpu_for_ten_million();
    aim(outcome, "processor time of packing 10,000,000", PACKING_CPU_MAX_S, "s", cpu);
    aim(outcome, "memory of the cold worker", PACKING_MEMORY_MAX_MIB, "MiB", moved.memory_mib());
    aim(outcome, "requests of scrolling 1,000 messages back", SCROLL_REQUESTS_MAX, "", requests);
    let kind = ("pages from packs", Depth::Until(last_cold_seq));
    let p99 = step(options, setting, chat, archive, kind, outcome).await?;
    aim(outcome, "p99 of pages from packs", PACKED_P99_MAX_MS, "ms", p99);
    Ok(())
}

fn aim(outcome: &mut Outcome, name: &str, max: f64, unit: &str, measured: f64) {
    outcome.aim(
        name,
        format!("≤ {max} {unit}").trim_end(),
        format!("{measured:.1} {unit}").trim_end().to_owned(),
        measured <= max,
    );
}

/// Measures one kind of page. The wait of 99 of 100.
async fn step(
    options: &Options,
    setting: &Setting,
    chat: &Chat,
    archive: &Archive,
    (name, depth): (&str, Depth),
    outcome: &mut Outcome,
) -> Result<f64> {
    terminal::progress(&format!("{name}, for {} s", options.seconds));
    let plan = plan(chat, archive, options, depth);
    let (run, pages) = measure(chat, archive, &plan, name, &setting.tools).await?;
    for (reason, count) in &pages.errors {
        outcome.problem(format!("{name}: {count} failed: {reason}"));
    }
    let lateness = pages.lateness.percentile_ms(99.0);
    if lateness > LATENESS_MAX_MS {
        outcome.problem(format!(
            "{name}: the readers were late: {lateness:.1} ms for 99 of 100 pages, and {LATENESS_MAX_MS} ms is what \
             may be; the machine is too busy for this load"
        ));
    }
    outcome.add_step(run);
    Ok(pages.waits.percentile_ms(99.0))
}

fn settings(options: &Options) -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("messages".to_owned(), json!(options.rows)),
        ("conversations".to_owned(), json!(options.conversations)),
        ("days".to_owned(), json!(options.days)),
        ("pages per second".to_owned(), json!(options.rate)),
        ("messages of a page".to_owned(), json!(options.limit)),
        ("seconds".to_owned(), json!(options.seconds)),
        ("old bodies are in an object store".to_owned(), json!(options.cold)),
        ("gateways".to_owned(), json!(GATEWAYS)),
    ])
}

/// Gateways fetch keys when they start and every few minutes; these are new.
async fn learn_keys(chat: &Chat) -> Result<()> {
    for gateway in chat.fleet().gateways() {
        gateway.stop().await?;
        gateway.start_ready().await?;
    }
    Ok(())
}

fn plan(chat: &Chat, archive: &Archive, options: &Options, depth: Depth) -> PagesPlan {
    let talks = archive
        .talks
        .iter()
        .map(|talk| PagesTalk { conversation_id: talk.conversation_id.as_uuid(), tokens: talk.tokens.to_vec() });
    PagesPlan {
        gateways: chat.fleet().gateways().iter().map(Service::url).collect(),
        talks: talks.collect(),
        last_seq: archive.last_seq,
        depth,
        limit: options.limit,
        per_second: options.rate,
        warm_up: WARM_UP,
        length: Duration::from_secs(options.seconds),
    }
}

/// One kind of page.
async fn measure(chat: &Chat, archive: &Archive, plan: &PagesPlan, name: &str, tools: &Tools) -> Result<(Run, Pages)> {
    let mut readers = Readers::start(&tools.generator, &tools.scratch, plan).await?;
    let watched: Vec<Watched> = chat.processes()?.into_iter().chain([readers.process()?]).collect();
    let (statements_before, reads_before) = (gateway_sql::counted(chat).await?, packs::reads(chat).await?);
    let cpu_before = cpu(&watched)?;
    let sampler = Sampler::begin(watched.clone(), clock::now_us());
    let pages = readers.done().await?;
    let seen = sampler.end()?;
    // That of the readers can still be asked for: nobody has waited for its end yet.
    let cpu_after = cpu(&watched)?;
    let statements = gateway_sql::counted(chat).await? - statements_before;
    let reads = packs::reads(chat).await? - reads_before;
    let mut run = Run {
        target: chat.name().to_owned(),
        name: name.to_owned(),
        seconds: plan.length.as_secs_f64(),
        errors: pages.errors.clone(),
        timeline: seen.windows(2).map(|pair| second(&watched, &pair[0], &pair[1])).collect(),
        ..Run::default()
    };
    for (place, process) in watched.iter().enumerate() {
        let cost = ProcessCost {
            cpu_seconds: cpu_after[place] - cpu_before[place],
            memory_peak_bytes: seen.iter().filter_map(|sample| sample.memory[place]).max().unwrap_or_default(),
            is_generator: place + 1 == watched.len(),
            ..ProcessCost::default()
        };
        run.processes.insert(process.name.clone(), cost);
    }
    put_figures(&mut run, archive, &pages, statements, reads);
    Ok((run, pages))
}

fn cpu(watched: &[Watched]) -> Result<Vec<f64>> {
    watched.iter().map(cost::cpu_seconds).collect()
}

/// What processes used between two looks at them.
fn second(watched: &[Watched], before: &Sample, after: &Sample) -> Second {
    let mut second = Second { at: before.at, ..Second::default() };
    let length = (after.at - before.at).max(0.001);
    for (place, process) in watched.iter().enumerate() {
        if let (Some(before), Some(after)) = (before.cpu[place], after.cpu[place]) {
            second.cpu.insert(process.name.clone(), (after - before) / length);
        }
        second.memory_bytes.extend(after.memory[place].map(|bytes| (process.name.clone(), bytes)));
    }
    second
}

fn put_figures(run: &mut Run, archive: &Archive, pages: &Pages, statements: f64, reads: f64) {
    let count = pages.waits.count();
    let of_each = |amount: f64| amount / number(count.max(1));
    let services = run.processes.values().filter(|cost| !cost.is_generator);
    let cpu: f64 = services.map(|cost| cost.cpu_seconds).sum();
    let figures = [
        ("rows in the table", number(archive.rows), "", "Messages stored before it began."),
        (
            "rows stored per second",
            number(archive.rows) / archive.seconds,
            "/s",
            "Messages sealed and stored a second while the table was filled, over one connection.",
        ),
        ("pages per second", number(count) / run.seconds, "/s", "Pages that were right, read by all users together."),
        (
            "page p50",
            pages.waits.percentile_ms(50.0),
            "ms",
            "From the moment a page was due until it was there, opened and checked, for half of the pages.",
        ),
        (
            "page p99",
            pages.waits.percentile_ms(99.0),
            "ms",
            "From the moment a page was due until it was there, opened and checked, for 99 of 100 pages.",
        ),
        (
            "reader lateness p99",
            pages.lateness.percentile_ms(99.0),
            "ms",
            "How much later than due readers themselves asked for pages, 99 of 100 at most. It is part of every wait.",
        ),
        ("page slowest", pages.waits.max_ms(), "ms", "The longest of these waits."),
        ("messages of a page", of_each(number(pages.rows)), "", "In the mean."),
        (
            "statements for a page",
            of_each(statements),
            "",
            "SQL statements that a gateway sent for a page, in the mean. One says who may read and how far it goes; \
             each further one looks in a window of time that is twice as long as the one before.",
        ),
        (
            "requests to the object store for a page",
            of_each(reads),
            "",
            "In the mean: one for each pack that a page reads from, and none for chunks that a gateway has read lately.",
        ),
        (
            "processor time for 1,000 pages",
            of_each(cpu) * 1000.0,
            "s",
            "Of one processor, of all processes but the readers.",
        ),
    ];
    for (name, value, unit, meaning) in figures {
        run::figure(run, name, value, unit, meaning);
    }
}
