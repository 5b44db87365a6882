//! Checks of cases and assignments of business conversations.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chat_client::{
    ids::{ConversationId, UserId},
    positions::Seq,
    wire::{CaseState, Verdict},
};

use super::{holds, name};
use crate::audit::{
    cases::{Case, CaseEvidence, Informed, Lease, Member},
    finding::{Check, Finding},
};

/// How long an agent may take to be informed of an assignment: a phone that vanished is noticed within 30 s.
const INFORMED_WITHIN: Duration = Duration::from_secs(35);

/// Compares cases with messages, assignments with each other, and both with what agents and customers were sent.
pub fn audit_cases(evidence: &CaseEvidence) -> Vec<Finding> {
    vec![
        leases_overlap(evidence),
        over_capacity(evidence),
        cases_lost(evidence),
        cases_starved(evidence),
        missed_again(evidence),
        ledger_wrong(evidence),
        not_informed(evidence),
        notified_wrongly(evidence),
        staff_shown(evidence),
        numbers_wrong(evidence),
        faults(evidence),
    ]
}

/// A conversation has one agent at a time.
fn leases_overlap(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::LeasesOverlap);
    let mut last: BTreeMap<ConversationId, &Lease> = BTreeMap::new();
    for lease in &evidence.leases {
        let before = last.insert(lease.conversation_id, lease);
        let is_apart = before.is_none_or(|before| before.released_at.is_some_and(|at| at <= lease.assigned_at));
        finding.look(holds(is_apart, || format!("{} began before the one before it had ended", lease.name())));
    }
    finding
}

/// The router gives no agent more cases than the capacity.
fn over_capacity(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::OverCapacity);
    for lease in evidence.leases.iter().filter(|lease| lease.is_routed) {
        let is_beside = |other: &&Lease| {
            (other.business_id, other.agent_id) == (lease.business_id, lease.agent_id) && other.is_at(lease.assigned_at)
        };
        let count = evidence.leases.iter().filter(is_beside).count() as u64;
        let is_it = |member: &&Member| (member.business_id, member.user_id) == (lease.business_id, lease.agent_id);
        let capacity = evidence.staff.iter().find(is_it).map_or(0, |member| u64::from(member.capacity));
        finding.look(holds(count <= capacity, || format!("{} is case {count} of {capacity}", lease.name())));
    }
    finding
}

/// The customer's last message has an answer after it, was resolved with its number, or its case is open.
fn cases_lost(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::CasesLost);
    for case in &evidence.cases {
        let (customer_seq, agent_seq) = stored_numbers(evidence, case);
        let resolved = evidence.resolved.get(&case.conversation_id).map_or(Seq::ZERO, |resolved| resolved.tried);
        let is_open = matches!(case.state, CaseState::Waiting | CaseState::Assigned);
        finding.look(holds(is_open || customer_seq <= agent_seq.max(resolved), || {
            let (answered, resolved) = (agent_seq.0, resolved.0);
            let message = name(case.conversation_id, customer_seq);
            format!("{message}: answered to {answered}, resolved to {resolved}, and the case is closed")
        }));
    }
    finding
}

/// No case waits while an available, reachable agent has room that the router may give it.
fn cases_starved(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::CasesStarved);
    for case in &evidence.cases {
        let reachable: Vec<_> = evidence
            .staff
            .iter()
            .filter(|member| member.business_id == case.business_id && member.user_id != case.customer_id)
            .filter(|member| member.is_available && member.capacity > 0)
            .filter(|member| evidence.informed.get(&member.user_id).is_some_and(Informed::is_reachable))
            .collect();
        let missed = missed(&evidence.leases, case.conversation_id, case.number);
        let others_exist = reachable.iter().any(|member| !missed.contains(&member.user_id));
        let with_room = reachable.into_iter().find(|member| {
            let has_it =
                |other: &&Case| other.business_id == case.business_id && other.agent_id == Some(member.user_id);
            let load = evidence.cases.iter().filter(has_it).count() as u64;
            load < u64::from(member.capacity) && !(others_exist && missed.contains(&member.user_id))
        });
        finding.look(holds(case.state != CaseState::Waiting || with_room.is_none(), || {
            format!("the case of conversation {} waits though an agent has room", case.conversation_id.as_uuid())
        }));
    }
    finding
}

