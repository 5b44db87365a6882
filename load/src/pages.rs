//! Readers of pages of history, at a rate that doesn't wait for answers. A process of their own, since checking pages
//! takes about as long as making them.

use std::{
    collections::BTreeMap,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chat_shared::wire::HistoryPage;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime,
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};
use uuid::Uuid;

use crate::histogram::Histogram;

/// Pages without an answer, at the most; one more counts as an error.
pub const PAGES_IN_FLIGHT_MAX: usize = 1000;
/// How long a page may take.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);

/// What readers do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PagesPlan {
    /// Addresses of gateways, as `http://…`.
    pub gateways: Vec<String>,
    /// What is read, in turns.
    pub talks: Vec<PagesTalk>,
    /// Messages of each conversation. The text of each names its number, between a blank and a comma.
    pub last_seq: u64,
    /// Where pages begin.
    pub depth: Depth,
    /// Messages of a page.
    pub limit: u64,
    /// Pages a second.
    pub per_second: u32,
    /// For so long, before it counts.
    pub warm_up: Duration,
    /// For how long.
    pub length: Duration,
}

/// A conversation to be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PagesTalk {
    /// Its id.
    pub conversation_id: Uuid,
    /// Of its participants, who take turns.
    pub tokens: Vec<String>,
}

/// Where pages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// With the last message, as when a conversation is opened.
    Newest,
    /// Anywhere in the conversation, as when somebody searches or scrolls far.
    Anywhere,
    /// Anywhere up to the message with this number.
    Until(u64),
}

/// What the process says, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PagesLine {
    /// From now on it counts.
    Warm,
    /// What came of it.
    Done(Box<Pages>),
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pages {
    /// From when a page was due until it was there and checked.
    pub waits: Histogram,
    /// How much later than due pages were asked for.
    pub lateness: Histogram,
    /// Messages that were shown.
    pub rows: u64,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
}

/// Does what a plan says.
///
/// # Errors
/// If the plan makes no sense. Pages that fail are counted.
pub fn run(plan: &PagesPlan) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let http = reqwest::Client::builder().timeout(PAGE_DEADLINE).build()?;
        read(plan, &http, plan.warm_up).await?;
        say(&PagesLine::Warm)?;
        say(&PagesLine::Done(Box::new(read(plan, &http, plan.length).await?)))
    })
}

fn say(line: &PagesLine) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Reads pages of all conversations in turns, at all gateways.
async fn read(plan: &PagesPlan, http: &reqwest::Client, length: Duration) -> Result<Pages> {
    let (sender, mut dues) = mpsc::channel(PAGES_IN_FLIGHT_MAX);
    let per_second = plan.per_second;
    let pacer = spawn_blocking(move || keep_pace(per_second, length, &sender));
    let mut pages = Pages::default();
    let mut reading: JoinSet<Result<Page>> = JoinSet::new();
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
                let request = Request::new(plan, number)?;
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
fn keep_pace(per_second: u32, length: Duration, dues: &mpsc::Sender<Instant>) {
    let began = Instant::now();
    let count = u64::from(per_second) * length.as_secs();
    for number in 0..count {
        let due = began + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / per_second;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if dues.blocking_send(due).is_err() {
            return;
        }
    }
}

impl Pages {
    fn count(&mut self, page: Result<Page>) {
        match page {
            Ok(Page { rows, late, waited }) => {
                self.rows += rows;
                self.lateness.record(micros(late));
                self.waits.record(micros(waited));
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
    late: Duration,
    waited: Duration,
}

fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

struct Request {
    url: String,
    token: String,
    /// The numbers that the page is to show.
    expected: std::ops::RangeInclusive<u64>,
}

impl Request {
    fn new(plan: &PagesPlan, number: usize) -> Result<Self> {
        let &PagesPlan { last_seq, limit, .. } = plan;
        let talk = plan.talks.get(number % plan.talks.len().max(1)).context("the plan names no conversation")?;
        // Each conversation's participants take turns, since one alone may not ask so often; and so do the gateways.
        let turn = number / plan.talks.len();
        let token = talk.tokens.get(turn % talk.tokens.len().max(1)).context("the plan names nobody who reads")?;
        let gateway = plan.gateways.get(number % plan.gateways.len().max(1)).context("the plan names no gateway")?;
        let anywhere = |until: u64| {
            let last = rand::rng().random_range(limit.min(until)..=until);
            (format!("&before={}", last + 1), last)
        };
        let (before, last) = match plan.depth {
            Depth::Newest => (String::new(), last_seq),
            Depth::Anywhere => anywhere(last_seq),
            Depth::Until(until) => anywhere(until.min(last_seq)),
        };
        Ok(Self {
            url: format!("{gateway}/v1/conversations/{}/messages?limit={limit}{before}", talk.conversation_id),
            token: token.clone(),
            expected: last.saturating_sub(limit) + 1..=last,
        })
    }

    async fn send(self, http: reqwest::Client, due: Instant) -> Result<Page> {
        let late = due.elapsed();
        let rows = self.page(&http).await?;
        Ok(Page { rows, late, waited: due.elapsed() })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(depth: Depth, last_seq: u64) -> PagesPlan {
        let tokens = vec!["one".to_owned(), "other".to_owned()];
        PagesPlan {
            gateways: vec!["http://a".to_owned(), "http://b".to_owned()],
            talks: vec![PagesTalk { conversation_id: Uuid::nil(), tokens }],
            last_seq,
            depth,
            limit: 50,
            per_second: 1,
            warm_up: Duration::ZERO,
            length: Duration::ZERO,
        }
    }

    #[test]
    fn the_newest_page_ends_with_the_last_message() {
        let request = Request::new(&plan(Depth::Newest, 1000), 0).unwrap();
        assert_eq!(request.expected, 951..=1000);
        assert!(request.url.ends_with("/messages?limit=50"), "{}", request.url);
        assert_eq!(Request::new(&plan(Depth::Newest, 20), 0).unwrap().expected, 1..=20);
    }

    #[test]
    fn pages_from_anywhere_are_full_and_within_the_conversation() {
        for (depth, last_seq) in [(Depth::Anywhere, 60), (Depth::Until(60), 1000)] {
            for number in 0..1000 {
                let expected = Request::new(&plan(depth, last_seq), number).unwrap().expected;
                assert!(*expected.start() >= 1 && *expected.end() <= 60, "{expected:?}");
                assert_eq!(expected.count(), 50);
            }
        }
    }

    #[test]
    fn readers_and_gateways_take_turns() {
        let requests: Vec<Request> = (0..2).map(|at| Request::new(&plan(Depth::Newest, 9), at).unwrap()).collect();
        assert_eq!(requests.iter().map(|request| request.token.as_str()).collect::<Vec<_>>(), ["one", "other"]);
        assert!(requests[0].url.starts_with("http://a") && requests[1].url.starts_with("http://b"));
    }
}
