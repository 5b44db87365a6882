//! The same for cases and assignments.

use chat_client::{
    ids::BusinessId,
    wire::{CaseState, Considered, ReleaseReason, Verdict},
};

use super::*;
use crate::audit::cases::{Case, CaseEvidence, Informed, Lease, Member, Resolved, Searched};

const ANNA: usize = 0;
const BELA: usize = 1;
const WAITS: usize = 2;

/// A business with the agents Anna and Bela, who may have one case each and have one, and three customers: the case of the first
/// went from Bela, who missed it, to Anna; that of the second was resolved, and opened again for Bela; that of the third waits.
fn desk() -> CaseEvidence {
    let (business_id, anna, bela) = (BusinessId::random(), UserId::random(), UserId::random());
    let case = |number, agent_id: Option<UserId>, [customer_seq, agent_seq, resolved_seq]: [u64; 3]| Case {
        conversation_id: ConversationId::random(),
        business_id,
        customer_id: UserId::random(),
        number,
        state: if agent_id.is_some() { CaseState::Assigned } else { CaseState::Waiting },
        agent_id,
        customer_seq: Seq(customer_seq),
        agent_seq: Seq(agent_seq),
        resolved_seq: Seq(resolved_seq),
    };
    let cases = vec![case(1, Some(anna), [2, 1, 0]), case(2, Some(bela), [3, 2, 2]), case(1, None, [1, 0, 0])];
    let lease = |case: &Case, number, agent_id, at, end: Option<(i64, ReleaseReason)>, verdicts: [Verdict; 2]| Lease {
        assignment_id: u64::try_from(at).unwrap(),
        conversation_id: case.conversation_id,
        business_id,
        case_number: number,
        agent_id,
        is_routed: true,
        candidates: [anna, bela]
            .into_iter()
            .zip(verdicts)
            .map(|(user_id, verdict)| Considered { user_id, load: 0, is_online: true, verdict })
            .collect(),
        assigned_at: Timestamp(at),
        released_at: end.map(|(at, _)| Timestamp(at)),
        release_reason: end.map(|(_, reason)| reason),
    };
    let (missed, resolved) = (Some((20_000, ReleaseReason::AnswerMissed)), Some((15_000, ReleaseReason::Resolved)));
    let (chosen, passed) = (Verdict::Chosen, Verdict::LessPreferred);
    let leases = vec![
        lease(&cases[0], 1, bela, 10_000, missed, [Verdict::Full, chosen]),
        lease(&cases[1], 1, anna, 11_000, resolved, [chosen, Verdict::Full]),
        lease(&cases[0], 1, anna, 20_000, None, [chosen, Verdict::Missed]),
        lease(&cases[1], 2, bela, 21_000, None, [passed, chosen]),
    ];
    let row = |case: &Case, seq, is_agents: bool| Row {
        conversation_id: case.conversation_id,
        seq: Seq(seq),
        sent_at: Timestamp(1),
        message_id: MessageId::random(),
        sender_id: if is_agents { anna } else { case.customer_id },
    };
    let rows = vec![
        row(&cases[0], 1, true),
        row(&cases[0], 2, false),
        row(&cases[1], 1, false),
        row(&cases[1], 2, true),
        row(&cases[1], 3, false),
        row(&cases[2], 1, false),
    ];
    let informed = |id: ConversationId, at| Informed {
        is_connected: true,
        changed: BTreeMap::from([(id, Timestamp(at))]),
        ..Informed::default()
    };
    let bela_informed = Informed {
        is_connected: false,
        has_device: true,
        changed: BTreeMap::from([(cases[0].conversation_id, Timestamp(20_000))]),
        notified: vec![(cases[1].conversation_id, Timestamp(21_100))],
        ..Informed::default()
    };
    let mut anna_told = informed(cases[0].conversation_id, 20_000);
    anna_told.changed.insert(cases[1].conversation_id, Timestamp(15_000));
    let member = |user_id| Member { business_id, user_id, capacity: 1, is_available: true };
    let searched = Searched { device: "asha-1".to_owned(), bytes: 1000, staff: 0, business: 7 };
    CaseEvidence {
        resolved: BTreeMap::from([(cases[1].conversation_id, Resolved { answered: Seq(2), tried: Seq(2) })]),
        cases,
        staff: vec![member(anna), member(bela)],
        leases,
        rows,
        informed: BTreeMap::from([(anna, anna_told), (bela, bela_informed)]),
        searched: vec![searched],
        log_lines: 10,
        faults: Vec::new(),
    }
}

/// The violations at a desk after a change of its evidence.
fn found(happens: impl FnOnce(&mut CaseEvidence)) -> Vec<(Check, u64)> {
    let mut evidence = desk();
    happens(&mut evidence);
    let findings = audit_cases(&evidence);
    findings.iter().filter(|finding| !finding.is_held()).map(|finding| (finding.check, finding.violations)).collect()
}

