//! What an audit finds, each with the number that it is out of.

use std::fmt;

use anyhow::{Result, bail};
use serde::Serialize;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Accepted, and not in PostgreSQL.
    NotStored,
    /// Accepted, and history doesn't give it as it was sent.
    NotInHistory,
    /// Accepted, and a device of a participant was not shown it.
    NotShown,
    /// Shown again to the same device, after its client's own filter.
    ShownTwice,
    /// Shown after a later one.
    OutOfOrder,
    /// Numbers of a conversation that PostgreSQL lacks or has twice.
    Holes,
    /// Messages earlier than the one before them.
    TimeBackwards,
    /// Stored, shown or in history, though never sent, or by somebody else, or with another text.
    Phantoms,
    /// One id that became two messages.
    Doubled,
    /// Accepted under one number or time, and then answered, stored or shown under another.
    Moved,
    /// Lists that say something else than PostgreSQL has.
    UnreadWrong,
    /// Accepted, and a registered device of a participant who is away was not notified of it.
    NotNotified,
    /// Notified again to the same device.
    NotifiedTwice,
    /// Notified though nothing was sent, or though it was nothing for them.
    NotifiedWrongly,
    /// Notified later than it has to be.
    NotifiedLate,
    /// Online to somebody and not there, or there and not online.
    PresenceWrong,
    /// Told later than it has to be who is online and who isn't.
    PresenceLate,
    /// Said to be writing for longer than it may be said.
    TypingLate,
    /// Notified of a message in a conversation that its user had muted.
    NotifiedThoughMuted,
    /// Pushed to the same device more often than its connections and redelivery explain.
    PushedTooOften,
    /// Read marks that were answered and not kept, kept though not set, or not told to another participant.
    MarksWrong,
    /// Participants in PostgreSQL that differ from what the answered changes make of them.
    MembersWrong,
    /// The newest change of a conversation, which a device of a participant was not told.
    ChangeNotTold,
    /// Messages shown to a removed user, or not shown to an added one.
    AudienceWrong,
    /// Messages accepted from a removed or blocked user.
    AcceptedWrongly,
    /// Entries of the log that were set aside without being wrong, or were wrong and not set aside.
    DeadLetters,
    /// Good messages that were refused though nothing they need was missing.
    Refused,
    /// Processes that ended though nobody ended them.
    Ended,
    /// Lines of logs that tell of a panic.
    Panics,
    /// Entries of the log, and jobs of the queue of notifications, that a worker never dealt with.
    Unsettled,
    /// Gateways that keep more memory than they may for what they were sent and refused.
    Grown,
    /// Percentiles of what others waited for, which one account raised above what is allowed.
    Slowed,
    /// Assignments of one case that last at the same time.
    LeasesOverlap,
    /// Cases that the router gave to an agent that had as many as the capacity allows.
    OverCapacity,
    /// Last messages of customers without an answer, a resolve or an open case.
    CasesLost,
    /// Cases that wait though the router could assign them.
    CasesStarved,
    /// Cases that the router gave again to an agent that had missed them, though others had not.
    MissedAgain,
    /// Assignments without an end or a reason, and assigned cases without an assignment.
    LedgerWrong,
    /// Assignments that were neither pushed nor notified to their agents.
    NotInformed,
    /// Ids of staff in what customers were sent.
    StaffShown,
    /// Numbers of business conversations that differ from their messages and from what was resolved.
    NumbersWrong,
    /// Lines of logs that tell of a fault of a service, or of a constraint that stopped one.
    Faults,
    /// Rows, keys and partitions that are gone, deleted, unreadable or not shown before their time.
    AgedTooEarly,
    /// Rows, keys and partitions that are there, undeleted or shown after their time.
    AgedTooLate,
    /// Lists from before a change that their user had made or was pushed.
    ListsStale,
    /// Reads that a healthy replica left to the primary, if they are too many.
    OnPrimary,
    /// Copies of texts whose day is gone that a key opens, and such texts and their keys in files.
    CanaryOpened,
    /// Old texts that are neither in a row nor in a pack, packs that the object store lacks or has damaged, and packs that were
    /// recorded, or rows with texts dropped, though reading back failed.
    TextsLost,
    /// Texts that stay in rows of days whose texts have moved, beyond those that have to, and days that have not moved.
    TextsLeft,
    /// Old texts in clear in objects of the store.
    TextsInClear,
    /// Pages of old history with a hole, another text or a wrong end, and requests for pages that were refused for good.
    PagesWrong,
}

