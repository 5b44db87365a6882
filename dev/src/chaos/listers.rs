//! People who change a group and look at once what the other gateway lists, and others who are pushed the change and look
//! then. Beside them some only read. No request is repeated.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use chat_client::ids::{ConversationId, UserId};
use chat_shared::wire::{Conversation, ConversationPage};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Diary,
    fleet::{Fleet, Service},
    person::Person,
};

/// Pairs of somebody who changes a group and somebody who is pushed that.
const PAIRS: usize = 2;
/// Those who only read.
const READERS: usize = 4;
/// Between two changes of a pair.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);
/// Between two rounds of a reader.
const READ_PAUSE: Duration = Duration::from_millis(15);
/// How long an answer may take; longer than a gateway takes to say that PostgreSQL is away.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a push may take.
const PUSHED_DEADLINE: Duration = Duration::from_secs(20);
/// Messages that the readers' group has.
const MESSAGES: usize = 30;

/// What they saw so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Lists after an own change or a push.
    pub lists: usize,
    /// What the first ones lacked that were from before it, and how many there were.
    pub stale: Vec<String>,
    /// Requests.
    pub requests: usize,
    /// Those that were not answered as they have to be.
    pub refused: Vec<String>,
    /// When requests for lists and history began, and how long each took.
    pub reads: Vec<(Instant, Duration)>,
}

/// All of them, at work.
#[derive(Debug)]
pub struct Listers {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _people: Vec<Person>,
}

/// Somebody's requests.
#[derive(Debug, Clone)]
struct Caller {
    http: reqwest::Client,
    gateways: Vec<String>,
    token: String,
    user_id: UserId,
    seen: Arc<Mutex<Seen>>,
}

impl Listers {
    /// Begins.
    pub async fn start(fleet: &Fleet) -> Result<Self> {
        let gateways: Vec<_> = fleet.gateways().iter().map(Service::url).collect();
        let (seen, stop) = (Arc::new(Mutex::default()), CancellationToken::new());
        let (mut tasks, mut people) = (JoinSet::new(), Vec::new());
        let caller = |person: &Person| Caller {
            http: reqwest::Client::new(),
            gateways: gateways.clone(),
            token: person.token().to_owned(),
            user_id: person.user_id,
            seen: Arc::clone(&seen),
        };
        for number in 0..PAIRS {
            let mut appear = Vec::new();
            for role in ["owner", "member", "friend"] {
                let mut urls = gateways.clone();
                urls.rotate_left((number + 1) % gateways.len());
                appear.push(Person::appear(&format!("{role}-{number}"), fleet.kaha(), urls).await?);
            }
            let pair = Pair {
                owner: caller(&appear[0]),
                member: caller(&appear[1]),
                friend: appear[2].user_id,
                diary: appear[1].follow(),
            };
            tasks.spawn(pair.change(stop.clone()));
            people.append(&mut appear);
        }
        let mut readers = Vec::new();
        for number in 0..READERS {
            readers.push(Person::appear(&format!("reader-{number}"), fleet.kaha(), gateways.clone()).await?);
        }
        let (first, others) = readers.split_first().context("there are readers")?;
        let group = first.rest()?.create_group(others.iter().map(|reader| reader.user_id)).await?.conversation_id;
        for number in 0..MESSAGES {
            first.client()?.send(group, format!("message {number}")).await?;
        }
        for reader in &readers {
            tasks.spawn(caller(reader).read(group, stop.clone()));
        }
        people.append(&mut readers);
        Ok(Self { seen, stop, tasks, _people: people })
    }

    /// Lets them end what they have begun; what they saw.
    pub async fn stop(mut self) -> Seen {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *lock(&self.seen))
    }
}

/// One who changes a group, and one whom that concerns.
struct Pair {
    owner: Caller,
    member: Caller,
    friend: UserId,
    diary: watch::Receiver<Diary>,
}

