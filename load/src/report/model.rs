//! The report as data. What stands here is what the JSON file holds; tables and plots are made from it alone.
//!
//! Units are in the names. Every float is finite, since JSON knows nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that one call of a scenario found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name, as on the command line.
    pub scenario: String,
    /// The command that repeats it.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// Version by program.
    pub versions: BTreeMap<String, String>,
    /// What could be chosen, and was.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The least that the machine's parts cost by themselves; none if they were not measured.
    pub floors: Option<Floors>,
    /// The loads, in the order in which they ran.
    pub runs: Vec<Run>,
    /// This backend beside others.
    pub comparisons: Vec<Comparison>,
    /// What was to be reached, and was or was not.
    pub aims: Vec<Aim>,
    /// Why the figures can't be trusted; empty for a valid report.
    pub problems: Vec<String>,
    /// Nothing was lost, the generator kept its schedule, and every process lived.
    pub is_valid: bool,
}

/// A computer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that can be used at once.
    pub processors: usize,
    /// Memory in all.
    pub memory_bytes: u64,
    /// The kernel's name and release.
    pub kernel: String,
    /// What the processor calls itself.
    pub processor: String,
}

/// What the parts of the machine do by themselves, with nothing else running. Nothing built on them is faster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// A small write made durable.
    pub fsync_us: Spread,
    /// 100 bytes over TCP to another thread and back.
    pub loopback_us: Spread,
    /// Appends to a stream of the log with many in flight.
    pub log_appends_per_second: f64,
    /// An append to a stream of the log, one after the other.
    pub log_appends_one_at_a_time_us: Spread,
    /// Rows into a table like that of messages, 500 in a transaction.
    pub inserts_per_second: f64,
    /// A frame to a bare WebSocket server and back, one after the other.
    pub websocket_echo_us: Spread,
    /// Frames to a bare WebSocket server and back with many in flight.
    pub websocket_echoes_per_second: f64,
}

/// Many measurements of one thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of them were at most this.
    pub p50: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// How many there were.
    pub count: u64,
}

/// One load on one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was measured: `chat`, `socket.io` or `ejabberd`.
    pub target: String,
    /// Which load, such as `200/s`.
    pub name: String,
    /// How long it was measured.
    pub seconds: f64,
    /// Sends that the schedule asked for.
    pub offered_per_second: f64,
    /// Sends that were answered as accepted.
    pub accepted_per_second: f64,
    /// Messages that were shown to others.
    pub delivered_per_second: f64,
    /// From the time a send was due to its answer.
    pub accept: Latency,
    /// From the time a send was due until another participant was shown it.
    pub deliver: Latency,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
    /// What was checked afterwards; none if nothing could be.
    pub proof: Option<Proof>,
    /// Cost by process.
    pub processes: BTreeMap<String, ProcessCost>,
    /// Processor time of all but the load generator, for 1,000 accepted messages.
    pub cpu_seconds_per_1000: f64,
    /// What servers were asked to do.
    pub counters: Counters,
    /// The run second by second.
    pub timeline: Vec<Second>,
    /// What only this scenario measures.
    pub figures: BTreeMap<String, Figure>,
}

impl Run {
    /// Whether messages were accepted, so that something can be said of a thousand of them.
    pub fn accepts(&self) -> bool {
        self.accepted_per_second > 0.0
    }
}

/// A distribution of waiting times, counted from when a send was due and not from when it was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took at most this.
    pub p50_ms: f64,
    /// 9 of 10.
    pub p90_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// How many were measured.
    pub count: u64,
    /// Percentile (0 to 100) and milliseconds, both rising, for the plot.
    pub percentiles: Vec<(f64, f64)>,
}

/// What became of the messages, counted from outside after the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Messages whose senders were told `accepted`.
    pub accepted: u64,
    /// Of those, how many stand in the database.
    pub kept: u64,
    /// How often the accepted messages had to be shown: once to each other participant.
    pub expected_shows: u64,
    /// How often they were shown, repeats not counted.
    pub shown: u64,
    /// Accepted, but not kept or not shown.
    pub lost: u64,
    /// Shown more than once to somebody.
    pub repeated: u64,
    /// Sends that got no answer.
    pub unanswered: u64,
}

/// What a process, or a server with all its processes, used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessCost {
    /// Processor time, in user code and in the kernel.
    pub cpu_seconds: f64,
    /// Of that, in the kernel.
    pub kernel_seconds: f64,
    /// Processor time for 1,000 accepted messages.
    pub cpu_seconds_per_1000: f64,
    /// The most memory it held.
    pub memory_peak_bytes: u64,
    /// It makes the load, and is not part of what is measured.
    pub is_generator: bool,
}

/// Work of the servers for 1,000 accepted messages; none where it was not counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Writes made durable, by server.
    pub fsyncs_per_1000: BTreeMap<String, f64>,
    /// Statements that PostgreSQL carried out.
    pub sql_statements_per_1000: Option<f64>,
    /// Commands that Redis carried out.
    pub redis_calls_per_1000: Option<f64>,
}

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the run began.
    pub at: f64,
    /// Sends accepted in this second.
    pub accepted: u64,
    /// Messages shown in this second.
    pub delivered: u64,
    /// 99 of 100 answers took at most this.
    pub accept_p99_ms: f64,
    /// 99 of 100 deliveries took at most this.
    pub deliver_p99_ms: f64,
    /// Processors in use, by process.
    pub cpu: BTreeMap<String, f64>,
    /// Memory held, by process.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// A figure that says itself what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// How much.
    pub value: f64,
    /// Of what; empty for a mere number.
    pub unit: String,
    /// What it means, in a sentence for somebody who doesn't know the code; empty if its name says it.
    pub meaning: String,
}

/// One quantity of this backend beside that of another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The quantity, with its unit.
    pub what: String,
    /// This backend's.
    pub ours: f64,
    /// The other's.
    pub theirs: f64,
    /// Who the other is.
    pub peer: String,
    /// Ours divided by theirs; none if theirs is 0.
    pub ratio: Option<f64>,
}

/// Something that was to be reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aim {
    /// The quantity.
    pub what: String,
    /// What it was to be, such as `≤ 3`.
    pub aim: String,
    /// What it was.
    pub measured: String,
    /// Whether that is good enough.
    pub is_met: bool,
}
