//! Moves the bodies of old days into packs of an object store, as the cold worker does over weeks, and measures the move (R12.3).

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chat_load::clock;
use chat_shared::wire::HistoryPage;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::fill::{Archive, Talk};
use crate::{
    fleet::Service,
    load::{
        chat::{Chat, watched},
        cost,
        run::number,
        sampler::Sampler,
    },
    terminal, wait,
};

/// Days whose bodies stay in PostgreSQL: the default of `CHAT_COLD_AFTER_DAYS`.
const WARM_DAYS: u16 = 14;
/// How long moving all bodies may take.
const DEADLINE: Duration = Duration::from_hours(2);
/// The gateways' counter of packs that pages read from.
const READS: &str = "chat_gateway_cold_reads_total";
/// Messages that are scrolled through, and those of each page.
const SCROLLED: u64 = 1000;
const PAGE: u64 = 100;
const A_DAY_LATER: &str = "update cold_days set swapped_at = swapped_at - interval '25 hours'";
const PACKS: &str = "select coalesce(sum(messages), 0)::bigint, coalesce(sum(bytes), 0)::bigint from cold_packs";

/// The result of the move.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// Messages whose bodies are in packs.
    pub messages: u64,
    /// From the first look of the worker until all rows are without bodies, in seconds.
    pub seconds: f64,
    /// Processor seconds of the worker and of PostgreSQL in that time.
    pub worker_cpu_seconds: f64,
    pub postgres_cpu_seconds: f64,
    /// The most memory of the worker.
    pub memory_peak_bytes: u64,
    /// Bytes of the tables and indexes of these days before and after.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Bytes of all packs.
    pub pack_bytes: u64,
}

/// Fails if no day of so many is old enough to move.
pub fn ensure_days(days: u16) -> Result<()> {
    let needed = WARM_DAYS + 1;
    ensure!(
        days >= needed,
        "--cold needs --days {needed} or more: bodies move when their day is over for {WARM_DAYS} days"
    );
    Ok(())
}

/// The last message of each conversation whose body moves.
pub fn last_cold_seq(archive: &Archive, days: u16) -> u64 {
    archive.last_seq * u64::from(days.saturating_sub(WARM_DAYS)) / u64::from(days)
}

/// Keeps the cold worker from moving anything yet. It stays a process that can be counted.
pub fn hold(chat: &Chat) -> Result<()> {
    worker(chat)?.pause()
}

/// Moves everything that is due.
pub async fn move_all(chat: &Chat) -> Result<Moved> {
    let worker = worker(chat)?;
    let mut database = chat.database().await?;
    let bytes_before = bytes_of_tables(&mut database).await?;
    worker.kill().await?;
    let postgres = watched(chat.servers().postgres.process(), true, false)?;
    let postgres_before = cost::cpu_seconds(&postgres)?;
    let began = Instant::now();
    worker.start()?;
    let process = watched(worker.process(), false, false)?;
    let sampler = Sampler::begin(vec![process.clone()], clock::now_us());
    until_moved(chat).await?;
    let seconds = began.elapsed().as_secs_f64();
    let worker_cpu_seconds = cost::cpu_seconds(&process)?;
    let postgres_cpu_seconds = cost::cpu_seconds(&postgres)? - postgres_before;
    let memory_peak_bytes = sampler.end()?.iter().filter_map(|sample| sample.memory[0]).max().unwrap_or_default();
    // The rows with bodies are dropped a day later, at the next look of the worker.
    worker.kill().await?;
    database.execute(A_DAY_LATER).await?;
    worker.start_ready().await?;
    until_moved(chat).await?;
    database.execute("vacuum (analyze) messages").await?;
    let moved = Moved {
        messages: integer(&mut database, PACKS, 0).await?,
        seconds,
        worker_cpu_seconds,
        postgres_cpu_seconds,
        memory_peak_bytes,
        bytes_before,
        bytes_after: bytes_of_tables(&mut database).await?,
        pack_bytes: integer(&mut database, PACKS, 1).await?,
    };
    database.close().await?;
    ensure!(moved.messages > 0, "no body has moved");
    Ok(moved)
}