/// The router gives a case to an agent that has missed it only if every other agent that it can reach has missed it too.
fn missed_again(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::MissedAgain);
    for (number, lease) in evidence.leases.iter().enumerate().filter(|(_, lease)| lease.is_routed) {
        let missed = missed(&evidence.leases[..number], lease.conversation_id, lease.case_number);
        let is_other = |verdict: Verdict| !matches!(verdict, Verdict::IsCustomer | Verdict::Unreachable);
        let others = lease.candidates.iter().filter(|it| is_other(it.verdict) && !missed.contains(&it.user_id));
        let (others, has_missed) = (others.count(), missed.contains(&lease.agent_id));
        let is_chosen =
            |user_id| lease.candidates.iter().any(|it| it.user_id == user_id && it.verdict == Verdict::Chosen);
        finding.look(holds(is_chosen(lease.agent_id) && !(has_missed && others > 0), || {
            format!("{} went to an agent that had missed the case, and not to one of {others} others", lease.name())
        }));
    }
    finding
}

/// The agents that have missed a case, by these assignments.
fn missed(leases: &[Lease], conversation_id: ConversationId, number: u32) -> BTreeSet<UserId> {
    let of_case = |lease: &&Lease| (lease.conversation_id, lease.case_number) == (conversation_id, number);
    leases.iter().filter(of_case).filter(|lease| lease.is_missed()).map(|lease| lease.agent_id).collect()
}

/// Each assignment of a case that its agent has no more has an end and a reason, and each assigned case has its assignment.
fn ledger_wrong(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::LedgerWrong);
    let cases: BTreeMap<_, _> = evidence.cases.iter().map(|case| (case.conversation_id, case)).collect();
    for lease in &evidence.leases {
        let has_it = cases.get(&lease.conversation_id).is_some_and(|case| {
            case.state == CaseState::Assigned
                && (case.agent_id, case.number) == (Some(lease.agent_id), lease.case_number)
        });
        let is_right = match (lease.released_at, lease.release_reason) {
            (None, None) => has_it,
            (Some(released_at), Some(_)) => released_at >= lease.assigned_at,
            (None, Some(_)) | (Some(_), None) => false,
        };
        finding.look(holds(is_right, || format!("{} has no end, or no reason for it", lease.name())));
    }
    for case in evidence.cases.iter().filter(|case| case.state == CaseState::Assigned) {
        let is_open = |lease: &&Lease| lease.conversation_id == case.conversation_id && lease.released_at.is_none();
        let open: Vec<_> = evidence.leases.iter().filter(is_open).map(|lease| Some(lease.agent_id)).collect();
        finding.look(holds(open == [case.agent_id], || {
            format!("conversation {} has an agent and {} assignments", case.conversation_id.as_uuid(), open.len())
        }));
    }
    finding
}

/// An agent is pushed each change of its own, finds it in the list, or is notified of it. Without a connection at the end it may
/// not have been informed of what lasted shortly.
fn not_informed(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::NotInformed);
    let nothing = Informed::default();
    for lease in &evidence.leases {
        let informed = evidence.informed.get(&lease.agent_id).unwrap_or(&nothing);
        let is_short = lease.released_at.is_some_and(|at| at < lease.assigned_at.after(INFORMED_WITHIN));
        if is_short && !informed.is_connected {
            continue;
        }
        let is_after = |at: &chat_client::clock::Timestamp| *at >= lease.assigned_at;
        let is_known = informed.changed.get(&lease.conversation_id).is_some_and(is_after)
            || informed.listed_at.as_ref().is_some_and(is_after)
            || informed.notified.iter().any(|(id, at)| *id == lease.conversation_id && is_after(at));
        finding.look(holds(is_known, || format!("{} was neither pushed nor notified to its agent", lease.name())));
    }
    finding
}

