//! A business on this backend: agents that answer its customers, requests of customers, and what PostgreSQL says of its cases.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use chat_client::{
    Client, ClientOptions, Event, Events, RestError,
    ids::{BusinessId, ConversationId, DeviceId, MessageId, UserId},
    wire::{
        CaseState, Conversation, ConversationKind, CreateConversation, NotificationAddress, Participant,
        RegisterDevice, SendMessageBody, SetStatus, StaffRole, StaffStatus,
    },
};
use rand::RngExt;
use reqwest::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Row, postgres::PgRow};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    chat::{Chat, seat},
    run::number,
};
use crate::{fleet::Service, kaha::SCOPE_BUSINESSES, push_services::APP_IDS};

/// What agents write. The load generator counts messages that begin with numbers, and none of these.
const ANSWER: &str = "Good morning, how can I help you?";
/// What customers write that are no clients of the load generator.
const QUESTION: &str = "Good morning, do you have tea from Ilam?";
/// Cases that an agent has at a time: the default of businesses.
pub const CAPACITY: u32 = 5;
/// Before a request that was refused or not answered is repeated.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a request of a customer is repeated.
const REQUEST_DEADLINE: Duration = Duration::from_mins(1);
/// Requests that are on their way at the same time while a run is prepared.
const PREPARED_MAX: usize = 16;
/// An agent that changes its status stays available, and then away, for a random time up to these.
const AVAILABLE_MAX: Duration = Duration::from_secs(6);
const AWAY_MAX: Duration = Duration::from_secs(1);
/// Of so many cases that an unsteady agent gets it gives one back.
const GIVEN_BACK_OF: u32 = 10;

/// How agents work.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// From getting a case until the answer, after which the case is resolved.
    pub answers_after: Duration,
    /// Agents go away and come back all the time, and give cases back.
    pub is_unsteady: bool,
}

/// A business whose agents are connected.
#[derive(Debug)]
pub struct Desk {
    /// Its id.
    pub business_id: BusinessId,
    gateways: Vec<String>,
    http: reqwest::Client,
    agents: Vec<Agent>,
    is_over: Arc<AtomicBool>,
    working: JoinSet<()>,
}

/// A member of the staff.
#[derive(Debug, Clone)]
struct Agent {
    business_id: BusinessId,
    user_id: UserId,
    client: Client,
    manner: Manner,
}

/// A user that writes to the business.
#[derive(Debug, Clone)]
pub struct Customer {
    user: (UserId, String),
    gateway: usize,
}

impl Desk {
    /// A new business with so many agents, who are connected to all gateways in turns, have a device registered, and are away.
    pub async fn open(chat: &Chat, agents: usize, manner: Manner) -> Result<Self> {
        let business_id = BusinessId::random();
        let users = (0..agents).map(|_| chat.user()).collect::<Result<Vec<_>>>()?;
        let staff: Vec<_> = users.iter().map(|(user_id, _)| (user_id.as_uuid(), StaffRole::Agent)).collect();
        let internal = chat.fleet().gateway(0).internal_url();
        chat.fleet().kaha().push_staff(&internal, business_id.as_uuid(), 1, &staff).await?;
        let mut desk = Self {
            business_id,
            gateways: chat.fleet().gateways().iter().map(Service::url).collect(),
            http: reqwest::Client::new(),
            agents: Vec::with_capacity(agents),
            is_over: Arc::default(),
            working: JoinSet::new(),
        };
        for (number, (user_id, token)) in users.into_iter().enumerate() {
            let mut gateways = desk.gateways.clone();
            gateways.rotate_left(number % desk.gateways.len());
            let (client, events) = Client::connect(ClientOptions::new(gateways, token)).await?;
            let address = NotificationAddress::Fcm { token: format!("{:064x}", rand::random::<u128>()) };
            let device = RegisterDevice { address, app_id: APP_IDS[0].to_owned(), locale: None };
            client.rest().register_device(DeviceId::random(), &device).await?;
            let agent = Agent { business_id, user_id, client, manner };
            desk.working.spawn(agent.clone().serve(events));
            desk.agents.push(agent);
        }
        Ok(desk)
    }

    /// Makes all agents available. Unsteady ones begin to go away and to come back.
    pub async fn begin(&mut self) -> Result<()> {
        for agent in &self.agents {
            agent.set_status(StaffStatus::Available).await?;
            if agent.manner.is_unsteady {
                self.working.spawn(agent.clone().waver(Arc::clone(&self.is_over)));
            }
        }
        Ok(())
    }

