//! One account uses all that its limits allow, and strangers hold connections with unfinished requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::ids::{ConversationId, MessageId, UserId};
use chat_shared::limits::{GROUP_PARTICIPANTS_MAX, TEXT_BYTES_MAX};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::postgres::nothing_was_refused;
use crate::{
    audit::Check,
    chaos::{
        crowd::Crowd,
        trial::{Scale, Trial},
    },
    fleet::{Fleet, Service},
    person::Person,
};

/// Ids of one request for profiles, and entries of one page.
const PAGE: usize = 100;
/// Unfinished requests that strangers hold at each gateway.
const STRANGERS: usize = 50;
/// Bytes of an unfinished request head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long strangers hold connections before they open others.
const STRANGERS_ROUND: Duration = Duration::from_secs(2);
/// Between a refusal and the next request of the same task: until the rate allows the largest page again.
const REST: Duration = Duration::from_millis(100);
/// Requests of the account in flight at each gateway.
const IN_FLIGHT: usize = 4;
/// Between two lists of conversations that are timed.
const LIST_PACE: Duration = Duration::from_millis(40);
/// How much slower the others may become, in percent.
const SLOWER_MAX: u128 = 150;

/// Gateways refuse nothing to other users. At full length their times must not rise by more than half, either; in a short
/// run several fleets share the processor, so times are printed and not judged.
///
/// The times of each side are the medians of its intervals: one stall of the disk decides nothing.
pub async fn account(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let interval = trial.scale.seconds(10, 3);
    let account = Account::open(&ground.fleet).await?;
    let calm = Intervals::measure(trial, trial.scale.of(6, 1), interval).await?;
    let since = Instant::now();
    trial.fault("one account uses all that its limits allow, and strangers hold connections with unfinished requests");
    let stop = CancellationToken::new();
    let requests = account.use_all(&ground.fleet, &stop);
    let hostile_count = trial.scale.of(12, 3);
    // PostgreSQL lacks the newest messages for a while, so that history reads them from the log.
    let persister = ground.fleet.persister();
    persister.pause()?;
    let freezing = async {
        trial.last(interval * hostile_count / 2).await;
        persister.resume()
    };
    let (hostile, resumed) = tokio::join!(Intervals::measure(trial, hostile_count, interval), freezing);
    resumed?;
    let hostile = hostile?;
    stop.cancel();
    requests.join_all().await;
    nothing_was_refused(trial, since);
    let (used, [accepts, lists]) = (account.used(), slower(&calm, &hostile));
    trial.told.line(&format!(
        "99 of 100 of the others' messages are accepted within {accepts}, and lists within {lists} (medians)"
    ));
    if trial.scale == Scale::Full {
        let slowed = [accepts, lists].into_iter().filter(|change| !change.is_allowed());
        let first = slowed.clone().next().map(|change| change.to_string());
        trial.promise(Check::Slowed, slowed.count(), 2, first);
    }
    let is_felt = used.iter().all(|(_, answered, _)| *answered > 0) && used.iter().any(|(_, _, refused)| *refused > 0);
    let used: Vec<_> = used.iter().map(|(use_, answered, _)| format!("{answered} {}", use_.as_str())).collect();
    trial.bite(is_felt, format!("the account was granted {}, and refused more", used.join(", ")));
    account.leave().await
}

/// A kind of request that the account makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Texts,
    Profiles,
    Conversations,
    Lists,
    History,
}

impl Use {
    const ALL: [Self; 5] = [Self::Texts, Self::Profiles, Self::Conversations, Self::Lists, Self::History];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Texts => "longest messages",
            Self::Profiles => "requests for unknown profiles",
            Self::Conversations => "new groups",
            Self::Lists => "lists",
            Self::History => "pages of history",
        }
    }

    fn request(self, http: &Client, gateway: &str, group: ConversationId) -> RequestBuilder {
        let messages = format!("conversations/{}/messages", group.as_uuid());
        let get = |path: String| http.get(format!("{gateway}/v1/{path}"));
        let post = |path: String, body: Value| http.post(format!("{gateway}/v1/{path}")).json(&body);
        match self {
            Self::Texts => {
                let body = json!({ "message_id": MessageId::random(), "text": "x".repeat(TEXT_BYTES_MAX) });
                post(messages, body)
            }
            Self::Profiles => {
                let ids: Vec<_> = unknown(PAGE).iter().map(|user_id| user_id.as_uuid().to_string()).collect();
                get(format!("profiles?user_ids={}", ids.join(",")))
            }
            Self::Conversations => {
                let body = json!({ "kind": "group", "user_ids": unknown(GROUP_PARTICIPANTS_MAX - 1) });
                post("conversations".to_owned(), body)
            }
            Self::Lists => get(format!("conversations?limit={PAGE}")),
            Self::History => get(format!("{messages}?after=0&limit={PAGE}")),
        }
    }
}

/// Requests of one kind.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
}

/// The account: a device at each gateway, and a group whose others have inboxes and are away.
struct Account {
    devices: Vec<Person>,
    http: Client,
    group: ConversationId,
    counts: Arc<[Counts; Use::ALL.len()]>,
}

impl Account {
    async fn open(fleet: &Fleet) -> Result<Self> {
        let mut away = Vec::with_capacity(GROUP_PARTICIPANTS_MAX - 1);
        for number in 1..GROUP_PARTICIPANTS_MAX {
            let mut person = Person::appear(&format!("flooded-{number}"), fleet.kaha(), urls(fleet)).await?;
            person.leave().await?;
            away.push(person.user_id);
        }
        let mut urls = urls(fleet).into_iter();
        let first = Person::appear("hostile", fleet.kaha(), urls.by_ref().take(1).collect()).await?;
        let group = first.rest()?.create_group(away).await.context("the group of the account")?.conversation_id;
        let mut devices = vec![first];
        for url in urls {
            let mut device = devices[0].other_device();
            device.arrive(vec![url]).await?;
            devices.push(device);
        }
        Ok(Self { devices, http: Client::new(), group, counts: Arc::default() })
    }