impl Pair {
    async fn change(mut self, stop: CancellationToken) {
        for turn in 0_usize.. {
            if stop.is_cancelled() || self.round(turn).await.is_none() {
                return;
            }
            sleep(CHANGE_PAUSE).await;
        }
    }

    /// A group is made, a user added and removed. None if something went so wrong that it is known.
    async fn round(&mut self, turn: usize) -> Option<()> {
        let (here, there) = (turn, turn + 1);
        let (owner, member_id) = (self.owner.clone(), self.member.user_id);
        let body = json!({ "kind": "group", "user_ids": [self.friend.as_uuid()] });
        let made = owner.ask(here, Method::POST, "conversations", Some(body), 201).await?;
        let group = serde_json::from_value::<Conversation>(made).ok()?.conversation_id;
        owner.lists(there, group, Some(1), "a group that the user made").await?;

        let path = format!("conversations/{}/participants", group.as_uuid());
        let body = json!({ "user_ids": [member_id.as_uuid()] });
        owner.ask(here, Method::POST, &path, Some(body), 200).await?;
        owner.lists(there, group, Some(2), "a user whom the user added").await?;
        self.is_pushed(group, true).await?;
        self.member.lists(there, group, Some(2), "a group after the push of it").await?;

        owner.ask(here, Method::DELETE, &format!("{path}/{}", member_id.as_uuid()), None, 204).await?;
        owner.lists(there, group, Some(3), "a removal by the user").await?;
        self.is_pushed(group, false).await?;
        self.member.lists(there, group, None, "a removal after the push of it").await
    }

    async fn is_pushed(&mut self, group: ConversationId, is_in: bool) -> Option<()> {
        let member = self.member.user_id;
        let is_told = self.diary.wait_for(|diary| diary.takes_part(group, member) == Some(is_in));
        if timeout(PUSHED_DEADLINE, is_told).await.is_ok_and(|told| told.is_ok()) {
            return Some(());
        }
        lock(&self.member.seen).refused.push("a change was not pushed in time".to_owned());
        None
    }
}

impl Caller {
    /// Reads the list, the unread total and history, at one gateway after the other.
    async fn read(self, group: ConversationId, stop: CancellationToken) {
        let history = format!("conversations/{}/messages?limit=20", group.as_uuid());
        for turn in 0_usize.. {
            for path in ["conversations?limit=20", "unread", &history] {
                let began = Instant::now();
                self.ask(turn, Method::GET, path, None, 200).await;
                lock(&self.seen).reads.push((began, began.elapsed()));
            }
            if stop.run_until_cancelled(sleep(READ_PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// Looks whether the list has a group with at least a version, or has it no more.
    async fn lists(&self, gateway: usize, group: ConversationId, version: Option<u64>, what: &str) -> Option<()> {
        let answer = self.ask(gateway, Method::GET, "conversations?limit=50", None, 200).await?;
        let page = serde_json::from_value::<ConversationPage>(answer).ok()?;
        let listed = page.conversations.iter().find(|conversation| conversation.conversation_id == group);
        let is_right = match (version, listed) {
            (Some(version), Some(listed)) => listed.version >= version,
            (None, None) => true,
            _ => false,
        };
        let mut seen = lock(&self.seen);
        seen.lists += 1;
        if !is_right {
            seen.stale.push(format!("the list lacks {what}"));
        }
        Some(())
    }

    /// Asks once, at the gateway whose turn it is. None if the answer has another status, which is noted.
    async fn ask(&self, turn: usize, method: Method, path: &str, body: Option<Value>, status: u16) -> Option<Value> {
        let url = format!("{}/v1/{path}", self.gateways[turn % self.gateways.len()]);
        let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token).timeout(ANSWER_WAIT_MAX);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await;
        lock(&self.seen).requests += 1;
        let found = match &answer {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        };
        if found != status {
            // Not the path, which has ids.
            lock(&self.seen).refused.push(format!("{method} was answered {found} instead of {status}"));
            return None;
        }
        let answer = answer.ok()?;
        Some(if status == 204 { Value::Null } else { answer.json().await.ok()? })
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
