//! The evidence of an audit of business conversations beside their messages: cases, assignments, and the bytes and notifications
//! that agents and customers got. Records only.

use std::collections::BTreeMap;

use chat_client::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, UserId},
    positions::Seq,
    wire::{CaseState, Considered, ReleaseReason},
};

use super::evidence::Row;

/// A row of `cases`, with the numbers of its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub conversation_id: ConversationId,
    pub business_id: BusinessId,
    pub customer_id: UserId,
    pub number: u32,
    pub state: CaseState,
    pub agent_id: Option<UserId>,
    pub customer_seq: Seq,
    pub agent_seq: Seq,
    pub resolved_seq: Seq,
}

/// A row of `staff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub business_id: BusinessId,
    pub user_id: UserId,
    pub capacity: u32,
    pub is_available: bool,
}

/// A row of `assignments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub assignment_id: u64,
    pub conversation_id: ConversationId,
    pub business_id: BusinessId,
    pub case_number: u32,
    pub agent_id: UserId,
    /// The router has chosen the agent.
    pub is_routed: bool,
    pub candidates: Vec<Considered>,
    pub assigned_at: Timestamp,
    pub released_at: Option<Timestamp>,
    pub release_reason: Option<ReleaseReason>,
}

/// Up to which message agents have resolved the cases of a conversation, by their own requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The furthest number of a request that was answered.
    pub answered: Seq,
    /// The furthest number of a request.
    pub tried: Seq,
}

/// The assignments of which an agent was informed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Informed {
    /// Whether the agent is connected at the end.
    pub is_connected: bool,
    /// Whether the agent has a registered device.
    pub has_device: bool,
    /// The newest change of each conversation that was pushed.
    pub changed: BTreeMap<ConversationId, Timestamp>,
    /// When the conversation list was last loaded.
    pub listed_at: Option<Timestamp>,
    /// Assignments and messages that a provider took for a device of the agent.
    pub notified: Vec<(ConversationId, Timestamp)>,
}

/// The result of a search through all bytes that were sent to a customer's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    pub device: String,
    pub bytes: u64,
    /// Ids of staff.
    pub staff: u64,
    /// The id of the business, which has to be there.
    pub business: u64,
}

/// Everything about the cases of some businesses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseEvidence {
    pub cases: Vec<Case>,
    pub staff: Vec<Member>,
    /// In the order of their beginning.
    pub leases: Vec<Lease>,
    /// The messages in PostgreSQL.
    pub rows: Vec<Row>,
    pub resolved: BTreeMap<ConversationId, Resolved>,
    /// Of each agent.
    pub informed: BTreeMap<UserId, Informed>,
    /// Of each device of a customer.
    pub searched: Vec<Searched>,
    /// Lines of logs, and those that tell of a fault or of a violated constraint.
    pub log_lines: u64,
    pub faults: Vec<String>,
}

impl Lease {
    /// Whether the agent had the case at a moment.
    pub fn is_at(&self, at: Timestamp) -> bool {
        self.assigned_at <= at && self.released_at.is_none_or(|released_at| released_at > at)
    }

    /// Whether it ended because the agent did not answer or did not want the case.
    pub fn is_missed(&self) -> bool {
        matches!(
            self.release_reason,
            Some(
                ReleaseReason::GivenBack
                    | ReleaseReason::AnswerMissed
                    | ReleaseReason::ReplyMissed
                    | ReleaseReason::Gone
                    | ReleaseReason::LeftStaff
            )
        )
    }
}