/// Ends the assignment of a case, which waits then.
fn give_back(evidence: &mut CaseEvidence, case: usize, at: i64, reason: ReleaseReason) {
    let conversation_id = evidence.cases[case].conversation_id;
    (evidence.cases[case].state, evidence.cases[case].agent_id) = (CaseState::Waiting, None);
    let is_open = |lease: &&mut Lease| lease.conversation_id == conversation_id && lease.released_at.is_none();
    let lease = evidence.leases.iter_mut().find(is_open).unwrap();
    (lease.released_at, lease.release_reason) = (Some(Timestamp(at)), Some(reason));
}

#[test]
fn at_a_desk_where_all_is_well_everything_is_looked_at_and_nothing_found() {
    assert_eq!(found(|_| {}), []);
    let findings = audit_cases(&desk());
    let of = |check| findings.iter().find(|finding| finding.check == check).unwrap().of;
    assert_eq!((of(Check::LeasesOverlap), of(Check::OverCapacity), of(Check::MissedAgain)), (4, 4, 4));
    assert_eq!((of(Check::CasesLost), of(Check::CasesStarved), of(Check::NumbersWrong)), (3, 3, 6));
    assert_eq!((of(Check::LedgerWrong), of(Check::NotInformed), of(Check::NotifiedWrongly)), (6, 3, 1));
    assert_eq!((of(Check::StaffShown), of(Check::Faults)), (1000, 10));
}

#[test]
fn two_agents_of_one_case() {
    let late = found(|desk| desk.leases[0].released_at = Some(Timestamp(20_001)));
    assert_eq!(late, [(Check::LeasesOverlap, 1)]);
    let both = found(|desk| (desk.leases[0].released_at, desk.leases[0].release_reason) = (None, None));
    assert!(both.contains(&(Check::LeasesOverlap, 1)) && both.contains(&(Check::LedgerWrong, 2)), "{both:?}");
}

#[test]
fn more_cases_than_the_capacity() {
    assert_eq!(found(|desk| desk.leases[1].released_at = Some(Timestamp(20_001))), [(Check::OverCapacity, 1)]);
    let by_staff = found(|desk| {
        desk.leases[1].released_at = Some(Timestamp(20_001));
        desk.leases[2].is_routed = false;
    });
    assert_eq!(by_staff, [], "a supervisor may go beyond it");
}

#[test]
fn a_message_that_nobody_has_to_answer_any_more() {
    let resolve = |desk: &mut CaseEvidence, seq| {
        let conversation_id = desk.cases[BELA].conversation_id;
        give_back(desk, BELA, 30_000, ReleaseReason::Resolved);
        (desk.cases[BELA].state, desk.cases[BELA].resolved_seq) = (CaseState::Resolved, Seq(3));
        desk.resolved.insert(conversation_id, Resolved { answered: Seq(seq), tried: Seq(seq) });
    };
    let all = found(|desk| {
        resolve(desk, 3);
        desk.staff.clear();
    });
    assert!(!all.iter().any(|(check, _)| *check == Check::CasesLost), "{all:?}");
    let lost = found(|desk| {
        resolve(desk, 2);
        desk.staff[BELA].is_available = false;
    });
    assert_eq!(lost, [(Check::CasesLost, 1), (Check::NumbersWrong, 1)], "resolved further than was asked for");
    let reopened = found(|desk| {
        resolve(desk, 2);
        desk.staff[BELA].is_available = false;
        (desk.cases[BELA].state, desk.cases[BELA].resolved_seq) = (CaseState::Waiting, Seq(2));
    });
    assert_eq!(reopened, []);
}

#[test]
fn a_case_that_waits_though_an_agent_has_room() {
    let with_room = |happens: fn(&mut CaseEvidence)| {
        found(|desk| {
            desk.staff[ANNA].capacity = 2;
            happens(desk);
        })
    };
    assert_eq!(with_room(|_| {}), [(Check::CasesStarved, 1)]);
    assert_eq!(with_room(|desk| desk.staff[ANNA].is_available = false), []);
    let unreachable = |desk: &mut CaseEvidence| {
        let anna = desk.staff[ANNA].user_id;
        desk.informed.get_mut(&anna).unwrap().is_connected = false;
    };
    assert_eq!(with_room(unreachable), []);
    assert_eq!(with_room(|desk| desk.cases[WAITS].customer_id = desk.staff[ANNA].user_id), [(Check::NumbersWrong, 1)]);
    let missed = |desk: &mut CaseEvidence| {
        let (case, anna) = (desk.cases[WAITS], desk.staff[ANNA].user_id);
        let lease = Lease {
            assignment_id: 1,
            conversation_id: case.conversation_id,
            agent_id: anna,
            case_number: case.number,
            ..desk.leases[1].clone()
        };
        desk.leases.insert(0, Lease { release_reason: Some(ReleaseReason::ReplyMissed), ..lease });
        desk.informed.get_mut(&anna).unwrap().changed.insert(case.conversation_id, Timestamp(6000));
        desk.leases[0].assigned_at = Timestamp(5000);
        desk.leases[0].released_at = Some(Timestamp(6000));
    };
    assert_eq!(with_room(missed), [], "it waits for Bela, who is only full");
    let all_missed = found(|desk| {
        desk.staff[ANNA].capacity = 2;
        missed(desk);
        desk.staff[BELA].is_available = false;
    });
    assert_eq!(all_missed, [(Check::CasesStarved, 1)], "nobody else is there");
}