fn worker(chat: &Chat) -> Result<&Service> {
    chat.fleet().cold().context("the fleet has no cold worker")
}

async fn until_moved(chat: &Chat) -> Result<()> {
    let reported = Cell::new(u64::MAX);
    wait::until("moving bodies into packs", DEADLINE, async || {
        let mut database = chat.database().await?;
        let due = integer(&mut database, &format!("select count(*) from due_cold_steps({WARM_DAYS})"), 0).await?;
        database.close().await?;
        if reported.replace(due) != due {
            terminal::progress(&format!("{due} days have bodies to move"));
        }
        Ok((due == 0).then_some(()))
    })
    .await
}

/// Bytes of the tables and indexes of days whose bodies move.
async fn bytes_of_tables(database: &mut PgConnection) -> Result<u64> {
    let statement = format!(
        "select coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint from pg_inherits
         join message_days on inhrelid::regclass::text = 'messages_' || to_char(day, 'YYYYMMDD')
         where inhparent = 'messages'::regclass and day + {WARM_DAYS} < message_today()"
    );
    integer(database, &statement, 0).await
}

async fn integer(database: &mut PgConnection, statement: &str, column: usize) -> Result<u64> {
    let row = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).fetch_one(database).await?;
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

/// Packs that all pages have read from so far.
pub async fn reads(chat: &Chat) -> Result<f64> {
    chat.counted(READS).await
}

/// Scrolls back through messages whose bodies are in packs, page after page at one gateway. The requests to the store.
pub async fn scroll(chat: &Chat, archive: &Archive, last_cold_seq: u64) -> Result<f64> {
    let http = reqwest::Client::new();
    let Talk { conversation_id, tokens, .. } = archive.talks.first().context("there is no conversation")?;
    let before = reads(chat).await?;
    let mut next = last_cold_seq + 1;
    let end = next.saturating_sub(SCROLLED.min(last_cold_seq));
    while next > end {
        let url = format!(
            "{}/v1/conversations/{}/messages?limit={PAGE}&before={next}",
            chat.fleet().gateway(0).url(),
            conversation_id.as_uuid()
        );
        let page: HistoryPage = http.get(url).bearer_auth(&tokens[0]).send().await?.error_for_status()?.json().await?;
        let first = page.messages.first().context("a page of old messages is empty")?;
        next = first.seq.0;
    }
    Ok(reads(chat).await? - before)
}

impl Moved {
    /// Names, values, units and meanings.
    pub fn figures(&self) -> Vec<(&'static str, f64, &'static str, &'static str)> {
        let of_each = |bytes: u64| number(bytes) / number(self.messages.max(1));
        vec![
            ("bodies moved", number(self.messages), "", "Messages of days that are older than 14 days."),
            ("move lasted", self.seconds, "s", "Packing, reading back, copying the rows and exchanging the tables."),
            ("processor time of the cold worker", self.worker_cpu_seconds, "s", "In that time."),
            ("processor time of PostgreSQL", self.postgres_cpu_seconds, "s", "In that time."),
            (
                "processor time of the cold worker for 10,000,000",
                self.worker_cpu_for_ten_million(),
                "s",
                "At the same cost for each.",
            ),
            ("memory of the cold worker", self.memory_mib(), "MiB", "The most that was seen, once a second."),
            (
                "PostgreSQL bytes per message before",
                of_each(self.bytes_before),
                "",
                "Tables and indexes of these days.",
            ),
            ("PostgreSQL bytes per message after", of_each(self.bytes_after), "", "The same, without bodies."),
            ("bytes per message in packs", of_each(self.pack_bytes), "", "Objects in the store."),
        ]
    }

    /// Processor seconds of the worker for ten million messages.
    pub fn worker_cpu_for_ten_million(&self) -> f64 {
        self.worker_cpu_seconds * 1e7 / number(self.messages.max(1))
    }

    /// The most memory of the worker.
    pub fn memory_mib(&self) -> f64 {
        number(self.memory_peak_bytes) / f64::from(1 << 20)
    }
}
