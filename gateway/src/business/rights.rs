//! What a member of staff may do with a conversation of the business (R6.5). Pure.
//!
//! **Invariant:** whoever may not gets the same answer as for a conversation that doesn't exist.

use std::time::Duration;

use chat_shared::{
    clock::Timestamp,
    ids::UserId,
    wire::{CaseState, StaffRole},
};

use super::case::CaseRow;
use crate::refusal::Refusal;

/// How long the last agent of a resolved case may open it again.
const REOPENED_WITHIN: Duration = Duration::from_hours(7 * 24);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Take a case oneself.
    Claim,
    /// Give a case to another agent.
    Transfer,
    /// Put a case back in the queue.
    GiveBack,
    /// Confirm that one answers soon.
    Accept,
    /// Close a case.
    Resolve,
    /// Open a resolved case again.
    Reopen,
    /// Read the messages without taking part.
    Read,
    /// Read all assignments of the conversation; an agent reads its own ones.
    ReadLedger,
}

/// Whether a member of the staff may do something with a case.
pub(super) fn check(
    user_id: UserId,
    role: StaffRole,
    case: &CaseRow,
    action: Action,
    now: Timestamp,
) -> Result<(), Refusal> {
    if may(user_id, role, case, action, now) { Ok(()) } else { Err(Refusal::no_such_conversation()) }
}

fn may(user_id: UserId, role: StaffRole, case: &CaseRow, action: Action, now: Timestamp) -> bool {
    // Nobody is the staff of their own conversation.
    if case.customer_id == user_id || role == StaffRole::Unknown {
        return false;
    }
    let leads = role.leads();
    let is_theirs = case.agent_id == Some(user_id);
    match action {
        Action::Claim => leads || is_theirs || case.state == CaseState::Waiting,
        Action::Transfer | Action::GiveBack | Action::Resolve => leads || is_theirs,
        Action::Accept => is_theirs,
        Action::Reopen => {
            let is_recent = case.resolved_at.is_some_and(|at| at.after(REOPENED_WITHIN) >= now);
            leads || is_theirs || (case.last_agent_id == Some(user_id) && is_recent)
        }
        Action::Read | Action::ReadLedger => leads,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::case::tests::waiting, *};

    /// Who asks, in the columns of the matrix.
    const COLUMNS: [&str; 6] = ["customer", "agent of another case", "agent", "supervisor", "admin", "last agent"];

    #[test]
    fn the_matrix_of_rights_r6_5() {
        use Action::{Accept, Claim, GiveBack, Read, ReadLedger, Reopen, Resolve, Transfer};
        let (customer, other, agent, last) = (UserId::random(), UserId::random(), UserId::random(), UserId::random());
        let base = CaseRow { customer_id: customer, last_agent_id: Some(last), ..waiting() };
        let assigned = CaseRow { state: CaseState::Assigned, agent_id: Some(agent), ..base.clone() };
        let resolved = CaseRow { state: CaseState::Resolved, resolved_at: Some(Timestamp(0)), ..base.clone() };
        let table = [
            (Claim, &base, [false, true, true, true, true, true]),
            (Claim, &assigned, [false, false, true, true, true, false]),
            (Claim, &resolved, [false, false, false, true, true, false]),
            (Transfer, &base, [false, false, false, true, true, false]),
            (Transfer, &assigned, [false, false, true, true, true, false]),
            (GiveBack, &assigned, [false, false, true, true, true, false]),
            (Accept, &assigned, [false, false, true, false, false, false]),
            (Resolve, &base, [false, false, false, true, true, false]),
            (Resolve, &assigned, [false, false, true, true, true, false]),
            (Reopen, &resolved, [false, false, false, true, true, true]),
            (Read, &assigned, [false, false, false, true, true, false]),
            (ReadLedger, &assigned, [false, false, false, true, true, false]),
        ];
        let (supervisor, admin) = (UserId::random(), UserId::random());
        for (action, case, expected) in table {
            let asking = [
                (customer, StaffRole::Admin),
                (other, StaffRole::Agent),
                (agent, StaffRole::Agent),
                (supervisor, StaffRole::Supervisor),
                (admin, StaffRole::Admin),
                (last, StaffRole::Agent),
            ];
            for ((column, (user_id, role)), expected) in COLUMNS.iter().zip(asking).zip(expected) {
                let allowed = may(user_id, role, case, action, Timestamp(1000));
                assert_eq!(allowed, expected, "{action:?} of a case that is {:?}, by {column}", case.state);
            }
        }
        let late = Timestamp(0).after(REOPENED_WITHIN).after(Duration::from_millis(1));
        assert!(!may(last, StaffRole::Agent, &resolved, Reopen, late), "the last agent's week is over");
    }

    #[test]
    fn a_role_of_a_later_version_may_do_nothing_r6_5() {
        assert!(!may(UserId::random(), StaffRole::Unknown, &waiting(), Action::Claim, Timestamp(0)));
    }
}
