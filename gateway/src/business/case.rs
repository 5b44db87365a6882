//! A case and how it changes. Pure.

use std::time::Duration;

use chat_shared::{
    clock::Timestamp,
    event::{BusinessPart, Participants, ParticipantsChanged},
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{AssignmentReason, Case, CaseState, Considered, Participant, ReleaseReason, Role},
};

/// A business conversation and its current or last case, as PostgreSQL has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CaseRow {
    pub conversation_id: ConversationId,
    pub business_id: BusinessId,
    pub customer_id: UserId,
    /// Of the participants.
    pub version: u64,
    pub customer_seq: Seq,
    pub agent_seq: Seq,
    pub resolved_seq: Seq,
    pub number: u32,
    pub state: CaseState,
    pub agent_id: Option<UserId>,
    pub last_agent_id: Option<UserId>,
    pub opened_at: Timestamp,
    pub waiting_since: Timestamp,
    pub assigned_at: Option<Timestamp>,
    pub accepted_at: Option<Timestamp>,
    /// When the case, or the one before it, was resolved.
    pub resolved_at: Option<Timestamp>,
    pub was_online: bool,
    pub due_at: Option<Timestamp>,
    /// The clocks run from here on, if that is later than what they run from else.
    pub clock_from: Option<Timestamp>,
    pub missed_by: Vec<UserId>,
    pub given_back: u32,
}

/// A new row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewAssignment {
    pub assigned_by: Option<UserId>,
    pub reason: AssignmentReason,
    /// The agents that the router compared.
    pub considered: Vec<Considered>,
}

impl NewAssignment {
    /// By a decision of a member of staff.
    pub const fn by(user_id: UserId, reason: AssignmentReason) -> Self {
        Self { assigned_by: Some(user_id), reason, considered: Vec::new() }
    }
}

/// A change of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub before: CaseRow,
    pub after: CaseRow,
    /// The agent that gets it.
    pub assignment: Option<NewAssignment>,
    /// Why the agent that had it has it no more.
    pub release: Option<ReleaseReason>,
}

impl CaseRow {
    /// Whether the customer has written since the last answer and the last resolve.
    pub fn needs_answer(&self) -> bool {
        self.customer_seq > self.agent_seq.max(self.resolved_seq)
    }

    /// As clients are shown it.
    pub const fn shown(&self) -> Case {
        Case { number: self.number, state: self.state, waiting_since: self.waiting_since }
    }

    /// The participants.
    pub fn participants(&self, is_closed: bool) -> Participants {
        let Self { business_id, customer_id, version, agent_id, .. } = *self;
        let customer = Participant { user_id: customer_id, role: Role::Customer };
        let agent = agent_id.map(|user_id| Participant { user_id, role: Role::Agent });
        Participants {
            version,
            list: [Some(customer), agent].into_iter().flatten().collect(),
            blocked_by: Vec::new(),
            business: Some(BusinessPart { business_id, case: self.shown(), is_closed }),
        }
    }

    /// The change into `after`, whose version is the next one.
    fn moved(self, mut after: Self, assignment: Option<NewAssignment>, release: Option<ReleaseReason>) -> Move {
        after.version = self.version + 1;
        Move { before: self, after, assignment, release }
    }

    /// A change of nothing but the version: whether the business is open is part of each event.
    pub fn unchanged(self) -> Move {
        let after = self.clone();
        self.moved(after, None, None)
    }

    /// Opens the next case of a conversation whose case is resolved.
    pub fn open(self, now: Timestamp) -> Move {
        let after = Self {
            number: self.number + 1,
            state: CaseState::Waiting,
            opened_at: now,
            waiting_since: now,
            accepted_at: None,
            missed_by: Vec::new(),
            given_back: 0,
            ..self.clone()
        };
        self.moved(after, None, None)
    }

    /// Gives the case to an agent, who may be the next after another one.
    pub fn assign(self, to: UserId, contact: Contact, assignment: NewAssignment, now: Timestamp) -> Move {
        let release = self.agent_id.map(|_| ReleaseReason::Transferred);
        let after = Self {
            state: CaseState::Assigned,
            agent_id: Some(to),
            last_agent_id: Some(to),
            assigned_at: Some(now),
            accepted_at: None,
            was_online: contact.is_online,
            due_at: Some(now.after(contact.due_after)),
            ..self.clone()
        };
        self.moved(after, Some(assignment), release)
    }

    /// Lets the case wait again, with its old age.
    pub fn give_back(self, reason: ReleaseReason) -> Move {
        // Otherwise the router would choose the same agent again.
        let mut missed_by = self.missed_by.clone();
        missed_by.extend(self.agent_id.filter(|agent_id| !self.missed_by.contains(agent_id)));
        let after = Self {
            state: CaseState::Waiting,
            agent_id: None,
            assigned_at: None,
            accepted_at: None,
            due_at: None,
            missed_by,
            given_back: self.given_back + 1,
            ..self.clone()
        };
        let release = self.agent_id.map(|_| reason);
        self.moved(after, None, release)
    }

    /// Resolves the case: messages up to `seq` need no answer.
    pub fn resolve(self, seq: Seq, reason: ReleaseReason, now: Timestamp) -> Move {
        let after = Self {
            state: CaseState::Resolved,
            agent_id: None,
            assigned_at: None,
            accepted_at: None,
            due_at: None,
            resolved_at: Some(now),
            resolved_seq: self.resolved_seq.max(seq),
            ..self.clone()
        };
        let release = self.agent_id.map(|_| reason);
        self.moved(after, None, release)
    }
}

