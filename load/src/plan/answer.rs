//! What a client process says, and how what several say is added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// The kind of error that a message was shown to somebody who is not in its conversation.
pub const FOREIGN_SHOWN: &str = "a message of another conversation was shown";

/// What the process says on standard output, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// All clients are connected.
    Connected {
        /// How many.
        count: usize,
        /// How long it took.
        seconds: f64,
    },
    /// What happened in one second after the start, the last and incomplete one included.
    Second(Second),
    /// Everything, once the schedule has ended and what was outstanding has come or been given up.
    Done(Done),
}

/// One second of one process, all crowds together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Second {
    /// Whole seconds after the start at its beginning.
    pub at: u64,
    /// Answers.
    pub accepted: u64,
    /// Messages shown to others than their senders.
    pub delivered: u64,
    /// Waits for answers that came in this second.
    pub accept: Histogram,
    /// Waits for shows that came in this second.
    pub deliver: Histogram,
    /// Connections open at its end.
    pub connected: u64,
}

/// What came of a plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Done {
    /// In the plan's order.
    pub crowds: Vec<CrowdDone>,
    /// How much later than due messages were written, of all crowds and phases.
    pub lateness: Histogram,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
}

/// What came of a crowd.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CrowdDone {
    /// In the plan's order.
    pub phases: Vec<PhaseDone>,
    /// Over the whole run.
    pub tally: Tally,
    /// How long each return to the server took, from the first try until the connection was open.
    pub returns: Histogram,
    /// From when all those who went away at once tried to come back, until each message that they missed was shown.
    pub catch_up: Histogram,
    /// Of each client that was among them: from then until the last message that it missed was shown.
    pub caught_up: Histogram,
    /// What it did besides writing, and was told besides messages.
    pub realtime: RealtimeDone,
}

/// Read marks, receipts, typing and presence of a crowd, over the whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RealtimeDone {
    /// Read marks that were written.
    pub marks: u64,
    /// Those that the server said it has.
    pub marks_done: u64,
    /// Those that it refused.
    pub marks_refused: u64,
    /// How far each user marked: the number of the message.
    pub furthest: BTreeMap<String, u64>,
    /// How often somebody was to be shown how far another participant has read in the end: each of the others once.
    pub expected_receipts: u64,
    /// How often somebody was.
    pub receipts_shown: u64,
    /// Receipts of deliveries that were shown.
    pub deliveries_shown: u64,
    /// How often somebody said that they write.
    pub typing_said: u64,
    /// How often somebody was shown that another participant writes.
    pub typing_shown: u64,
    /// How often somebody was shown that a user came or went, after the list that watching begins with.
    pub presence_shown: u64,
    /// From when a mark was due until the generator had written it; of many that are due at once the last ones wait.
    pub written: Histogram,
    /// From when a mark was due until it was answered as done.
    pub done: Histogram,
    /// From when a mark was due until each other participant was shown its receipt.
    pub shown: Histogram,
}

/// What happened in a phase.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PhaseDone {
    /// Messages that were due.
    pub offered: u64,
    /// Answers that came.
    pub accepted: u64,
    /// Messages shown to others than their senders.
    pub delivered: u64,
    /// Of messages due in it: from then to the answer.
    pub accept: Histogram,
    /// Of messages due in it: from then to each show to another participant.
    pub deliver: Histogram,
}

/// What became of the messages of a crowd.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Messages that were written at least once.
    pub sent: u64,
    /// Messages whose sender was told that they are durable.
    pub accepted: u64,
    /// Messages that the server said it didn't take.
    pub rejected: u64,
    /// Messages that nothing was said about.
    pub unanswered: u64,
    /// How often the accepted ones were to be shown: to each other participant once.
    pub expected_shows: u64,
    /// How often they were, by which participants of which conversation should.
    pub shown: u64,
    /// Pushes that a client leaves out, since it has had their number.
    pub repeated_raw: u64,
    /// Messages that came again in spite of that.
    pub repeated: u64,
    /// Which ones were accepted: for each seat by its number over all processes, ranges of message numbers, the first
    /// and the one after the last.
    pub accepted_ranges: BTreeMap<u32, Vec<(u64, u64)>>,
    /// How often a client came back.
    pub returned: u64,
    /// How often the server couldn't say everything that was missed.
    pub not_resumed: u64,
    /// Clients that aren't connected at the end.
    pub absent: u64,
}

impl Second {
    /// Adds what another process did in the same second.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.connected += other.connected;
        self.accept.add(&other.accept);
        self.deliver.add(&other.deliver);
    }
}

impl Done {
    /// Adds what another process with a part of the same crowds did.
    pub fn add(&mut self, other: &Self) {
        for (crowd, other) in self.crowds.iter_mut().zip(&other.crowds) {
            crowd.add(other);
        }
        self.lateness.add(&other.lateness);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }

    /// How often a message was shown to somebody who is not in its conversation.
    pub fn foreign_shown(&self) -> u64 {
        self.errors.get(FOREIGN_SHOWN).copied().unwrap_or_default()
    }

    /// All crowds together.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for crowd in &self.crowds {
            sum.add(&crowd.tally);
        }
        sum
    }
}

impl CrowdDone {
    fn add(&mut self, other: &Self) {
        for (phase, other) in self.phases.iter_mut().zip(&other.phases) {
            phase.add(other);
        }
        self.tally.add(&other.tally);
        self.returns.add(&other.returns);
        self.catch_up.add(&other.catch_up);
        self.caught_up.add(&other.caught_up);
        self.realtime.add(&other.realtime);
    }
}

impl RealtimeDone {
    /// Adds what others did.
    pub fn add(&mut self, other: &Self) {
        self.marks += other.marks;
        self.marks_done += other.marks_done;
        self.marks_refused += other.marks_refused;
        self.expected_receipts += other.expected_receipts;
        self.receipts_shown += other.receipts_shown;
        self.deliveries_shown += other.deliveries_shown;
        self.typing_said += other.typing_said;
        self.typing_shown += other.typing_shown;
        self.presence_shown += other.presence_shown;
        self.furthest.extend(other.furthest.clone());
        self.written.add(&other.written);
        self.done.add(&other.done);
        self.shown.add(&other.shown);
    }
}

impl PhaseDone {
    /// Adds what others did in the same phase.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.accept.add(&other.accept);
        self.deliver.add(&other.deliver);
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unanswered += other.unanswered;
        self.expected_shows += other.expected_shows;
        self.shown += other.shown;
        self.repeated_raw += other.repeated_raw;
        self.repeated += other.repeated;
        self.returned += other.returned;
        self.not_resumed += other.not_resumed;
        self.absent += other.absent;
        self.accepted_ranges.extend(other.accepted_ranges.clone());
    }

    /// Every accepted message: its sender's number over all processes, and its own.
    pub fn accepted_messages(&self) -> impl Iterator<Item = (u32, u32)> {
        self.accepted_ranges.iter().flat_map(|(seat, ranges)| {
            let numbers = ranges.iter().flat_map(|(first, end)| *first..*end);
            numbers.filter_map(|number| Some((*seat, u32::try_from(number).ok()?)))
        })
    }
}
