//! What a client process is told, and what it answers: a plan as a JSON file, and lines of JSON.
//!
//! Moments in a plan are microseconds after the common start, which comes later as a line on standard input.

mod answer;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::answer::{CrowdDone, Done, FOREIGN_SHOWN, Line, PhaseDone, RealtimeDone, Second, Tally};

/// Everything that one client process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// What its clients speak.
    pub target: TargetKind,
    /// Where servers listen. A client whose connection ends goes to the next one.
    pub addresses: Vec<SocketAddr>,
    /// The process' own addresses, which its connections are spread over.
    pub sources: Vec<IpAddr>,
    /// Keeps the messages of several runs apart.
    pub run: u64,
    /// The number of its first seat; seats are numbered over all processes, in the order of the crowds.
    pub first_seat: u32,
    /// Its clients.
    pub crowds: Vec<Crowd>,
    /// Times that are counted by themselves.
    pub phases: Vec<Phase>,
    /// How long the last answers and shows are waited for.
    pub drain_us: u64,
    /// Connections that are opened at the same time.
    pub opening_max: usize,
}

/// Where the floors of the machine are measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorsPlan {
    /// On the disk of the log's data.
    pub directory: PathBuf,
    /// A NATS server with `JetStream`.
    pub nats_url: String,
    /// A database of PostgreSQL.
    pub postgres_url: String,
}

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// This backend.
    Chat,
    /// The Socket.IO peer.
    SocketIo,
    /// The ejabberd peer.
    Xmpp,
}

/// Clients that do the same, counted together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crowd {
    /// Those of one conversation stand one after the other.
    pub seats: Vec<Seat>,
    /// How many seats share a conversation.
    pub conversation_size: usize,
    /// What they write; nothing if none.
    pub sends: Option<Sends>,
    /// How they lose their connections; never on purpose if none.
    pub absence: Option<Absence>,
    /// What they do besides.
    pub manners: Manners,
}

/// What clients do besides writing messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manners {
    /// They watch the presence of the others of their conversation.
    pub watches: bool,
    /// They say that they write, so long before each message is due.
    pub types_before_us: Option<u64>,
    /// They mark as read what they are shown.
    pub reads: Option<Reads>,
}

/// When clients mark what they were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reads {
    /// So long after each message.
    Each {
        /// How long.
        after_us: u64,
    },
    /// Everything at one moment, all clients together.
    Together {
        /// When.
        at_us: u64,
    },
}

impl Crowd {
    /// When those who lose their connections on purpose have all begun to come back.
    pub fn present_again_us(&self) -> Option<u64> {
        self.absence.map(|absence| match absence {
            Absence::Once { at_us, away_us } => at_us + away_us,
            Absence::Often { until_us, .. } => until_us,
        })
    }
}

/// A user with one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seat {
    /// The user's id or name, as the target has it.
    pub user: String,
    /// The token or password.
    pub secret: String,
    /// The client installation.
    pub device: Uuid,
    /// What the user writes to, as the target names it.
    pub conversation: String,
    /// Index of the address to connect to first.
    pub address: usize,
}

/// A schedule that doesn't wait for answers. The conversations take turns, and within one its writers do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sends {
    /// Of this process.
    pub per_second: f64,
    /// When the first is due.
    pub from_us: u64,
    /// When nothing is due any more.
    pub until_us: u64,
    /// Who writes.
    pub writers: Writers,
}

/// Who of a conversation writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writers {
    /// Its first seat only.
    First,
    /// All in turns.
    All,
}

/// How clients lose their connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Absence {
    /// All but each conversation's first seat are cut at once, and come back as fast as they can after a while.
    Once {
        /// When.
        at_us: u64,
        /// For how long they don't try.
        away_us: u64,
    },
    /// Each at random moments.
    Often {
        /// Time online in the mean.
        online_us: u64,
        /// Time offline in the mean.
        away_us: u64,
        /// From here on.
        from_us: u64,
        /// After that all come back and stay.
        until_us: u64,
        /// They close their connections, as users do who leave. Else they are cut.
        says_goodbye: bool,
        /// Each conversation's first seat stays.
        first_stays: bool,
    },
}

/// A time that is counted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// For the report.
    pub name: String,
    /// Its beginning.
    pub from_us: u64,
    /// Its end; it doesn't belong to it.
    pub until_us: u64,
}

/// What the process is told on standard input, once it has said that all are connected. It ends when its standard
/// input does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The common start, in microseconds of the monotonic clock.
    pub at_us: u64,
}