/// Devices of agents are notified of conversations that the agents have had.
fn notified_wrongly(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::NotifiedWrongly);
    for (user_id, informed) in &evidence.informed {
        for (conversation_id, at) in &informed.notified {
            let is_theirs = evidence.leases.iter().any(|lease| {
                (lease.agent_id, lease.conversation_id) == (*user_id, *conversation_id) && lease.assigned_at <= *at
            });
            finding.look(holds(is_theirs, || {
                format!("an agent was notified of conversation {} of another one", conversation_id.as_uuid())
            }));
        }
    }
    finding
}

/// No byte of an id of the staff reaches a customer. The id of the business does, or the search proves nothing.
fn staff_shown(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::StaffShown);
    for searched in &evidence.searched {
        finding.of += searched.bytes;
        if searched.staff > 0 {
            finding.violations += searched.staff;
            finding.first.get_or_insert_with(|| format!("{} was sent {} of them", searched.device, searched.staff));
        }
        if searched.business == 0 {
            finding.violate(format!("{} was not sent the id of the business either", searched.device));
        }
    }
    finding
}

/// The numbers of a conversation are those of its messages and of what agents have resolved.
fn numbers_wrong(evidence: &CaseEvidence) -> Finding {
    let mut finding = Finding::new(Check::NumbersWrong);
    for case in &evidence.cases {
        let kept = (case.customer_seq, case.agent_seq);
        let (customer_seq, agent_seq) = stored_numbers(evidence, case);
        finding.look(holds(kept == (customer_seq, agent_seq), || {
            let id = case.conversation_id.as_uuid();
            let ((of_customer, of_agent), (customer_seq, agent_seq)) =
                ((kept.0.0, kept.1.0), (customer_seq.0, agent_seq.0));
            format!("conversation {id} has {of_customer} and {of_agent}, its messages {customer_seq} and {agent_seq}")
        }));
        let (answered, tried) = evidence
            .resolved
            .get(&case.conversation_id)
            .map_or((Seq::ZERO, Seq::ZERO), |resolved| (resolved.answered, resolved.tried));
        finding.look(holds((answered..=tried).contains(&case.resolved_seq), || {
            let (resolved, answered, tried) = (case.resolved_seq.0, answered.0, tried.0);
            let id = case.conversation_id.as_uuid();
            format!(
                "conversation {id} is resolved to {resolved}, which was asked to {tried} and answered to {answered}"
            )
        }));
    }
    finding
}

/// The last message of the customer and of the staff.
fn stored_numbers(evidence: &CaseEvidence, case: &Case) -> (Seq, Seq) {
    let rows = || evidence.rows.iter().filter(|row| row.conversation_id == case.conversation_id);
    let last = |is_customer: bool| {
        let of_side = rows().filter(|row| (row.sender_id == case.customer_id) == is_customer);
        of_side.map(|row| row.seq).max().unwrap_or_default()
    };
    (last(true), last(false))
}

fn faults(evidence: &CaseEvidence) -> Finding {
    Finding {
        check: Check::Faults,
        violations: evidence.faults.len() as u64,
        of: evidence.log_lines,
        first: evidence.faults.first().cloned(),
    }
}

impl Lease {
    fn name(&self) -> String {
        let (id, number) = (self.conversation_id.as_uuid(), self.case_number);
        format!("assignment {} of case {number} of conversation {id}", self.assignment_id)
    }
}

impl Informed {
    /// Whether the router can give the agent cases.
    const fn is_reachable(&self) -> bool {
        self.is_connected || self.has_device
    }
}