    /// Agents go away no more.
    pub fn calm(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Waits until agents have resolved all cases, for a minute at most. The number of cases that are open then.
    pub async fn until_resolved(&self, chat: &Chat) -> Result<u64> {
        let business_id = self.business_id.as_uuid();
        let question =
            format!("select count(*) from cases where business_id = '{business_id}' and state <> 'resolved'");
        let deadline = Instant::now() + REQUEST_DEADLINE;
        loop {
            let open = ask(chat, question.clone()).await?.try_get::<i64, _>(0)?.unsigned_abs();
            if open == 0 || Instant::now() > deadline {
                return Ok(open);
            }
            sleep(PAUSE).await;
        }
    }

    /// Opens or closes the business, as kaha-main-v3 does. Closing resolves all cases.
    pub async fn set_open(&self, chat: &Chat, is_open: bool) -> Result<()> {
        let url =
            format!("{}/internal/v1/businesses/{}", chat.fleet().gateway(0).internal_url(), self.business_id.as_uuid());
        let token = chat.fleet().kaha().service_tokens().token(&[SCOPE_BUSINESSES])?;
        let deadline = Instant::now() + REQUEST_DEADLINE;
        loop {
            // A request that took too long is repeated, and goes on where it stopped.
            let answer = self.http.put(&url).bearer_auth(&token).json(&json!({ "is_open": is_open })).send().await?;
            if answer.status() == StatusCode::NO_CONTENT {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the business is not opened or closed: {}", answer.status());
            sleep(PAUSE).await;
        }
    }

    /// New users, who take turns at the gateways.
    pub fn customers(&self, chat: &Chat, count: usize) -> Result<Vec<Customer>> {
        let customer = |number| Ok(Customer { user: chat.user()?, gateway: number % self.gateways.len() });
        (0..count).map(customer).collect()
    }

    /// Makes the conversations of customers, whose cases are resolved then: the next message of each opens a case. Returns the
    /// customers as clients of the load generator.
    pub async fn seats(&self, chat: &Chat, customers: &[Customer]) -> Result<Vec<chat_load::plan::Seat>> {
        let mut seats = Vec::with_capacity(customers.len());
        for some in customers.chunks(PREPARED_MAX) {
            let made = some.iter().map(async |customer| {
                let id = self.contact(customer).await?;
                anyhow::Ok(seat(customer.user.clone(), id.as_uuid().to_string(), customer.gateway))
            });
            seats.extend(futures_util::future::try_join_all(made).await?);
        }
        self.set_open(chat, false).await?;
        self.set_open(chat, true).await?;
        Ok(seats)
    }

    /// The conversation of a customer with the business. A new one has its first case.
    pub async fn contact(&self, customer: &Customer) -> Result<ConversationId> {
        let create = CreateConversation::Business { business_id: self.business_id };
        let made: Conversation = self.ask(customer, "conversations", |_| json!(create)).await?;
        Ok(made.conversation_id)
    }

    /// Sends a message of a customer.
    pub async fn write(&self, customer: &Customer, id: ConversationId) -> Result<()> {
        let (message_id, path) = (MessageId::random(), format!("conversations/{}/messages", id.as_uuid()));
        let message = |is_repeat| SendMessageBody { message_id, text: QUESTION.to_owned(), is_repeat, seen_seq: None };
        self.ask::<serde_json::Value, _>(customer, &path, message).await.map(drop)
    }

    /// A request of a customer, repeated at the next gateway while none carries it out. `body` is told whether it is a repeat.
    async fn ask<T: DeserializeOwned, B: Serialize>(
        &self,
        customer: &Customer,
        path: &str,
        body: impl Fn(bool) -> B,
    ) -> Result<T> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        for attempt in 0.. {
            let gateway = &self.gateways[(customer.gateway + attempt) % self.gateways.len()];
            let request = self.http.post(format!("{gateway}/v1/{path}")).bearer_auth(&customer.user.1);
            let failure = match request.json(&body(attempt > 0)).send().await {
                Ok(answer) if answer.status().is_success() => match answer.json().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error.to_string(),
                },
                Ok(answer) => {
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_default();
                    ensure!(
                        status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
                        "{path}: {status} {text}"
                    );
                    format!("{status} {text}")
                }
                Err(error) => error.to_string(),
            };
            ensure!(Instant::now() < deadline, "{path} is not answered: {failure}");
            sleep(PAUSE).await;
        }
        unreachable!("attempts have no end")
    }
}

impl Agent {
    /// Answers each case that the agent gets, and resolves it.
    async fn serve(self, mut events: Events) {
        let mut cases = JoinSet::new();
        // A later version of a conversation may be another assignment of it.
        let mut known = HashMap::new();
        while let Some(event) = events.next().await {
            while cases.try_join_next().is_some() {}
            let assigned: Vec<_> = match event {
                Event::Conversation(changed) => {
                    let state = changed.case.map(|case| case.state);
                    let is_mine = changed.kind == ConversationKind::Business && self.has(state, &changed.participants);
                    is_mine.then_some((changed.conversation_id, changed.version)).into_iter().collect()
                }
                Event::Reloaded(list) => {
                    let is_mine =
                        |listed: &&Conversation| self.has(listed.case.map(|case| case.state), &listed.participants);
                    list.iter().filter(is_mine).map(|listed| (listed.conversation_id, listed.version)).collect()
                }
                _ => continue,
            };
            for (id, version) in assigned {
                if known.insert(id, version).is_none_or(|before| before < version) {
                    cases.spawn(self.clone().answer(id));
                }
            }
        }
    }

    fn has(&self, state: Option<CaseState>, participants: &[Participant]) -> bool {
        state == Some(CaseState::Assigned) && participants.iter().any(|participant| participant.user_id == self.user_id)
    }

