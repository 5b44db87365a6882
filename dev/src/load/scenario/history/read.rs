//! Readers of pages, at a rate that doesn't wait for answers.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chat_client::wire::HistoryPage;
use chat_load::histogram::Histogram;
use rand::RngExt;
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};

use super::fill::Archive;

/// Pages without an answer, at the most; one more counts as an error.
const PAGES_IN_FLIGHT_MAX: usize = 1000;
/// How long a page may take.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);

/// Where pages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// With the last message, as when a conversation is opened.
    Newest,
    /// Anywhere in the conversation, as when somebody searches or scrolls far.
    Anywhere,
}

/// How pages are read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Pages a second.
    pub per_second: u32,
    /// For how long.
    pub length: Duration,
    /// Messages of a page.
    pub limit: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Pages {
    /// From when a page was due until it was there and checked.
    pub waits: Histogram,
    /// Messages that were shown.
    pub rows: u64,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
}

/// Reads pages of all conversations in turns, at all gateways.
///
/// # Errors
/// If the client can't be made. Pages that fail are counted.
pub async fn read(gateways: &[String], archive: &Archive, depth: Depth, pace: Pace) -> Result<Pages> {
    let http = reqwest::Client::builder().timeout(PAGE_DEADLINE).build()?;
    let (sender, mut dues) = mpsc::channel(PAGES_IN_FLIGHT_MAX);
    let pacer = spawn_blocking(move || keep_pace(pace, &sender));
    let mut pages = Pages::default();
    let mut reading: JoinSet<Result<Page>> = JoinSet::new();
    let gateways: Vec<Arc<str>> = gateways.iter().map(|url| Arc::from(url.as_str())).collect();
    let mut number = 0;
    loop {
        tokio::select! {
            // Both are cancel safe.
            due = dues.recv() => {
                let Some(due) = due else { break };
                if reading.len() >= PAGES_IN_FLIGHT_MAX {
                    pages.fail("too many pages were without an answer");
                    continue;
                }
                let request = Request::new(&gateways, archive, depth, pace.limit, number)?;
                reading.spawn(request.send(http.clone(), due));
                number += 1;
            }
            Some(read) = reading.join_next() => pages.count(read?),
        }
    }
    while let Some(read) = reading.join_next().await {
        pages.count(read?);
    }
    pacer.await?;
    Ok(pages)
}

/// On a thread of its own, whose sleep is exact to a few dozen microseconds; timers of the runtime are not.
fn keep_pace(pace: Pace, dues: &mpsc::Sender<Instant>) {
    let began = Instant::now();
    let count = u64::from(pace.per_second) * pace.length.as_secs();
    for number in 0..count {
        let due = began + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / pace.per_second;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if dues.blocking_send(due).is_err() {
            return;
        }
    }
}

impl Pages {
    fn count(&mut self, page: Result<Page>) {
        match page {
            Ok(Page { rows, waited }) => {
                self.rows += rows;
                self.waits.record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn fail(&mut self, reason: &str) {
        *self.errors.entry(reason.to_owned()).or_default() += 1;
    }
}

/// A page that was right.
struct Page {
    rows: u64,
    waited: Duration,
}

struct Request {
    url: String,
    token: String,
    /// The numbers that the page is to show.
    expected: std::ops::RangeInclusive<u64>,
}

impl Request {
    fn new(gateways: &[Arc<str>], archive: &Archive, depth: Depth, limit: u64, number: usize) -> Result<Self> {
        let talk = archive.talks.get(number % archive.talks.len().max(1)).context("there is no conversation")?;
        // Each conversation's participants take turns, since one alone may not ask so often; and so do the gateways.
        let turn = number / archive.talks.len();
        let gateway = gateways.get(number % gateways.len().max(1)).context("there is no gateway")?;
        let (before, last) = match depth {
            Depth::Newest => (String::new(), archive.last_seq),
            Depth::Anywhere => {
                let before = rand::rng().random_range(limit.min(archive.last_seq) + 1..=archive.last_seq + 1);
                (format!("&before={before}"), before - 1)
            }
        };
        let id = talk.conversation_id.as_uuid();
        Ok(Self {
            url: format!("{gateway}/v1/conversations/{id}/messages?limit={limit}{before}"),
            token: talk.tokens[turn % talk.tokens.len()].clone(),
            expected: last.saturating_sub(limit) + 1..=last,
        })
    }

    async fn send(self, http: reqwest::Client, due: Instant) -> Result<Page> {
        let rows = self.page(&http).await?;
        Ok(Page { rows, waited: due.elapsed() })
    }

    /// How many messages it had.
    async fn page(&self, http: &reqwest::Client) -> Result<u64> {
        let answer = http.get(&self.url).bearer_auth(&self.token).send().await.context("no answer to a page")?;
        ensure!(answer.status().is_success(), "a page was answered with {}", answer.status().as_u16());
        let page: HistoryPage = answer.json().await.context("a page can't be read")?;
        let is_whole = page.messages.iter().map(|message| message.seq.0).eq(self.expected.clone());
        ensure!(is_whole, "a page did not show what it should");
        let is_open = page.messages.iter().all(|message| message.text.contains(&format!(" {},", message.seq.0)));
        ensure!(is_open, "a page showed other texts than were sealed");
        Ok(page.messages.len() as u64)
    }
}
