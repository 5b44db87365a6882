//! One account uses all that its limits allow, and strangers hold connections with unfinished requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::{
    HistoryRange, Rest, RestError,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::SendMessageBody,
};
use chat_shared::limits::{GROUP_PARTICIPANTS_MAX, TEXT_BYTES_MAX};
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
/// The longest rest of the account after a refusal.
const REST_MAX: Duration = Duration::from_millis(500);
/// Between two lists of conversations that are timed.
const LIST_PACE: Duration = Duration::from_millis(40);
/// How much slower the others may become, in percent.
const SLOWER_MAX: u128 = 150;

/// Gateways refuse nothing to other users. At full length their times must not rise by more than half, either; in a short
/// run several fleets share the processor, so times are printed and not judged.
pub async fn account(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let (calm, hostile) = (trial.scale.seconds(60, 3), trial.scale.seconds(120, 9));
    let account = Account::open(&ground.fleet).await?;
    let before = times_of_others(trial, calm).await?;
    let since = Instant::now();
    trial.fault("one account uses all that its limits allow, and strangers hold connections with unfinished requests");
    let stop = CancellationToken::new();
    let greedy = account.use_all(&ground.fleet, &stop)?;
    // PostgreSQL lacks the newest messages for a while, so that history reads them from the log.
    let persister = ground.fleet.persister();
    persister.pause()?;
    let freezing = async {
        trial.last(hostile / 2).await;
        persister.resume()
    };
    let (during, resumed) = tokio::join!(times_of_others(trial, hostile), freezing);
    resumed?;
    let during = during?;
    stop.cancel();
    greedy.join_all().await;
    nothing_was_refused(trial, since);
    let (used, [accepts, lists]) = (account.used(), slower(&before, &during));
    trial
        .told
        .line(&format!("99 of 100 of the others' messages are accepted within {accepts}, and lists within {lists}"));
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

    async fn once(self, rest: &Rest, group: ConversationId) -> Result<(), RestError> {
        match self {
            Self::Texts => {
                let text = "x".repeat(TEXT_BYTES_MAX);
                let body = SendMessageBody { message_id: MessageId::random(), text, is_repeat: false };
                rest.send_message(group, &body).await.map(drop)
            }
            Self::Profiles => rest.profiles(&unknown(PAGE), &[]).await.map(drop),
            Self::Conversations => rest.create_group(unknown(GROUP_PARTICIPANTS_MAX - 1)).await.map(drop),
            Self::Lists => rest.list_conversations(Some(PAGE), None).await.map(drop),
            Self::History => rest.history(group, HistoryRange::After(Seq(0)), Some(PAGE)).await.map(drop),
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
        Ok(Self { devices, group, counts: Arc::default() })
    }

    /// Uses everything at all gateways until `stop`.
    fn use_all(&self, fleet: &Fleet, stop: &CancellationToken) -> Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        for device in &self.devices {
            for (place, use_) in Use::ALL.into_iter().enumerate() {
                let (rest, group, counts, stop) =
                    (device.rest()?.clone(), self.group, Arc::clone(&self.counts), stop.clone());
                tasks.spawn(async move {
                    // Cancel safe: what is cut off has no outcome that counts.
                    stop.run_until_cancelled(use_up(use_, &rest, group, &counts[place])).await;
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
        Ok(tasks)
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

async fn use_up(use_: Use, rest: &Rest, group: ConversationId, counts: &Counts) {
    loop {
        match use_.once(rest, group).await {
            Ok(()) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                sleep(error.retry_after().unwrap_or(REST_MAX).min(REST_MAX)).await;
            }
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

/// Times until messages of other users were accepted, and until their lists were answered.
struct Times {
    accepts: Vec<Duration>,
    lists: Vec<Duration>,
}

async fn times_of_others(trial: &Trial<'_>, length: Duration) -> Result<Times> {
    let since = Instant::now();
    let lists = time_lists(trial.crowd, since + length).await?;
    Ok(Times { accepts: trial.load.samples.durations_since(since), lists })
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

/// The 99th percentile of a time, before and during.
#[derive(Debug, Clone, Copy)]
struct Change {
    before: Duration,
    during: Duration,
}

impl Change {
    const fn is_allowed(&self) -> bool {
        self.during.as_micros() * 100 <= self.before.as_micros() * SLOWER_MAX
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (before, during) = (self.before.as_secs_f64() * 1000.0, self.during.as_secs_f64() * 1000.0);
        write!(f, "{during:.1} ms instead of {before:.1} ms")
    }
}

fn slower(before: &Times, during: &Times) -> [Change; 2] {
    [
        Change { before: percentile(&before.accepts), during: percentile(&during.accepts) },
        Change { before: percentile(&before.lists), during: percentile(&during.lists) },
    ]
}

/// The 99th percentile.
fn percentile(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}