    /// Uses everything at all gateways until `stop`.
    fn use_all(&self, fleet: &Fleet, stop: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (device, gateway) in self.devices.iter().zip(fleet.gateways()) {
            for first in 0..IN_FLIGHT {
                let (http, gateway, token) = (self.http.clone(), gateway.url(), device.token().to_owned());
                let (group, counts, stop) = (self.group, Arc::clone(&self.counts), stop.clone());
                tasks.spawn(async move {
                    let uses = Use::ALL.into_iter().enumerate().cycle().skip(first);
                    // Cancel safe: a request that is cut off is not counted.
                    let requests = use_up(uses, &http, &gateway, &token, group, &counts);
                    stop.run_until_cancelled(requests).await;
                });
            }
        }
        for gateway in fleet.gateways() {
            let (address, stop) = (gateway.address(), stop.clone());
            tasks.spawn(async move {
                // Cancel safe: the connections end with it.
                stop.run_until_cancelled(hold_connections(&address)).await;
            });
        }
        tasks
    }

    /// How many requests of each kind were answered and refused.
    fn used(&self) -> Vec<(Use, u64, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let pairs = Use::ALL.into_iter().zip(self.counts.iter());
        pairs.map(|(use_, counts)| (use_, count(&counts.answered), count(&counts.refused))).collect()
    }

    async fn leave(self) -> Result<()> {
        for mut device in self.devices {
            device.leave().await?;
        }
        Ok(())
    }
}

fn urls(fleet: &Fleet) -> Vec<String> {
    fleet.gateways().iter().map(Service::url).collect()
}

fn unknown(count: usize) -> Vec<UserId> {
    (0..count).map(|_| UserId::random()).collect()
}

/// Sends requests of all kinds in turn. Answers are received and not parsed: the account's own work must not slow this
/// process, which measures the others.
async fn use_up(
    uses: impl Iterator<Item = (usize, Use)>,
    http: &Client,
    gateway: &str,
    token: &str,
    group: ConversationId,
    counts: &[Counts; Use::ALL.len()],
) {
    for (place, use_) in uses {
        let answer = async { use_.request(http, gateway, group).bearer_auth(token).send().await?.error_for_status() };
        let is_answered = match answer.await {
            Ok(answer) => answer.bytes().await.is_ok(),
            Err(_) => false,
        };
        if is_answered {
            counts[place].answered.fetch_add(1, Ordering::Relaxed);
        } else {
            counts[place].refused.fetch_add(1, Ordering::Relaxed);
            sleep(REST).await;
        }
    }
}

/// Opens connections with request heads that do not end, again and again.
async fn hold_connections(address: &str) {
    let head = format!("GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nX-Filler: {}", "x".repeat(HEAD_BYTES));
    loop {
        let mut connections = Vec::with_capacity(STRANGERS);
        for _ in 0..STRANGERS {
            // A refused connection costs the gateway less still.
            if let Ok(mut stream) = TcpStream::connect(address).await
                && stream.write_all(head.as_bytes()).await.is_ok()
            {
                connections.push(stream);
            }
        }
        sleep(STRANGERS_ROUND).await;
    }
}

/// The 99th percentiles of one interval: until messages of other users were accepted, and until their lists were answered.
#[derive(Debug, Clone, Copy)]
struct Times {
    accepts: Duration,
    lists: Duration,
}

/// The intervals of one side of the comparison.
#[derive(Debug)]
struct Intervals(Vec<Times>);

impl Intervals {
    async fn measure(trial: &Trial<'_>, count: u32, length: Duration) -> Result<Self> {
        let mut intervals = Self(Vec::new());
        for _ in 0..count {
            intervals.0.push(times_of_others(trial, length).await?);
        }
        Ok(intervals)
    }

    fn median(&self, time: impl Fn(&Times) -> Duration) -> Duration {
        percentile(self.0.iter().map(time).collect(), 50)
    }
}

async fn times_of_others(trial: &Trial<'_>, length: Duration) -> Result<Times> {
    let since = Instant::now();
    let lists = time_lists(trial.crowd, since + length).await?;
    let accepts = trial.load.samples.durations_since(since);
    Ok(Times { accepts: percentile(accepts, 99), lists: percentile(lists, 99) })
}

async fn time_lists(crowd: &Crowd, until: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for device in crowd.people().iter().cycle() {
        let began = Instant::now();
        if began >= until {
            break;
        }
        device.person.rest()?.list_conversations(None, None).await.context("a list of another user")?;
        times.push(began.elapsed());
        sleep(LIST_PACE).await;
    }
    Ok(times)
}

/// A time without and with the account.
#[derive(Debug, Clone, Copy)]
struct Change {
    calm: Duration,
    hostile: Duration,
}

impl Change {
    const fn is_allowed(&self) -> bool {
        self.hostile.as_micros() * 100 <= self.calm.as_micros() * SLOWER_MAX
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (calm, hostile) = (self.calm.as_secs_f64() * 1000.0, self.hostile.as_secs_f64() * 1000.0);
        write!(f, "{hostile:.1} ms instead of {calm:.1} ms")
    }
}

fn slower(calm: &Intervals, hostile: &Intervals) -> [Change; 2] {
    let change = |time: fn(&Times) -> Duration| Change { calm: calm.median(time), hostile: hostile.median(time) };
    [change(|times| times.accepts), change(|times| times.lists)]
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}
