//! Two businesses with agents and customers, and what they do while things break: customers write and wait for answers, agents
//! answer, hand over, give back and resolve. One agent has the app closed for most of the time, and a registered device.

mod agents;
mod board;
mod customers;
mod evidence;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chat_client::{
    Rest,
    ids::{BusinessId, UserId},
    wire::{BusinessSettings, Clocks, Encoding, StaffRole, Strategy},
};
use rand::{SeedableRng, rngs::StdRng, seq::IteratorRandom};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::evidence::fault_lines;
use self::{agents::Agent, board::Board, customers::Caller};
use super::{
    crowd::{Device, make_room},
    load::{Samples, Voice},
    phone::Phone,
    tap::Tap,
};
use crate::{
    audit::{Diary, Ledger, Room},
    fleet::{Fleet, Service},
    kaha::Person as Known,
    person::Person,
    wait,
};

/// Customers of the first business; the first of them are customers of the second one too.
const CUSTOMERS: usize = 20;
const OF_BOTH: usize = 5;
/// Agents of the first business that are connected; the first of them work for the second one too.
const AGENTS: usize = 4;
const FOR_BOTH: usize = 2;
/// Cases of an agent. Together fewer than conversations, so that cases wait.
const CAPACITY: u32 = 3;
/// How long an agent has for an answer: the least that settings take.
const ANSWER_MAX_S: u32 = 10;
/// Longer than a run.
const NEVER_S: u32 = 86_400;
/// How long an agent repeats a message. Others get the case soon.
const AGENT_SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a customer does. Longer than any fault lasts.
const CUSTOMER_SEND_WAIT_MAX: Duration = Duration::from_mins(4);
/// How long a request may take that has to be carried out once, where something has only just come back.
const DONE_DEADLINE: Duration = Duration::from_mins(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How long work may take to end, once everything runs.
const END_DEADLINE: Duration = Duration::from_secs(90);

/// A business and its staff.
#[derive(Debug)]
pub struct Business {
    id: BusinessId,
    admin: Person,
    agents: Vec<UserId>,
}

/// A conversation of a customer with a business.
#[derive(Debug, Clone)]
struct Place {
    room: Room,
    business_id: BusinessId,
    customer: usize,
}

/// The agent with the phone, who knows gateways directly. Its client belongs to its task.
#[derive(Debug)]
struct Pocket {
    user_id: UserId,
    rest: Rest,
    diary: watch::Receiver<Diary>,
    phones: Vec<Phone>,
    /// Until work begins.
    person: Option<Person>,
}

/// Everybody, and what they do.
#[derive(Debug)]
pub struct Desk {
    gateways: Vec<String>,
    businesses: Vec<Business>,
    agents: Vec<Device>,
    pocket: Pocket,
    customers: Vec<Device>,
    places: Vec<Place>,
    pub ledger: Arc<Ledger>,
    samples: Arc<Samples>,
    board: Arc<Board>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Desk {
    /// Makes the businesses, connects agents and customers evenly over the gateways, and opens their conversations.
    pub async fn open(fleet: &Fleet) -> Result<Self> {
        let mut agents = Vec::with_capacity(AGENTS);
        for number in 0..AGENTS {
            let person = person(fleet, format!("agent-{}", number + 1), number, AGENT_SEND_WAIT_MAX)?;
            agents.push(Device::open(fleet, person.name.clone(), person).await?);
        }
        let mut with_phone = person(fleet, "agent-phone".to_owned(), AGENTS, AGENT_SEND_WAIT_MAX)?;
        let ids: Vec<_> = agents.iter().map(|agent| agent.person.user_id).collect();
        let all = [&ids[..], &[with_phone.user_id]].concat();
        let businesses = vec![
            Business::open(fleet, all, Strategy::LeastBusy).await?,
            Business::open(fleet, ids[..FOR_BOTH].to_vec(), Strategy::RoundRobin).await?,
        ];
        for (turn, agent) in agents.iter_mut().enumerate() {
            agent.arrive(turn).await?;
        }
        let pocket = Pocket::of(fleet, &mut with_phone).await?;
        let mut desk = Self {
            gateways: gateways(fleet),
            businesses,
            agents,
            pocket: Pocket { person: Some(with_phone), ..pocket },
            customers: Vec::with_capacity(CUSTOMERS),
            places: Vec::new(),
            ledger: Arc::default(),
            samples: Arc::default(),
            board: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        desk.open_customers(fleet).await?;
        Ok(desk)
    }

    async fn open_customers(&mut self, fleet: &Fleet) -> Result<()> {
        let sought: Vec<Uuid> = self.staff().map(UserId::as_uuid).chain([self.businesses[0].id.as_uuid()]).collect();
        for number in 0..CUSTOMERS {
            let person = person(fleet, format!("customer-{}", number + 1), number, CUSTOMER_SEND_WAIT_MAX)?;
            let tap = Tap::searching(sought.iter().copied());
            let mut device = Device::open_tapped(fleet, person.name.clone(), person, tap).await?;
            device.arrive(number).await?;
            let rest = device.person.rest()?.clone();
            let count = if number < OF_BOTH { 2 } else { 1 };
            for business in &self.businesses[..count] {
                let made = make_room(vec![device.person.user_id], || rest.business_conversation(business.id));
                self.places.push(Place { room: made.await?, business_id: business.id, customer: number });
            }
            self.customers.push(device);
        }
        Ok(())
    }

    /// All ids that no customer may be sent.
    fn staff(&self) -> impl Iterator<Item = UserId> {
        let admins = self.businesses.iter().map(|business| business.admin.user_id);
        admins.chain(self.businesses[0].agents.iter().copied())
    }

    /// Lets everybody begin.
    pub fn work(&mut self, seed: u64) -> Result<()> {
        self.board = Arc::new(Board::of(&self.places, &self.businesses, &self.customers, &self.samples));
        let voice = |device: &Device| {
            anyhow::Ok(Voice::new(device.person.user_id, device.client()?.0, &self.ledger, &self.samples))
        };
        let mut rngs = (1..).map(|number| StdRng::seed_from_u64(seed.wrapping_mul(number)));
        let mut rng = || rngs.next().unwrap_or_else(|| StdRng::seed_from_u64(seed));
        for place in &self.places {
            let device = &self.customers[place.customer];
            let (rest, diary) = (device.client()?.1, device.person.follow());
            let caller = Caller::new(place, voice(device)?, rest, diary, &self.board);
            self.tasks.spawn(caller.converse(rng(), self.stop.clone()));
        }
        for device in &self.agents {
            let (client, diary) = (device.client()?.0, device.person.follow());
            let agent = Agent::new(voice(device)?, client, diary, &self.board);
            self.tasks.spawn(agent.work(rng(), self.stop.clone()));
        }
        if let Some(person) = self.pocket.person.take() {
            let pocket = agents::Pocket {
                person,
                gateways: self.gateways.clone(),
                rest: self.pocket.rest.clone(),
                ledger: Arc::clone(&self.ledger),
                samples: Arc::clone(&self.samples),
                board: Arc::clone(&self.board),
            };
            self.tasks.spawn(pocket.work(rng(), self.stop.clone()));
        }
        Ok(())
    }

    /// Ends all work, and gives agents all the time there is for what they have then, so that nothing changes by itself any more.
    pub async fn end(&mut self) -> Result<()> {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Sends without an answer by then have an unknown outcome, as those of a client that is turned off.
        _ = timeout(END_DEADLINE, ended).await;
        self.tasks.shutdown().await;
        for business in &self.businesses {
            business.set(|settings| settings.clocks = clocks(NEVER_S)).await?;
        }
        Ok(())
    }

    /// Some agents vanish: their connections stay open and move no byte.
    pub fn vanish(&self, count: usize, rng: &mut StdRng) -> Vec<&Device> {
        let vanished = self.agents.iter().sample(rng, count);
        for line in vanished.iter().flat_map(|agent| &agent.lines) {
            line.silence();
            line.lead_to(None);
        }
        vanished
    }

    /// They can connect again, and what is left of their connections ends.
    pub fn come_back(fleet: &Fleet, vanished: &[&Device]) {
        for agent in vanished {
            for (line, gateway) in agent.lines.iter().zip(fleet.gateways()) {
                line.lead_to(Some(Service::address(gateway)));
            }
            agent.cut();
        }
    }

    /// Messages of customers that were accepted while an agent was resolving their case.
    pub fn raced(&self) -> usize {
        self.board.raced()
    }

    /// Closes all clients.
    pub async fn leave(&mut self) -> Result<()> {
        for device in self.agents.iter_mut().chain(&mut self.customers) {
            device.person.leave().await?;
        }
        for business in &mut self.businesses {
            business.admin.leave().await?;
        }
        Ok(())
    }
}

impl Pocket {
    /// Comes, registers devices, and goes.
    async fn of(fleet: &Fleet, person: &mut Person) -> Result<Self> {
        person.arrive(gateways(fleet)).await?;
        let (user_id, diary, rest) = (person.user_id, person.follow(), person.rest()?.clone());
        let phones = Phone::register_all(&person.name, user_id, &rest, fleet.push_services()).await?;
        person.leave().await?;
        Ok(Self { user_id, rest, diary, phones, person: None })
    }
}

impl Business {
    async fn open(fleet: &Fleet, agents: Vec<UserId>, strategy: Strategy) -> Result<Self> {
        let id = BusinessId::random();
        let admin = Person::appear("admin", fleet.kaha(), gateways(fleet)).await?;
        let agents_of = agents.iter().map(|agent| (agent.as_uuid(), StaffRole::Agent));
        let staff: Vec<_> = agents_of.chain([(admin.user_id.as_uuid(), StaffRole::Admin)]).collect();
        wait::until("taking in a staff list", DONE_DEADLINE, || async {
            for gateway in fleet.gateways() {
                let pushed = fleet.kaha().push_staff(&gateway.internal_url(), id.as_uuid(), 1, &staff).await;
                if pushed.is_ok() {
                    return Ok(Some(()));
                }
            }
            sleep(PAUSE).await;
            Ok(None)
        })
        .await?;
        let business = Self { id, admin, agents };
        let set = |settings: &mut BusinessSettings| {
            (settings.strategy, settings.capacity, settings.clocks) = (strategy, CAPACITY, clocks(ANSWER_MAX_S));
        };
        business.set(set).await?;
        Ok(business)
    }

    /// Changes the settings.
    async fn set(&self, change: impl Fn(&mut BusinessSettings)) -> Result<()> {
        let rest = self.admin.rest()?;
        wait::until("a change of settings", DONE_DEADLINE, || async {
            let Ok(mut settings) = rest.business_settings(self.id).await else {
                sleep(PAUSE).await;
                return Ok(None);
            };
            change(&mut settings);
            // One without an answer may have been carried out; another one does no harm.
            Ok(rest.set_business_settings(self.id, &settings).await.ok().map(drop))
        })
        .await
    }
}

fn gateways(fleet: &Fleet) -> Vec<String> {
    fleet.gateways().iter().map(Service::url).collect()
}

/// Cases are resolved by agents alone.
const fn clocks(answer_max_s: u32) -> Clocks {
    Clocks {
        answer_max_s,
        notified_max_s: answer_max_s,
        reply_max_s: answer_max_s,
        quiet_max_s: NEVER_S,
        affinity_s: 60,
    }
}

fn person(fleet: &Fleet, name: String, number: usize, send_wait_max: Duration) -> Result<Person> {
    let mut person = Person::new(&Known { id: Uuid::new_v4(), name }, fleet.kaha()).context("somebody new")?;
    // In each encoding at each gateway.
    person.encoding =
        if (number / fleet.gateways().len()).is_multiple_of(2) { Encoding::MessagePack } else { Encoding::Json };
    person.send_wait_max = send_wait_max;
    Ok(person)
}
