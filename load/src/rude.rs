//! Clients that break the rules while others are measured: they stop reading, send what no client may, ask for more
//! than they are allowed, or never get beyond half a handshake. And they come back, however often they are thrown out.
//!
//! They run in a client process of their own, so that they don't disturb the schedule of those that are measured. It
//! works until its standard input ends, and then says in one line of JSON what the servers did about it.

mod deed;
mod visit;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, stdin},
    task::LocalSet,
    time::sleep,
};

use self::visit::Visitor;
use crate::plan::Seat;

/// How long a client that was thrown out stays away.
const PAUSE: Duration = Duration::from_secs(1);
/// Kinds of what is counted, at the most; a server that never says the same twice must not fill the memory.
const KINDS_MAX: usize = 100;

/// What rude clients do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RudePlan {
    /// Where gateways listen.
    pub addresses: Vec<SocketAddr>,
    /// The process' own addresses, which its connections are spread over.
    pub sources: Vec<IpAddr>,
    /// Two seats and how they behave.
    pub couples: Vec<Couple>,
    /// How often most clients do something rude while they are connected; who floods does it ten times as often.
    pub deeds_per_second: f64,
}

/// Two users with a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Couple {
    /// How both behave.
    pub rudeness: Rudeness,
    /// Who they are.
    pub seats: [Seat; 2],
    /// A conversation that neither of them takes part in.
    pub foreign: String,
}

/// A way to behave badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rudeness {
    /// One sends the largest messages that are allowed; the other reads nothing.
    Deaf,
    /// Frames that mean nothing: random bytes, wrong types, fragments, unknown kinds.
    Garbage,
    /// Frames larger than allowed.
    TooLarge,
    /// Frames without a mask.
    Unmasked,
    /// Commands without a pause, to a conversation of others.
    Flood,
    /// Half a handshake, and then silence.
    HalfOpen,
}

impl Rudeness {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Deaf, Self::Garbage, Self::TooLarge, Self::Unmasked, Self::Flood, Self::HalfOpen];
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RudeDone {
    /// Connections that were opened, handshakes by half included.
    pub visits: u64,
    /// Of those, how many a server ended.
    pub ended: u64,
    /// Frames that break a rule or ask for too much, and were written.
    pub deeds: u64,
    /// How the servers answered, by kind.
    pub answers: BTreeMap<String, u64>,
}

impl RudeDone {
    fn note(&mut self, answer: &str) {
        let is_known = self.answers.contains_key(answer);
        let key = if is_known || self.answers.len() < KINDS_MAX { answer } else { "something else" };
        *self.answers.entry(key.to_owned()).or_default() += 1;
    }
}

/// Does what a plan says until standard input ends.
///
/// # Errors
/// If the plan names no address.
pub fn run(plan: RudePlan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = LocalSet::new().block_on(&runtime, async {
        let done = Rc::new(RefCell::new(RudeDone::default()));
        let visitors = visitors(plan, &done)?;
        for visitor in visitors {
            tokio::task::spawn_local(live(visitor));
        }
        let mut rest = [0; 64];
        while stdin().read(&mut rest).await.is_ok_and(|read| read > 0) {}
        anyhow::Ok(done.borrow().clone())
    })?;
    let mut line = serde_json::to_vec(&done)?;
    line.push(b'\n');
    std::io::stdout().write_all(&line)?;
    Ok(())
}

fn visitors(plan: RudePlan, done: &Rc<RefCell<RudeDone>>) -> Result<Vec<Visitor>> {
    let interval = Duration::from_secs_f64(1.0 / plan.deeds_per_second.max(0.01));
    let mut visitors = Vec::with_capacity(plan.couples.len() * 2);
    for Couple { rudeness, seats, foreign } in plan.couples {
        for (place, seat) in seats.into_iter().enumerate() {
            let number = visitors.len();
            let source = *plan.sources.get(number % plan.sources.len().max(1)).context("the plan names no source")?;
            let servers = &plan.addresses;
            let server = *servers.get(seat.address % servers.len().max(1)).context("the plan names no server")?;
            visitors.push(Visitor {
                rudeness,
                is_first: place == 0,
                foreign: foreign.clone(),
                seat,
                source,
                server,
                interval,
                done: Rc::clone(done),
            });
        }
    }
    Ok(visitors)
}

/// Comes again and again.
async fn live(visitor: Visitor) {
    loop {
        let end = visitor.visit().await;
        visitor.done.borrow_mut().note(&end.unwrap_or_else(|error| error.root_cause().to_string()));
        sleep(PAUSE).await;
    }
}
