//! `cargo dev load`: figures of a release build under load, and a proof that nothing was lost.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::pages::PAGES_IN_FLIGHT_MAX;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    fleet::Profile,
    load::{
        machine,
        peer::Peer,
        scenario::{
            backlog, burst, dm, history, hostile, idle, jitter, lists, outage, race, reading, reconnect, retire, seed,
            storm,
        },
        setting::Setting,
    },
    signals::Ending,
    terminal,
};

/// Users in a group.
const GROUP_SIZE: usize = 8;

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    scenario: Scenario,
    /// Don't measure what the disk, the network and the servers can do by themselves
    #[arg(long, global = true)]
    no_floors: bool,
    /// Use debug builds: quick to build, and the figures mean nothing
    #[arg(long, global = true, hide = true)]
    debug_build: bool,
}

/// What is done. Every scenario starts servers and services of its own, which are gone afterwards.
///
/// A table goes to standard output, and after it one line of JSON; .dev/load/ gets a page with plots and all data. The
/// exit status is 0 if the figures can be trusted: nothing was lost, and the load generator kept its schedule.
#[derive(Debug, Subcommand)]
enum Scenario {
    /// Two by two, users write to each other
    Dm(Dm),
    /// Users write to each other in groups of eight
    Group(Group),
    /// Clients are connected, and nothing happens but heartbeats: memory and processor time for a connection
    Idle(Idle),
    /// Many clients lose their connections at once, miss messages, and come back at once, while others go on writing
    Storm(Storm),
    /// Clients lose their connections every 15 seconds or so, for about two, while messages flow
    Jitter(Jitter),
    /// Postgres is gone for a while, and users go on writing to each other
    Outage(Outage),
    /// Users who were away while their inboxes filled come back, all at once
    Backlog(backlog::Options),
    /// Users read pages of conversations with millions of messages
    History(history::Options),
    /// Users read their conversation lists: with names at hand, without, and while kaha-main-v3 is down
    Lists(lists::Options),
    /// A tenth of the clients break the rules while the others write to each other
    Hostile(hostile::Options),
    /// All customers of one business write within two seconds, and agents answer, while others write to each other
    Burst(burst::Options),
    /// Customers of one business come while gateways are killed and agents go away: no case may have two agents, no agent too
    /// many cases, no customer none
    Race(race::Options),
    /// A day of many messages ages out while users write to each other
    Retire(retire::Options),
    /// What the requirements count on for 50,000 users: messages, reading, typing, coming and going, and what Redis and
    /// PostgreSQL write for it
    Seed(seed::Options),
    /// Of 20,000 users a twentieth lose their connections each minute and come back: what Redis and PostgreSQL do for it
    Reconnect(reconnect::Options),
    /// Everybody marks everything as read at the same moment
    Reading(reading::Options),
}

/// Options of `dm`.
#[derive(Debug, Args)]
struct Dm {
    #[command(flatten)]
    common: Steady,
    /// How many pairs of users; one of each connects to each gateway
    #[arg(long, value_name = "COUNT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(2..=9000))]
    pairs: u32,
    #[command(flatten)]
    others: Others,
}

/// Options of `group`.
#[derive(Debug, Args)]
struct Group {
    #[command(flatten)]
    common: Steady,
    /// How many groups
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=2000))]
    groups: u32,
}

/// Options of `idle`.
#[derive(Debug, Args)]
struct Idle {
    /// How many connections, all at one gateway
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=17_000))]
    connections: u32,
    #[command(flatten)]
    others: Others,
}

/// Options of `storm`.
#[derive(Debug, Args)]
struct Storm {
    /// How many lose their connections; those who write to them and those who stay come to it
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=25_000))]
    clients: u32,
    /// Messages a second of those who stay
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

/// Options of `jitter`.
#[derive(Debug, Args)]
struct Jitter {
    /// How many clients
    #[arg(long, value_name = "COUNT", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=25_000))]
    clients: u32,
    /// Messages a second of all together
    #[arg(long, value_name = "NUMBER", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long it goes on
    #[arg(long, value_name = "NUMBER", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..=600))]
    seconds: u64,
    #[command(flatten)]
    others: Others,
}

/// Options of `outage`.
#[derive(Debug, Args)]
struct Outage {
    /// Messages a second of all together
    #[arg(long, value_name = "NUMBER", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How many pairs of users
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=9000))]
    pairs: u32,
    /// How long Postgres is gone
    #[arg(long, value_name = "NUMBER", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
}

/// Of loads at one pace.
#[derive(Debug, Args)]
struct Steady {
    /// Messages a second, of all users together; they are sent when they are due, whatever the answers to earlier ones
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Look for the highest rate at which 99 of 100 deliveries take 100 ms at most and nothing is lost. Takes minutes
    #[arg(long)]
    search: bool,
    /// How long the result is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many gateways
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    gateways: u32,
}