impl Check {
    /// For the table: what is counted.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotStored => "not stored",
            Self::NotInHistory => "not in history",
            Self::NotShown => "not shown",
            Self::ShownTwice => "shown twice",
            Self::OutOfOrder => "out of order",
            Self::Holes => "holes",
            Self::TimeBackwards => "time backwards",
            Self::Phantoms => "phantoms",
            Self::Doubled => "doubled",
            Self::Moved => "moved",
            Self::UnreadWrong => "unread wrong",
            Self::NotNotified => "not notified",
            Self::NotifiedTwice => "notified twice",
            Self::NotifiedWrongly => "notified wrongly",
            Self::NotifiedLate => "notified late",
            Self::PresenceWrong => "presence wrong",
            Self::PresenceLate => "presence late",
            Self::TypingLate => "typing late",
            Self::NotifiedThoughMuted => "notified though muted",
            Self::PushedTooOften => "pushed too often",
            Self::MarksWrong => "marks wrong",
            Self::MembersWrong => "members wrong",
            Self::ChangeNotTold => "change not told",
            Self::AudienceWrong => "audience wrong",
            Self::AcceptedWrongly => "accepted wrongly",
            Self::DeadLetters => "dead letters",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Panics => "panics",
            Self::Unsettled => "unsettled",
            Self::Grown => "grown",
            Self::Slowed => "slowed",
            Self::LeasesOverlap => "leases overlap",
            Self::OverCapacity => "over capacity",
            Self::CasesLost => "cases lost",
            Self::CasesStarved => "cases starved",
            Self::MissedAgain => "missed again",
            Self::LedgerWrong => "ledger wrong",
            Self::NotInformed => "not informed",
            Self::StaffShown => "staff shown",
            Self::NumbersWrong => "numbers wrong",
            Self::Faults => "faults",
            Self::AgedTooEarly => "aged too early",
            Self::AgedTooLate => "aged too late",
            Self::ListsStale => "lists stale",
            Self::OnPrimary => "on primary",
            Self::CanaryOpened => "canary opened",
            Self::TextsLost => "texts lost",
            Self::TextsLeft => "texts left",
            Self::TextsInClear => "texts in clear",
            Self::PagesWrong => "pages wrong",
        }
    }

    /// For people: the end of a sentence that begins with `0 of 123`.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotStored => "accepted messages are not in PostgreSQL",
            Self::NotInHistory => "accepted messages are missing or different in history",
            Self::NotShown => "accepted messages were not shown, counted for each device of each participant",
            Self::ShownTwice => "showings were of a message that the device had been shown before",
            Self::OutOfOrder => "showings came after one with a higher number",
            Self::Holes => "numbers of conversations are missing or there twice in PostgreSQL",
            Self::TimeBackwards => "messages are earlier than the one before them",
            Self::Phantoms => "rows, showings and entries of history are of nothing that was sent like this",
            Self::Doubled => "ids became more than one message",
            Self::Moved => "answers, rows and showings give another number or time than the first answer",
            Self::UnreadWrong => "entries of conversation lists differ from what PostgreSQL has",
            Self::NotNotified => {
                "accepted messages were not notified, counted for each registered device of each participant who is away"
            }
            Self::NotifiedTwice => "notifications were of a message that the device had been notified of before",
            Self::NotifiedWrongly => "notifications should not have been sent",
            Self::NotifiedLate => "notifications came later than they have to",
            Self::PresenceWrong => "times somebody is told that somebody is online who isn't there, or the reverse",
            Self::PresenceLate => "changes of presence were told later than they have to be",
            Self::TypingLate => "times somebody was said to be writing for too long",
            Self::NotifiedThoughMuted => {
                "messages in muted conversations were notified, counted for each registered device of the one who muted"
            }
            Self::PushedTooOften => {
                "messages were pushed to a device more often than its connections and redelivery explain"
            }
            Self::MarksWrong => {
                "read marks were lost, made up, or not told, counted in PostgreSQL and for each device of another participant"
            }
            Self::MembersWrong => "conversations have other participants in PostgreSQL than were answered",
            Self::ChangeNotTold => "devices do not know the newest change of a conversation of theirs",
            Self::AudienceWrong => "messages were shown to a device of a removed user, or not to one of an added user",
            Self::AcceptedWrongly => "messages of removed or blocked users were accepted",
            Self::DeadLetters => "entries of the log were set aside wrongly, or should have been",
            Self::Refused => "good messages were refused though nothing that they need was missing",
            Self::Ended => "processes ended by themselves",
            Self::Panics => "lines of logs tell of a panic",
            Self::Unsettled => "entries of the log and jobs of the queue were never dealt with by a worker",
            Self::Grown => "gateways keep more memory than they may for what they refused",
            Self::Slowed => "times of other users rose by more than half",
            Self::LeasesOverlap => "assignments began before the one before them had ended",
            Self::OverCapacity => "assignments of the router went to an agent without room",
            Self::CasesLost => {
                "last messages of customers were neither answered nor resolved, and their cases are closed"
            }
            Self::CasesStarved => "cases wait though an agent that may have them has room",
            Self::MissedAgain => {
                "assignments of the router went to an agent that had missed the case, though another had not"
            }
            Self::LedgerWrong => "assignments have no end or no reason, or are missing",
            Self::NotInformed => "assignments were neither pushed nor notified to their agents",
            Self::StaffShown => "bytes sent to customers begin an id of the staff",
            Self::NumbersWrong => {
                "numbers of business conversations differ from their messages or from what was resolved"
            }
            Self::Faults => "lines of logs tell of a fault or of a violated constraint",
            Self::AgedTooEarly => "things that are not due have aged out",
            Self::AgedTooLate => "things that are due have not aged out",
            Self::ListsStale => "lists were from before a change that their user had made or was pushed",
            Self::OnPrimary => "reads left more to the primary than a healthy replica may",
            Self::CanaryOpened => "tries to read texts of days that are gone succeeded",
            Self::TextsLost => "old texts and packs are lost, or were relied on without being read back",
            Self::TextsLeft => "rows and days keep texts that should have moved to the object store",
            Self::TextsInClear => "objects of the store have an old text in clear",
            Self::PagesWrong => "pages of old history are wrong",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    pub violations: u64,
    /// How many could have been.
    pub of: u64,
    /// What was found first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

impl Finding {
    /// Nothing was looked at yet.
    pub const fn new(check: Check) -> Self {
        Self { check, violations: 0, of: 0, first: None }
    }

    /// Looks at one more; `Err` says what is wrong with it.
    pub fn look(&mut self, outcome: Result<(), String>) {
        self.of += 1;
        if let Err(what) = outcome {
            self.violate(what);
        }
    }

    /// Counts a violation among those that were looked at.
    pub fn violate(&mut self, what: String) {
        self.violations += 1;
        self.first.get_or_insert(what);
    }

    /// Whether nothing is wrong.
    pub const fn is_held(&self) -> bool {
        self.violations == 0
    }

    /// Whether there was nothing to look at, so that nothing found says nothing.
    pub const fn is_void(&self) -> bool {
        self.of == 0
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.violations, self.of, self.check.sentence())?;
        match &self.first {
            Some(first) => write!(f, "; the first: {first}"),
            None => Ok(()),
        }
    }
}

/// An error that names every check that found something.
///
/// # Errors
/// If one did.
pub fn ensure_held(findings: &[Finding]) -> Result<()> {
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.is_held()).map(ToString::to_string).collect();
    if broken.is_empty() { Ok(()) } else { bail!("{}", broken.join("; ")) }
}