#[test]
fn a_case_that_goes_back_to_who_missed_it() {
    let again = |others: Verdict| {
        found(|desk| {
            let bela = desk.staff[BELA].user_id;
            desk.leases[2].agent_id = bela;
            desk.cases[0].agent_id = Some(bela);
            desk.leases[2].candidates[0].verdict = others;
            desk.leases[2].candidates[1].verdict = Verdict::Chosen;
            desk.staff[BELA].capacity = 2;
            desk.staff[BELA].is_available = false;
            desk.staff[ANNA].is_available = false;
        })
    };
    assert_eq!(again(Verdict::LessPreferred), [(Check::MissedAgain, 1)]);
    assert_eq!(again(Verdict::Full), [(Check::MissedAgain, 1)], "it has to wait for whoever is only full");
    assert_eq!(again(Verdict::Unreachable), []);
    let unexplained = found(|desk| desk.leases[3].candidates[1].verdict = Verdict::LessPreferred);
    assert_eq!(unexplained, [(Check::MissedAgain, 1)], "the ledger does not say why");
}

#[test]
fn assignments_without_an_end_or_a_case() {
    assert_eq!(found(|desk| desk.leases[1].release_reason = None), [(Check::LedgerWrong, 1)]);
    assert_eq!(found(|desk| desk.leases[1].released_at = Some(Timestamp(10_999))), [(Check::LedgerWrong, 1)]);
    let resolved = found(|desk| (desk.cases[0].state, desk.cases[0].agent_id) = (CaseState::Resolved, None));
    assert!(resolved.contains(&(Check::LedgerWrong, 1)), "the case is closed: {resolved:?}");
    let missing = found(|desk| drop(desk.leases.pop()));
    assert_eq!(missing, [(Check::LedgerWrong, 1), (Check::NotifiedWrongly, 1)]);
}

#[test]
fn an_agent_who_knows_nothing_of_a_case() {
    let not_pushed = found(|desk| {
        let (anna, id) = (desk.staff[ANNA].user_id, desk.cases[0].conversation_id);
        desk.informed.get_mut(&anna).unwrap().changed.insert(id, Timestamp(19_999));
    });
    assert_eq!(not_pushed, [(Check::NotInformed, 1)]);
    let listed = found(|desk| {
        let anna = desk.informed.get_mut(&desk.staff[ANNA].user_id).unwrap();
        (anna.changed, anna.listed_at) = (BTreeMap::new(), Some(Timestamp(20_000)));
    });
    assert_eq!(listed, []);
    let not_notified = found(|desk| {
        let bela = desk.staff[BELA].user_id;
        desk.informed.get_mut(&bela).unwrap().notified.clear();
    });
    assert_eq!(not_notified, [(Check::NotInformed, 1)]);
}

#[test]
fn a_phone_that_is_notified_of_the_case_of_another_one() {
    let early = found(|desk| {
        let bela = desk.staff[BELA].user_id;
        let id = desk.cases[WAITS].conversation_id;
        desk.informed.get_mut(&bela).unwrap().notified.push((id, Timestamp(30_000)));
    });
    assert_eq!(early, [(Check::NotifiedWrongly, 1)]);
}

#[test]
fn ids_of_the_staff_at_a_customer() {
    assert_eq!(found(|desk| desk.searched[0].staff = 3), [(Check::StaffShown, 3)]);
    assert_eq!(found(|desk| desk.searched[0].business = 0), [(Check::StaffShown, 1)], "the search proves nothing");
}

#[test]
fn numbers_other_than_those_of_the_messages() {
    assert_eq!(found(|desk| desk.cases[0].customer_seq = Seq(3)), [(Check::NumbersWrong, 1)]);
    assert_eq!(found(|desk| desk.cases[0].agent_seq = Seq(0)), [(Check::NumbersWrong, 1)]);
    assert_eq!(found(|desk| desk.cases[1].resolved_seq = Seq(1)), [(Check::NumbersWrong, 1)], "an answered resolve");
    assert_eq!(
        found(|desk| desk.cases[2].resolved_seq = Seq(1)),
        [(Check::NumbersWrong, 1)],
        "nobody has asked for it"
    );
}

#[test]
fn lines_of_logs_that_tell_of_a_fault() {
    assert_eq!(found(|desk| desk.faults.push("gateway-1: a fault of ours".to_owned())), [(Check::Faults, 1)]);
}
