//! What staff of a business see and change: cases, their own status, the inbox and the settings of the business.

use serde::{Deserialize, Serialize};

use super::{Hours, Message, UserProfile};
use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
};

/// Writes an enum whose variants have names on the wire and in the database.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value of a later version. Never sent in a request.
            #[serde(other)]
            Unknown,
        }

        impl $name {
            /// All values that this version knows.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in the database and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown => "unknown",
                }
            }

            /// The value with this name.
            pub fn named(name: &str) -> Self {
                Self::ALL.iter().copied().find(|value| value.as_str() == name).unwrap_or(Self::Unknown)
            }
        }
    };
}

named!(
    /// Where a case stands.
    CaseState {
        /// The customer waits for an agent.
        Waiting = "waiting",
        /// An agent has it.
        Assigned = "assigned",
        /// It is closed. The next message of the customer opens another one.
        Resolved = "resolved",
    }
);

named!(
    /// What a member of staff may do. Each role includes the ones before it.
    StaffRole {
        /// Answers customers.
        Agent = "agent",
        /// Reads all conversations of the business, and changes assignments.
        Supervisor = "supervisor",
        /// Changes the settings of the business.
        Admin = "admin",
    }
);

impl StaffRole {
    /// Whether it reads all conversations of the business and changes all assignments. A role of a later version does not.
    pub const fn leads(self) -> bool {
        matches!(self, Self::Supervisor | Self::Admin)
    }
}

named!(
    /// Whether the router gives an agent cases.
    StaffStatus {
        /// It does.
        Available = "available",
        /// It does not.
        Away = "away",
    }
);

named!(
    /// How the router chooses among agents.
    Strategy {
        /// The agent with the fewest cases, then the one that was given none for the longest time.
        LeastBusy = "least_busy",
        /// The agent that was given none for the longest time.
        RoundRobin = "round_robin",
        /// It chooses none: agents claim cases.
        Manual = "manual",
    }
);

named!(
    /// Why an agent was given a case.
    AssignmentReason {
        /// The router chose the agent.
        Routed = "routed",
        /// The agent took it.
        Claimed = "claimed",
        /// The agent before handed it over.
        Transferred = "transferred",
        /// A supervisor chose the agent.
        Assigned = "assigned",
        /// The agent, or a supervisor, opened the case again.
        Reopened = "reopened",
    }
);

named!(
    /// Why an agent has a case no more.
    ReleaseReason {
        /// Resolved by staff.
        Resolved = "resolved",
        /// The customer was silent for long after the last answer.
        Quiet = "quiet",
        /// Handed to another agent.
        Transferred = "transferred",
        /// Given back to the queue.
        GivenBack = "given_back",
        /// No first answer in time.
        AnswerMissed = "answer_missed",
        /// No later answer in time.
        ReplyMissed = "reply_missed",
        /// The agent was neither online nor had a device.
        Gone = "gone",
        /// The agent is no longer on the staff.
        LeftStaff = "left_staff",
        /// The business was closed.
        BusinessClosed = "business_closed",
    }
);

named!(
    /// What the router found of an agent.
    Verdict {
        /// Was given the case.
        Chosen = "chosen",
        /// Would have been possible; another one came first.
        LessPreferred = "less_preferred",
        /// Has as many cases as the capacity allows.
        Full = "full",
        /// Has had this case before, and gave it back or did not answer in time.
        Missed = "missed",
        /// Is the customer.
        IsCustomer = "is_customer",
        /// Is neither online nor has a device.
        Unreachable = "unreachable",
    }
);

named!(
    /// Whether a business answers now.
    Availability {
        /// An agent has room.
        Available = "available",
        /// Agents are there, and none has room.
        Busy = "busy",
        /// No agent is there.
        Away = "away",
        /// It takes no chats, or its hours are enforced and it is not open.
        Closed = "closed",
    }
);

/// Whether a business answers now, aggregated from its hours and its agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BusinessAvailability {
    /// The business.
    pub business_id: BusinessId,
    /// Whether it answers.
    pub state: Availability,
    /// When its hours begin, in milliseconds since 1970; absent while they last, and if that is more than 30 days ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// When its hours end, in milliseconds since 1970; absent while it is closed, and if that is more than 8 days ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// While `busy`: how many cases wait for an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

/// The queue of a business, as a member of its staff is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusinessQueue {
    /// Cases that wait for an agent.
    pub waiting: u32,
    /// Since when the oldest of them has been waiting, in milliseconds since 1970; absent if none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_waiting_since: Option<Timestamp>,
    /// Cases that the user has.
    pub mine: u32,
    /// At most 50 members of the staff, available ones first. To supervisors and admins only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staff: Option<Vec<StaffLoad>>,
}

/// A member of the staff, as supervisors are shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaffLoad {
    /// The member.
    pub user_id: UserId,
    /// The role of the member.
    pub role: StaffRole,
    /// Whether the router gives the member cases.
    pub status: StaffStatus,
    /// Whether the member is connected, or has a device that is registered for notifications.
    pub is_reachable: bool,
    /// Cases that the member has.
    pub load: u32,
    /// Cases that the member may have.
    pub capacity: u32,
}