/// Of loads that others can be given too.
#[derive(Debug, Args)]
struct Others {
    /// Give the same load to another chat backend too, and compare
    #[arg(long, value_name = "NAME")]
    peer: Option<PeerChoice>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PeerChoice {
    /// Socket.IO 4 with its Redis adapter and messages in Postgres, two Node processes
    #[value(name = "socket.io")]
    SocketIo,
    /// ejabberd with its archive in Postgres
    Ejabberd,
    /// Both, one after the other
    All,
}

/// Measures and prints.
///
/// # Errors
/// If something does not build or start, or can't be asked.
pub async fn run(options: Options) -> Result<ExitCode> {
    let mut ending = Ending::listen(true)?;
    tokio::select! {
        // Dropping it ends everything it started.
        measured = Box::pin(measure(options)) => measured,
        () = ending.asked() => {
            terminal::progress("interrupted");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn measure(options: Options) -> Result<ExitCode> {
    machine::allow_connections(options.scenario.connections_of_one_process())?;
    for peer in options.scenario.peers() {
        peer.prepare().await?;
    }
    let profile = if options.debug_build { Profile::Dev } else { Profile::Release };
    let setting = Setting::prepare(profile, !options.no_floors).await?;
    match options.scenario {
        Scenario::Dm(dm) => Box::pin(dm::run(&dm.plan(), &setting)).await,
        Scenario::Group(group) => Box::pin(dm::run(&group.plan(), &setting)).await,
        Scenario::Idle(Idle { connections, others }) => {
            Box::pin(idle::run(&idle::Plan { connections: connections as usize, peers: others.peers() }, &setting))
                .await
        }
        Scenario::Storm(Storm { clients, rate }) => {
            let plan = storm::Plan { clients: clients as usize, rate: rate.into() };
            Box::pin(storm::run(&plan, &setting)).await
        }
        Scenario::Jitter(Jitter { clients, rate, seconds, others }) => {
            let (length, peers) = (Duration::from_secs(seconds), others.peers());
            jitter::run(&jitter::Plan { clients: clients as usize, rate: rate.into(), length, peers }, &setting).await
        }
        Scenario::Outage(Outage { rate, pairs, seconds }) => {
            let outage = Duration::from_secs(seconds);
            let plan = outage::Plan { rate: rate.into(), pairs: pairs as usize, outage };
            Box::pin(outage::run(&plan, &setting)).await
        }
        Scenario::Backlog(options) => Box::pin(backlog::run(&options, &setting)).await,
        Scenario::History(options) => history::run(&options, &setting).await,
        Scenario::Lists(options) => Box::pin(lists::run(&options, &setting)).await,
        Scenario::Hostile(options) => Box::pin(hostile::run(&options, &setting)).await,
        Scenario::Burst(options) => Box::pin(burst::run(&options, &setting)).await,
        Scenario::Race(options) => Box::pin(race::run(&options, &setting)).await,
        Scenario::Retire(options) => Box::pin(retire::run(&options, &setting)).await,
        Scenario::Seed(options) => Box::pin(seed::run(&options, &setting)).await,
        Scenario::Reconnect(options) => Box::pin(reconnect::run(&options, &setting)).await,
        Scenario::Reading(options) => Box::pin(reading::run(&options, &setting)).await,
    }
}

impl Scenario {
    /// Two gateways, and two client processes, share all connections; one may get a quarter more than its part.
    fn connections_of_one_process(&self) -> usize {
        let (connections, is_one) = match self {
            Self::Dm(Dm { common, pairs, .. }) => (*pairs as usize * 2, common.gateways == 1),
            Self::Group(Group { common, groups }) => (*groups as usize * GROUP_SIZE, common.gateways == 1),
            Self::Idle(Idle { connections, .. }) => (*connections as usize, true),
            Self::Storm(Storm { clients, .. }) => (storm::connections(*clients as usize), false),
            Self::Jitter(Jitter { clients, .. }) => (*clients as usize, false),
            Self::Outage(Outage { pairs, .. }) => (*pairs as usize * 2, false),
            Self::Backlog(options) => (options.connections(), false),
            Self::Hostile(options) => (options.connections(), false),
            Self::Burst(options) => (options.connections(), false),
            Self::Seed(options) => (options.connections(), false),
            Self::Reconnect(options) => (options.connections(), false),
            Self::Retire(options) => (options.connections(), false),
            Self::Reading(options) => (options.connections(), false),
            Self::Race(options) => ((options.customers + options.agents) as usize, false),
            Self::History(_) => (PAGES_IN_FLIGHT_MAX, true),
            Self::Lists(_) => (lists::CONNECTIONS_MAX, true),
        };
        // All of an ejabberd are one process.
        let is_one = is_one || self.peers().contains(&Peer::Ejabberd);
        if is_one { connections } else { connections.div_ceil(2) * 5 / 4 }
    }

    fn peers(&self) -> Vec<Peer> {
        match self {
            Self::Dm(Dm { others, .. }) | Self::Idle(Idle { others, .. }) | Self::Jitter(Jitter { others, .. }) => {
                others.peers()
            }
            _ => vec![],
        }
    }
}

impl Others {
    fn peers(&self) -> Vec<Peer> {
        match self.peer {
            None => vec![],
            Some(PeerChoice::SocketIo) => vec![Peer::SocketIo],
            Some(PeerChoice::Ejabberd) => vec![Peer::Ejabberd],
            Some(PeerChoice::All) => vec![Peer::SocketIo, Peer::Ejabberd],
        }
    }
}

impl Dm {
    fn plan(&self) -> dm::Plan {
        dm::Plan { peers: self.others.peers(), ..self.common.plan("dm", 2, self.pairs, 1000) }
    }
}

impl Group {
    fn plan(&self) -> dm::Plan {
        self.common.plan("group", GROUP_SIZE, self.groups, 200)
    }
}

impl Steady {
    fn plan(&self, scenario: &'static str, conversation_size: usize, conversations: u32, rate: u32) -> dm::Plan {
        dm::Plan {
            scenario,
            conversation_size,
            conversations: conversations as usize,
            rate: self.rate.unwrap_or(rate).into(),
            is_search: self.search,
            length: Duration::from_secs(self.seconds),
            gateways: self.gateways as usize,
            peers: vec![],
        }
    }
}