/// How an agent is reached at the time of an assignment, and when the sweep looks at the case first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contact {
    pub is_online: bool,
    pub due_after: Duration,
}

impl Move {
    /// This change and the next one of the same case as one.
    #[must_use]
    pub fn then(self, next: impl FnOnce(CaseRow) -> Self) -> Self {
        let version = self.after.version;
        let mut last = next(self.after);
        last.after.version = version;
        Self {
            before: self.before,
            after: last.after,
            assignment: last.assignment,
            release: self.release.or(last.release),
        }
    }

    /// The agent that takes part no longer.
    pub fn removed(&self) -> Option<UserId> {
        self.before.agent_id.filter(|agent_id| self.after.agent_id != Some(*agent_id))
    }

    /// The agent that takes part from now on.
    pub fn added(&self) -> Option<UserId> {
        self.after.agent_id.filter(|agent_id| self.before.agent_id != Some(*agent_id))
    }

    /// The fact for the log. An agent begins with a read mark of its own, so counts as returned.
    pub fn fact(&self) -> ParticipantsChanged {
        let added: Vec<_> = self.added().into_iter().collect();
        ParticipantsChanged { returned: added.clone(), added, removed: self.removed().into_iter().collect(), lsn: None }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn waiting() -> CaseRow {
        CaseRow {
            conversation_id: ConversationId::random(),
            business_id: BusinessId::random(),
            customer_id: UserId::random(),
            version: 1,
            customer_seq: Seq(3),
            agent_seq: Seq(0),
            resolved_seq: Seq(0),
            number: 1,
            state: CaseState::Waiting,
            agent_id: None,
            last_agent_id: None,
            opened_at: Timestamp(1000),
            waiting_since: Timestamp(1000),
            assigned_at: None,
            accepted_at: None,
            resolved_at: None,
            was_online: false,
            due_at: None,
            clock_from: None,
            missed_by: Vec::new(),
            given_back: 0,
        }
    }

    fn by_router() -> NewAssignment {
        NewAssignment { assigned_by: None, reason: AssignmentReason::Routed, considered: Vec::new() }
    }

    const ONLINE: Contact = Contact { is_online: true, due_after: Duration::from_mins(2) };

    #[test]
    fn a_case_that_is_given_back_keeps_its_age_and_remembers_the_agent_who_missed_it() {
        let (case, agent) = (waiting(), UserId::random());
        let assigned = case.assign(agent, ONLINE, by_router(), Timestamp(5000));
        assert_eq!((assigned.added(), assigned.removed(), assigned.after.version), (Some(agent), None, 2));
        assert_eq!(assigned.after.due_at, Some(Timestamp(125_000)));
        let back = assigned.after.give_back(ReleaseReason::AnswerMissed);
        assert_eq!(
            (back.added(), back.removed(), back.release),
            (None, Some(agent), Some(ReleaseReason::AnswerMissed))
        );
        assert_eq!((back.after.waiting_since, &back.after.missed_by[..]), (Timestamp(1000), &[agent][..]));
        assert_eq!((back.after.state, back.after.given_back, back.after.due_at), (CaseState::Waiting, 1, None));
        let chosen = back.after.clone().assign(agent, ONLINE, by_router(), Timestamp(6000));
        let again = chosen.after.give_back(ReleaseReason::GivenBack);
        assert_eq!(again.after.missed_by, [agent], "each agent once");
    }

    #[test]
    fn a_resolve_never_lowers_its_number_and_a_later_message_needs_an_answer() {
        let case = CaseRow { resolved_seq: Seq(2), ..waiting() };
        assert!(case.needs_answer());
        let resolved = case.resolve(Seq(1), ReleaseReason::Resolved, Timestamp(9)).after;
        assert_eq!((resolved.resolved_seq, resolved.state), (Seq(2), CaseState::Resolved));
        assert!(resolved.needs_answer(), "message 3 came after what was resolved");
        let all = resolved.resolve(Seq(3), ReleaseReason::Resolved, Timestamp(9)).after;
        assert!(!all.needs_answer());
        let next = all.open(Timestamp(20));
        assert_eq!((next.after.number, next.after.waiting_since), (2, Timestamp(20)));
    }

    #[test]
    fn two_changes_of_one_case_become_one_change_of_participants() {
        let agent = UserId::random();
        let resolved = CaseRow { state: CaseState::Resolved, ..waiting() };
        let both = resolved.open(Timestamp(7)).then(|case| case.assign(agent, ONLINE, by_router(), Timestamp(8)));
        assert_eq!((both.before.version, both.after.version), (1, 2));
        assert_eq!((both.added(), both.after.number), (Some(agent), 2));
        assert_eq!(both.fact().returned, [agent]);
        let participants = both.after.participants(false);
        let roles: Vec<_> = participants.list.iter().map(|participant| participant.role).collect();
        assert_eq!((participants.version, &roles[..]), (2, &[Role::Customer, Role::Agent][..]));
    }

    #[test]
    fn a_transfer_ends_one_lease_and_begins_the_next() {
        let [first, second] = [UserId::random(), UserId::random()];
        let first_lease = waiting().assign(first, ONLINE, by_router(), Timestamp(1));
        let transfer = NewAssignment { reason: AssignmentReason::Transferred, assigned_by: Some(first), ..by_router() };
        let change = first_lease.after.assign(second, ONLINE, transfer, Timestamp(2));
        assert_eq!((change.removed(), change.added()), (Some(first), Some(second)));
        assert_eq!(change.release, Some(ReleaseReason::Transferred));
    }
}