/// A business that a connection watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedBusiness {
    /// Whether it answers.
    pub availability: BusinessAvailability,
    /// Its queue. To its staff only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<BusinessQueue>,
}

/// The current or last case of a business conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Case {
    /// The first is 1.
    pub number: u32,
    /// Where it stands.
    pub state: CaseState,
    /// Since when it has been waiting for an agent, in milliseconds since 1970. Kept while an agent has the case.
    pub waiting_since: Timestamp,
}

/// An agent that the router compared, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Considered {
    /// The agent.
    pub user_id: UserId,
    /// Cases that the agent had.
    pub load: u32,
    /// Whether the agent was connected.
    pub is_online: bool,
    /// What the router found.
    pub verdict: Verdict,
}

/// One time that an agent had the case of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// Grows with each assignment.
    pub assignment_id: u64,
    /// The case.
    pub case_number: u32,
    /// The agent.
    pub agent_id: UserId,
    /// The member of staff who decided; absent if it was the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_by: Option<UserId>,
    /// Why.
    pub reason: AssignmentReason,
    /// The strategy of the business then.
    pub strategy: Strategy,
    /// How long the case had waited, in milliseconds.
    pub waited_ms: u64,
    /// The agents that the router compared, the most preferred first; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Considered>,
    /// When, in milliseconds since 1970.
    pub assigned_at: Timestamp,
    /// When it ended; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_reason: Option<ReleaseReason>,
}

/// The assignments of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AssignmentList {
    /// The newest first; at most 100.
    pub assignments: Vec<Assignment>,
}

/// A business of whose staff the asking user is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StaffedBusiness {
    /// The business.
    pub business_id: BusinessId,
    /// The role of the asking user.
    pub role: StaffRole,
    /// Whether the router gives the asking user cases.
    pub status: StaffStatus,
    /// Until then `available`, in milliseconds since 1970; absent if without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_until: Option<Timestamp>,
    /// Cases that the asking user has.
    pub load: u32,
    /// Cases that the asking user may have.
    pub capacity: u32,
    /// Cases of the business that wait for an agent.
    pub waiting: u32,
}

/// The businesses of whose staff the asking user is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StaffedBusinessList {
    /// Sorted by id.
    pub businesses: Vec<StaffedBusiness>,
}

/// A conversation in the inbox of a business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BusinessConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Grows by one with each change of its participants or its case.
    pub version: u64,
    /// The customer.
    pub customer: UserProfile,
    /// The current or last case.
    pub case: Case,
    /// The agent that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<UserId>,
    /// The agent that had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_agent_id: Option<UserId>,
    /// Whether the customer has written since the last answer.
    pub needs_answer: bool,
    /// How often the case was given back to the queue.
    pub given_back: u32,
    /// The last message, if the asking user has the case. Supervisors read the history of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<Message>,
}

/// A page of the inbox of a business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BusinessConversationPage {
    /// Waiting ones: the oldest first. Others: the one that was assigned or resolved last first.
    pub conversations: Vec<BusinessConversation>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Says whether the asking user takes cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SetStatus {
    /// The status.
    pub status: StaffStatus,
    /// With `available`: until then, in milliseconds since 1970. Then the status becomes `away`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// With `away`: whether the cases of the asking user go back to the queue. Otherwise the user keeps them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gives_back: bool,
}

/// Gives a case to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SetAgent {
    /// The agent: the asking user claims the case; another one is handed it.
    pub user_id: UserId,
    /// The `version` of the conversation that the decision is based on. Another version is a `conflict`.
    pub version: u64,
    /// Also to an agent who is away, unreachable or full. Supervisors only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Resolves a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResolveCase {
    /// The last message that the asking user has seen; 0 if there is none. A later message of the customer opens the next case.
    pub seq: Seq,
}

/// How long things may take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The first answer of an agent who is online: 10 to 86,400.
    pub answer_max_s: u32,
    /// The first answer of an agent who has to be notified: 10 to 86,400.
    pub notified_max_s: u32,
    /// Each later answer: 10 to 86,400.
    pub reply_max_s: u32,
    /// Silence after the last answer, before the case is resolved: 60 to 604,800.
    pub quiet_max_s: u32,
    /// How long after it was resolved a case prefers its last agent when it opens again: 0 to 2,592,000.
    pub affinity_s: u32,
}

/// How a business deals with its cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BusinessSettings {
    /// Grows by one with each change. In a change: the version that it is based on; another one is a `conflict`.
    pub settings_version: u64,
    /// How the router chooses among agents.
    pub strategy: Strategy,
    /// Cases that an agent may have at a time: 1 to 50.
    pub capacity: u32,
    /// How long things may take.
    pub clocks: Clocks,
    /// When the business is open.
    #[serde(default)]
    pub hours: Hours,
}