    /// Whatever is refused belongs to another agent by now.
    async fn answer(self, id: ConversationId) {
        sleep(self.manner.answers_after).await;
        if self.manner.is_unsteady && rand::rng().random_ratio(1, GIVEN_BACK_OF) {
            return until_answered(|| self.client.rest().give_back(id)).await;
        }
        let Ok(accepted) = self.client.send(id, ANSWER).await else { return };
        until_answered(|| self.client.rest().resolve(id, accepted.seq)).await;
    }

    async fn set_status(&self, status: StaffStatus) -> Result<(), RestError> {
        let status = SetStatus { status, until: None, gives_back: false };
        self.client.rest().set_status(self.business_id, &status).await
    }

    /// Goes away and comes back until it is over.
    async fn waver(self, is_over: Arc<AtomicBool>) {
        while !is_over.load(Ordering::Relaxed) {
            sleep(AVAILABLE_MAX.mul_f64(rand::random())).await;
            until_answered(|| self.set_status(StaffStatus::Away)).await;
            sleep(AWAY_MAX.mul_f64(rand::random())).await;
            until_answered(|| self.set_status(StaffStatus::Available)).await;
        }
    }
}

/// Repeats a request until a gateway has carried it out or refused it for good.
async fn until_answered<F: Future<Output = Result<(), RestError>>>(request: impl Fn() -> F) {
    loop {
        match request().await {
            Err(RestError::Refused { status, .. }) if status < 500 && status != 429 => return,
            Ok(()) => return,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// How the cases of a business went, by the ledger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ledger {
    /// Assignments.
    pub assignments: u64,
    /// From the first to the last of them.
    pub seconds: f64,
    /// From the message or the request that opened the case until its first assignment: half of the cases, in milliseconds.
    pub waited_p50_ms: f64,
    /// The same, 99 of 100.
    pub waited_p99_ms: f64,
    /// Cases that no agent has resolved.
    pub open: u64,
}

impl Ledger {
    /// Assignments a second.
    pub fn per_second(&self) -> f64 {
        number(self.assignments) / self.seconds.max(0.001)
    }

    /// Of the cases that opened since.
    pub async fn read(chat: &Chat, business_id: BusinessId, since: &str) -> Result<Self> {
        let business_id = business_id.as_uuid();
        let row = ask(
            chat,
            format!(
                "with firsts as (
                     select distinct on (a.conversation_id, a.case_number) a.assigned_at,
                         coalesce(m.sent_at, k.opened_at) as asked_at
                     from assignments a join cases k using (conversation_id)
                     left join lateral (
                         select max(sent_at) as sent_at from messages m
                         where m.conversation_id = a.conversation_id and m.sender_id = k.customer_id
                             and m.sent_at <= k.opened_at and m.sent_at >= '{since}'
                     ) m on true
                     where a.business_id = '{business_id}' and a.assigned_at >= '{since}'
                         and a.case_number = k.case_number
                     order by a.conversation_id, a.case_number, a.assignment_id
                 ), waits as (
                     select percentile_cont(array[0.5, 0.99]) within group (
                         order by extract(epoch from assigned_at - asked_at) * 1000
                     ) as ms
                     from firsts
                 )
                 select (select count(*) from assignments where business_id = '{business_id}' and assigned_at >= '{since}'),
                     (
                         select coalesce(extract(epoch from max(assigned_at) - min(assigned_at)), 0)::float8
                         from assignments where business_id = '{business_id}' and assigned_at >= '{since}'
                     ),
                     coalesce(ms[1], 0)::float8, coalesce(ms[2], 0)::float8,
                     (select count(*) from cases where business_id = '{business_id}' and state <> 'resolved')
                 from waits"
            ),
        )
        .await?;
        Ok(Self {
            assignments: row.try_get::<i64, _>(0)?.unsigned_abs(),
            seconds: row.try_get(1)?,
            waited_p50_ms: row.try_get(2)?,
            waited_p99_ms: row.try_get(3)?,
            open: row.try_get::<i64, _>(4)?.unsigned_abs(),
        })
    }
}

/// Conversations with an assignment since.
pub async fn assigned(chat: &Chat, business_id: BusinessId, since: &str) -> Result<usize> {
    let question = format!(
        "select count(distinct conversation_id) from assignments
         where business_id = '{}' and assigned_at >= '{since}'",
        business_id.as_uuid()
    );
    Ok(usize::try_from(ask(chat, question).await?.try_get::<i64, _>(0)?)?)
}

/// The clock of PostgreSQL, as it reads it.
pub async fn now(chat: &Chat) -> Result<String> {
    Ok(ask(chat, "select clock_timestamp()::text".to_owned()).await?.try_get(0)?)
}

/// The answer to a question to PostgreSQL, which is one row.
pub async fn ask(chat: &Chat, question: String) -> Result<PgRow> {
    let mut database = chat.database().await?;
    let row = sqlx::raw_sql(AssertSqlSafe(question)).fetch_one(&mut database).await?;
    database.close().await?;
    Ok(row)
}
