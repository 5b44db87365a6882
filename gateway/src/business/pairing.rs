//! Which waiting case goes to which agent. Without any I/O.
//!
//! **Invariant:** the result depends on the order of the cases and on the set of the candidates, not on the candidates'
//! order.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
    wire::{Considered, Strategy, Verdict},
};

/// At most this many candidates are recorded for one pairing.
pub const CONSIDERED_MAX: usize = 32;

/// A case without an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingCase {
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The customer, who is never given their own case, even as staff of the business.
    pub customer_id: UserId,
    /// The last agent of the conversation, while the affinity lasts.
    pub preferred: Option<UserId>,
    /// Agents who let the case run into a time-out.
    pub missed_by: Vec<UserId>,
}

/// A member of staff who is available and has a capacity above zero. There is one candidate for each user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The member of staff.
    pub user_id: UserId,
    /// Connected at this moment.
    pub is_online: bool,
    /// Has a device that can be notified.
    pub has_device: bool,
    /// The largest number of cases.
    pub capacity: u32,
    /// The present number of cases; above `capacity` after the capacity was lowered or a case was assigned by hand.
    pub load: u32,
    /// When a case was last assigned; none if there never was one. Round robin stays even only if each pairing is
    /// stored with a later moment than the pairing before it, within one call and from call to call.
    pub last_assigned_at: Option<Timestamp>,
}

impl Candidate {
    /// Whether an assignment can reach the candidate.
    const fn is_reachable(&self) -> bool {
        self.is_online || self.has_device
    }
}

/// A case and the agent it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The conversation of the case.
    pub conversation_id: ConversationId,
    /// The agent.
    pub agent_id: UserId,
    /// Candidates in order of preference, at most [`CONSIDERED_MAX`] of them, the chosen one always included. Those
    /// before the chosen one could not be given the case, each for the reason in its verdict.
    pub considered: Vec<Considered>,
}

/// A candidate in the course of one call.
struct Agent {
    candidate: Candidate,
    /// The number of the call's latest pairing that went to this agent; zero if there is none.
    turn: usize,
}

/// How far an assignment reaches an agent, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Contact {
    Online,
    Notifiable,
    Unreachable,
}

/// An agent's place in the order of preference for one case; the fields are compared in their order, smaller first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    contact: Contact,
    lacks_affinity: bool,
    /// Zero unless the strategy compares loads.
    load: u32,
    turn: usize,
    last_assigned_at: Option<Timestamp>,
    user_id: UserId,
}

/// Pairs `cases`, given oldest first, with `candidates`: each case at most once, and only with an agent who can be
/// reached, has room and is not its customer. A case that no candidate can take is left out and does not hold up the
/// younger cases. The pairings are in the order of `cases`.
///
/// Agents who are connected come before agents who are only notifiable, then the preferred agent if connected, then the
/// order of `strategy`, then the smaller id. Each pairing counts for the ones after it: the agent's load grows, and the
/// agent is the one assigned most recently.
///
/// An agent in `missed_by` is given the case again only if every reachable candidate but the customer has missed it.
/// While another agent is only full, the case waits. The agent who missed it is likely to let it run into a second
/// time-out; the full agent resolves something in time, and the case is the first to get that room.
pub fn pair(cases: &[WaitingCase], candidates: &[Candidate], strategy: Strategy) -> Vec<Pairing> {
    let mut pairings = Vec::new();
    if strategy == Strategy::Manual {
        return pairings;
    }
    let mut agents: Vec<Agent> =
        candidates.iter().map(|candidate| Agent { candidate: candidate.clone(), turn: 0 }).collect();
    for case in cases {
        let Some((agent_id, considered)) = consider(case, &agents, strategy) else { continue };
        if let Some(agent) = agents.iter_mut().find(|agent| agent.candidate.user_id == agent_id) {
            agent.candidate.load += 1;
            agent.turn = pairings.len() + 1;
        }
        pairings.push(Pairing { conversation_id: case.conversation_id, agent_id, considered });
    }
    pairings
}

/// The chosen agent, and the candidates in order of preference; none if no agent can take the case.
fn consider(case: &WaitingCase, agents: &[Agent], strategy: Strategy) -> Option<(UserId, Vec<Considered>)> {
    let has_missed = |candidate: &Candidate| case.missed_by.contains(&candidate.user_id);
    let others_exist = agents
        .iter()
        .map(|agent| &agent.candidate)
        .any(|other| other.is_reachable() && other.user_id != case.customer_id && !has_missed(other));
    let verdict = |candidate: &Candidate| {
        if candidate.user_id == case.customer_id {
            Verdict::IsCustomer
        } else if !candidate.is_reachable() {
            Verdict::Unreachable
        } else if others_exist && has_missed(candidate) {
            Verdict::Missed
        } else if candidate.load >= candidate.capacity {
            Verdict::Full
        } else {
            Verdict::LessPreferred
        }
    };
    let rank = |agent: &Agent| {
        let Candidate { user_id, is_online, has_device, load, last_assigned_at, .. } = agent.candidate;
        Rank {
            contact: match (is_online, has_device) {
                (true, _) => Contact::Online,
                (false, true) => Contact::Notifiable,
                (false, false) => Contact::Unreachable,
            },
            // An agent who has missed the case is no longer the one to prefer.
            lacks_affinity: !(is_online && case.preferred == Some(user_id) && !has_missed(&agent.candidate)),
            load: if strategy == Strategy::LeastBusy { load } else { 0 },
            turn: agent.turn,
            last_assigned_at,
            user_id,
        }
    };

    let mut ranked: Vec<(Rank, Considered)> = agents
        .iter()
        .map(|agent| {
            let Candidate { user_id, load, is_online, .. } = agent.candidate;
            (rank(agent), Considered { user_id, load, is_online, verdict: verdict(&agent.candidate) })
        })
        .collect();
    let (_, chosen) = ranked
        .iter_mut()
        .filter(|(_, considered)| considered.verdict == Verdict::LessPreferred)
        .min_by_key(|(rank, _)| *rank)?;
    chosen.verdict = Verdict::Chosen;
    let chosen = *chosen;

    // Only the recorded ones are sorted, so that a call costs cases times candidates.
    if ranked.len() > CONSIDERED_MAX {
        ranked.select_nth_unstable_by_key(CONSIDERED_MAX - 1, |(rank, _)| *rank);
        ranked.truncate(CONSIDERED_MAX);
    }
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    let mut considered: Vec<Considered> = ranked.into_iter().map(|(_, considered)| considered).collect();
    if !considered.contains(&chosen) {
        considered.pop();
        considered.push(chosen);
    }
    Some((chosen.user_id, considered))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{
        collection::{btree_map, vec},
        option,
        prelude::*,
        strategy::Strategy as Values,
    };
    use serde_json::json;
    use uuid::{Builder, Uuid};

    use super::{Strategy, *};

    fn uuid(number: usize) -> Uuid {
        Builder::from_random_bytes((number as u128).to_be_bytes()).into_uuid()
    }

    /// Users in the order of their numbers.
    fn user(number: usize) -> UserId {
        UserId::try_from(uuid(number)).unwrap()
    }

    fn conversation(number: usize) -> ConversationId {
        ConversationId::try_from(uuid(number)).unwrap()
    }

    fn case(number: usize) -> WaitingCase {
        WaitingCase {
            conversation_id: conversation(number),
            customer_id: user(1000 + number),
            preferred: None,
            missed_by: Vec::new(),
        }
    }

    /// Connected, with room for five cases.
    fn agent(number: usize) -> Candidate {
        Candidate {
            user_id: user(number),
            is_online: true,
            has_device: false,
            capacity: 5,
            load: 0,
            last_assigned_at: None,
        }
    }

    fn notifiable(number: usize) -> Candidate {
        Candidate { is_online: false, has_device: true, ..agent(number) }
    }

    fn busy(number: usize, load: u32) -> Candidate {
        Candidate { load, ..agent(number) }
    }

    fn given_at(number: usize, at: i64) -> Candidate {
        Candidate { last_assigned_at: Some(Timestamp(at)), ..agent(number) }
    }

    fn preferring(number: usize) -> WaitingCase {
        WaitingCase { preferred: Some(user(number)), ..case(0) }
    }

    fn missed_by(numbers: &[usize]) -> WaitingCase {
        WaitingCase { missed_by: numbers.iter().copied().map(user).collect(), ..case(0) }
    }

    /// The agent of each of `cases`, in their order.
    fn agents_of(cases: &[WaitingCase], candidates: &[Candidate], strategy: Strategy) -> Vec<Option<UserId>> {
        let agents: BTreeMap<_, _> = pair(cases, candidates, strategy)
            .into_iter()
            .map(|pairing| (pairing.conversation_id, pairing.agent_id))
            .collect();
        cases.iter().map(|case| agents.get(&case.conversation_id).copied()).collect()
    }

    /// The agent of one case, by the default strategy.
    fn agent_of(case: WaitingCase, candidates: &[Candidate]) -> Option<UserId> {
        agents_of(&[case], candidates, Strategy::LeastBusy)[0]
    }

    #[test]
    fn the_least_busy_agent_is_given_the_case_r2_4() {
        assert_eq!(agent_of(case(0), &[busy(1, 2), busy(2, 1), busy(3, 3)]), Some(user(2)));
    }

    #[test]
    fn among_equally_busy_agents_the_longest_without_an_assignment_is_given_the_case() {
        assert_eq!(agent_of(case(0), &[given_at(1, 20), given_at(2, 10)]), Some(user(2)));
        assert_eq!(agent_of(case(0), &[given_at(1, 20), given_at(2, 10), agent(3)]), Some(user(3)));
        assert_eq!(agent_of(case(0), &[given_at(2, 10), given_at(1, 10)]), Some(user(1)), "then the smaller id");
    }

    #[test]
    fn round_robin_takes_no_account_of_loads() {
        let candidates = [Candidate { load: 4, ..given_at(1, 10) }, Candidate { load: 0, ..given_at(2, 20) }];
        assert_eq!(agents_of(&[case(0)], &candidates, Strategy::RoundRobin), [Some(user(1))]);
    }

    #[test]
    fn manual_pairs_nothing() {
        assert_eq!(pair(&[case(0)], &[agent(1)], Strategy::Manual), []);
    }

    #[test]
    fn a_full_agent_is_given_nothing_r2_4() {
        assert_eq!(agent_of(case(0), &[busy(1, 5)]), None);
        assert_eq!(agent_of(case(0), &[busy(1, 7)]), None, "over a capacity that was lowered");
        assert_eq!(agent_of(preferring(1), &[busy(1, 5), busy(2, 4)]), Some(user(2)), "affinity needs room");
    }

    #[test]
    fn a_connected_agent_comes_before_a_notifiable_one_with_fewer_cases() {
        assert_eq!(agent_of(case(0), &[notifiable(1), busy(2, 4)]), Some(user(2)));
        assert_eq!(agent_of(case(0), &[notifiable(1), busy(2, 5)]), Some(user(1)));
    }

    #[test]
    fn an_unreachable_agent_is_given_nothing() {
        assert_eq!(agent_of(preferring(1), &[Candidate { has_device: false, ..notifiable(1) }]), None);
    }

    #[test]
    fn the_last_agent_is_preferred_only_while_connected() {
        assert_eq!(agent_of(preferring(2), &[agent(1), busy(2, 4)]), Some(user(2)));
        let busy_notifiable = Candidate { load: 4, ..notifiable(2) };
        assert_eq!(agent_of(preferring(2), &[agent(1), busy_notifiable.clone()]), Some(user(1)));
        assert_eq!(agent_of(preferring(2), &[notifiable(1), busy_notifiable]), Some(user(1)));
    }

    #[test]
    fn a_customer_who_is_staff_is_never_given_the_own_case_and_does_not_hold_up_the_next() {
        let own = WaitingCase { customer_id: user(1), preferred: Some(user(1)), ..case(0) };
        let cases = [own, case(1)];
        assert_eq!(agents_of(&cases, &[agent(1)], Strategy::LeastBusy), [None, Some(user(1))]);
    }

    #[test]
    fn a_case_goes_back_to_an_agent_who_missed_it_only_if_every_other_reachable_one_missed_it_too() {
        assert_eq!(agent_of(missed_by(&[1]), &[agent(1), busy(2, 4)]), Some(user(2)));
        assert_eq!(agent_of(missed_by(&[1]), &[agent(1), notifiable(2)]), Some(user(2)));
        assert_eq!(agent_of(missed_by(&[1]), &[agent(1)]), Some(user(1)));
        assert_eq!(agent_of(missed_by(&[1, 2]), &[busy(1, 1), agent(2)]), Some(user(2)));
        let unreachable = Candidate { has_device: false, ..notifiable(2) };
        assert_eq!(agent_of(missed_by(&[1]), &[agent(1), unreachable]), Some(user(1)));
        let own = WaitingCase { customer_id: user(2), ..missed_by(&[1]) };
        assert_eq!(agent_of(own, &[agent(1), agent(2)]), Some(user(1)), "the customer is no other agent");
    }

    #[test]
    fn a_case_waits_for_a_full_agent_rather_than_go_back_to_the_one_who_missed_it() {
        let cases = [missed_by(&[1]), case(1)];
        let candidates = [agent(1), busy(2, 5)];
        assert_eq!(agents_of(&cases, &candidates, Strategy::LeastBusy), [None, Some(user(1))]);
    }

    #[test]
    fn an_agent_who_missed_the_case_is_not_preferred_for_it() {
        let case = WaitingCase { preferred: Some(user(1)), ..missed_by(&[1, 2]) };
        assert_eq!(agent_of(case, &[busy(1, 1), agent(2)]), Some(user(2)));
    }

    #[test]
    fn pairings_of_one_call_count_for_each_other() {
        let cases: Vec<_> = (0..5).map(case).collect();
        let candidates = [given_at(1, 30), Candidate { capacity: 1, ..given_at(2, 10) }, given_at(3, 20)];
        let expected = [2, 3, 1, 3, 1].map(|number| Some(user(number)));
        assert_eq!(agents_of(&cases, &candidates, Strategy::RoundRobin), expected);
        assert_eq!(agents_of(&cases, &candidates, Strategy::LeastBusy), expected);
    }

    #[test]
    fn the_ledger_says_why_in_order_of_preference_and_in_plain_json() {
        let case = WaitingCase { customer_id: user(2), preferred: Some(user(1)), ..missed_by(&[3]) };
        let candidates = [
            Candidate { has_device: false, ..notifiable(6) },
            notifiable(5),
            busy(4, 1),
            agent(3),
            agent(2),
            busy(1, 5),
            busy(7, 2),
        ];
        let pairings = pair(&[case], &candidates, Strategy::LeastBusy);
        let considered = serde_json::to_value(&pairings[0].considered).unwrap();
        let entry = |number: usize, load: u32, is_online: bool, verdict: &str| {
            let user_id = uuid(number);
            json!({"user_id": user_id, "load": load, "is_online": is_online, "verdict": verdict})
        };
        assert_eq!(
            considered,
            json!([
                entry(1, 5, true, "full"),
                entry(2, 0, true, "is_customer"),
                entry(3, 0, true, "missed"),
                entry(4, 1, true, "chosen"),
                entry(7, 2, true, "less_preferred"),
                entry(5, 0, false, "less_preferred"),
                entry(6, 0, false, "unreachable"),
            ])
        );
        assert_eq!(serde_json::from_value::<Vec<Considered>>(considered).unwrap(), pairings[0].considered);
    }

    #[test]
    fn a_full_queue_of_the_largest_business_is_paired_and_each_decision_keeps_a_bounded_record() {
        let cases: Vec<_> = (0..64).map(case).collect();
        // Of 500, only the last 100 have room, and by round robin all of the others stand before them.
        let candidates: Vec<_> = (0..500)
            .map(|number| Candidate { load: if number < 400 { 5 } else { 0 }, ..given_at(number, 0) })
            .collect();
        let pairings = pair(&cases, &candidates, Strategy::RoundRobin);
        for (number, pairing) in pairings.iter().enumerate() {
            assert_eq!(pairing.agent_id, user(400 + number));
            assert_eq!(pairing.considered.len(), CONSIDERED_MAX);
            let last = pairing.considered.last().unwrap();
            assert_eq!((last.user_id, last.verdict), (pairing.agent_id, Verdict::Chosen));
            assert!(pairing.considered[..CONSIDERED_MAX - 1].iter().all(|other| other.verdict == Verdict::Full));
        }
        assert_eq!(pairings.len(), 64);
    }

    /// Stores `pairings` as the caller has to: each with a later moment than the one before it.
    fn store(pairings: &[Pairing], candidates: &mut [Candidate], at: &mut i64, total: &mut BTreeMap<UserId, u32>) {
        for pairing in pairings {
            *at += 1;
            *total.entry(pairing.agent_id).or_default() += 1;
            let agent = candidates.iter_mut().find(|agent| agent.user_id == pairing.agent_id).unwrap();
            agent.load += 1;
            agent.last_assigned_at = Some(Timestamp(*at));
        }
    }

    fn spread(candidates: &[Candidate], total: &BTreeMap<UserId, u32>) -> u32 {
        let of = |agent: &Candidate| total.get(&agent.user_id).copied().unwrap_or_default();
        candidates.iter().map(of).max().unwrap_or_default() - candidates.iter().map(of).min().unwrap_or_default()
    }

    /// 200 cases come in groups of one to seven to seven agents, who resolve at different speeds. Returns how many each
    /// agent was given.
    fn two_hundred_cases(
        strategy: Strategy,
        mut check: impl FnMut(&Pairing),
    ) -> (Vec<Candidate>, BTreeMap<UserId, u32>) {
        let mut candidates: Vec<_> = (0..7).map(agent).collect();
        let (mut at, mut total) = (0, BTreeMap::new());
        let mut cases = (0..200).map(case);
        for round in 0_u32.. {
            let group: Vec<_> = cases.by_ref().take(1 + round as usize % 7).collect();
            if group.is_empty() {
                break;
            }
            let pairings = pair(&group, &candidates, strategy);
            assert_eq!(pairings.len(), group.len(), "everybody has room");
            pairings.iter().for_each(&mut check);
            store(&pairings, &mut candidates, &mut at, &mut total);
            for (agent, number) in candidates.iter_mut().zip(0..) {
                // Some resolve at once, others only what would leave no room for the next group.
                agent.load = agent.load.saturating_sub((round + number) % 3).min(3);
            }
        }
        assert_eq!(total.values().sum::<u32>(), 200);
        (candidates, total)
    }

    #[test]
    fn round_robin_gives_200_cases_to_7_agents_evenly_r2_4() {
        let (candidates, total) = two_hundred_cases(Strategy::RoundRobin, |_| {});
        assert_eq!(spread(&candidates, &total), 1, "{total:?}");
    }

    #[test]
    fn least_busy_never_gives_one_of_200_cases_to_an_agent_with_more_cases_than_another_of_7_r2_4() {
        two_hundred_cases(Strategy::LeastBusy, |pairing| {
            let load_min = pairing.considered.iter().map(|considered| considered.load).min().unwrap();
            let chosen = pairing.considered.iter().find(|considered| considered.user_id == pairing.agent_id).unwrap();
            assert_eq!(pairing.considered.len(), 7);
            assert_eq!(chosen.load, load_min);
        });
    }

    // Few users and small numbers, so that ties, full agents and cases of staff are frequent.
    const USERS: usize = 8;

    fn any_user() -> impl Values<Value = UserId> {
        (0..USERS).prop_map(user)
    }

    fn any_cases() -> impl Values<Value = Vec<WaitingCase>> {
        let any_case = (0..2 * USERS, option::of(any_user()), vec(any_user(), 0..=USERS));
        vec(any_case, 0..24).prop_map(|cases| {
            cases
                .into_iter()
                .enumerate()
                .map(|(number, (customer, preferred, missed_by))| WaitingCase {
                    conversation_id: conversation(number),
                    customer_id: user(customer),
                    preferred,
                    missed_by,
                })
                .collect()
        })
    }

    fn any_candidates() -> impl Values<Value = Vec<Candidate>> {
        let any = (any::<bool>(), any::<bool>(), 1_u32..5, 0_u32..6, option::of((0_i64..4).prop_map(Timestamp)));
        btree_map(any_user(), any, 0..=USERS)
            .prop_map(|candidates| {
                candidates
                    .into_iter()
                    .map(|(user_id, (is_online, has_device, capacity, load, last_assigned_at))| Candidate {
                        user_id,
                        is_online,
                        has_device,
                        capacity,
                        load,
                        last_assigned_at,
                    })
                    .collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    fn any_strategy() -> impl Values<Value = Strategy> {
        prop_oneof![Just(Strategy::LeastBusy), Just(Strategy::RoundRobin)]
    }

    /// Whether the rules let the case go to the candidate, not counting room.
    fn may_take(case: &WaitingCase, candidate: &Candidate, candidates: &[Candidate]) -> bool {
        let reachable = |candidate: &Candidate| candidate.is_online || candidate.has_device;
        let is_someone_else_left = candidates.iter().any(|other| {
            reachable(other) && other.user_id != case.customer_id && !case.missed_by.contains(&other.user_id)
        });
        candidate.user_id != case.customer_id
            && reachable(candidate)
            && !(is_someone_else_left && case.missed_by.contains(&candidate.user_id))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn an_agent_is_reachable_and_never_full_nor_the_customer_r2_4(
            cases in any_cases(), candidates in any_candidates(), strategy in any_strategy(),
        ) {
            let mut candidates = candidates;
            for pairing in pair(&cases, &candidates, strategy) {
                let case = cases.iter().find(|case| case.conversation_id == pairing.conversation_id).unwrap();
                let agent = candidates.iter_mut().find(|agent| agent.user_id == pairing.agent_id).unwrap();
                prop_assert!(agent.is_online || agent.has_device);
                prop_assert_ne!(agent.user_id, case.customer_id);
                prop_assert!(agent.load < agent.capacity);
                agent.load += 1;
            }
        }

        #[test]
        fn cases_are_paired_at_most_once_and_oldest_first(
            cases in any_cases(), candidates in any_candidates(), strategy in any_strategy(),
        ) {
            let order: Vec<_> = pair(&cases, &candidates, strategy).iter().map(|it| it.conversation_id).collect();
            prop_assert!(order.is_sorted_by(|one, next| one < next), "conversations are numbered by age");
            prop_assert!(order.iter().all(|id| cases.iter().any(|case| case.conversation_id == *id)));
        }

        #[test]
        fn a_case_is_left_only_if_no_candidate_could_take_it_nor_is_a_younger_one_given_such_a_candidate(
            cases in any_cases(), candidates in any_candidates(), strategy in any_strategy(),
        ) {
            let pairings = pair(&cases, &candidates, strategy);
            let paired: BTreeSet<_> = pairings.iter().map(|pairing| pairing.conversation_id).collect();
            for case in cases.iter().filter(|case| !paired.contains(&case.conversation_id)) {
                for candidate in candidates.iter().filter(|candidate| may_take(case, candidate, &candidates)) {
                    let given: Vec<_> =
                        pairings.iter().filter(|pairing| pairing.agent_id == candidate.user_id).collect();
                    prop_assert!(candidate.load + u32::try_from(given.len()).unwrap() >= candidate.capacity);
                    prop_assert!(given.iter().all(|pairing| pairing.conversation_id < case.conversation_id));
                }
            }
        }

        #[test]
        fn the_record_of_a_decision_is_true_and_proves_the_order_of_preference(
            cases in any_cases(), candidates in any_candidates(), strategy in any_strategy(),
        ) {
            // Later than any assignment before the call.
            let (mut present, mut at) = (candidates.clone(), 1_000);
            for pairing in pair(&cases, &candidates, strategy) {
                let case = cases.iter().find(|case| case.conversation_id == pairing.conversation_id).unwrap();
                let find = |id: UserId| present.iter().find(|candidate| candidate.user_id == id).unwrap();
                let ids: BTreeSet<_> = pairing.considered.iter().map(|considered| considered.user_id).collect();
                prop_assert_eq!(ids.len(), candidates.len());
                let chosen = find(pairing.agent_id);
                let has_affinity = |candidate: &Candidate| {
                    candidate.is_online
                        && case.preferred == Some(candidate.user_id)
                        && !case.missed_by.contains(&candidate.user_id)
                };
                let mut is_after_chosen = false;
                for considered in &pairing.considered {
                    let other = find(considered.user_id);
                    prop_assert_eq!((considered.load, considered.is_online), (other.load, other.is_online));
                    let could = may_take(case, other, &candidates) && other.load < other.capacity;
                    prop_assert_eq!(
                        could,
                        matches!(considered.verdict, Verdict::Chosen | Verdict::LessPreferred)
                    );
                    is_after_chosen |= considered.verdict == Verdict::Chosen;
                    prop_assert_eq!(considered.verdict == Verdict::Chosen, considered.user_id == pairing.agent_id);
                    prop_assert!(!could || is_after_chosen);
                    if could {
                        prop_assert!(chosen.is_online || !other.is_online);
                        prop_assert!(has_affinity(chosen) || !has_affinity(other));
                    }
                    if could && chosen.is_online == other.is_online && !has_affinity(chosen) {
                        let place = |candidate: &Candidate| {
                            let load = if strategy == Strategy::LeastBusy { candidate.load } else { 0 };
                            (load, candidate.last_assigned_at, candidate.user_id)
                        };
                        prop_assert!(place(chosen) <= place(other));
                    }
                }
                let agent = present.iter_mut().find(|agent| agent.user_id == pairing.agent_id).unwrap();
                agent.load += 1;
                at += 1;
                agent.last_assigned_at = Some(Timestamp(at));
            }
        }

        #[test]
        fn the_order_of_the_candidates_does_not_matter(
            cases in any_cases(),
            (candidates, shuffled) in any_candidates()
                .prop_flat_map(|candidates| (Just(candidates.clone()), Just(candidates).prop_shuffle())),
            strategy in any_strategy(),
        ) {
            prop_assert_eq!(pair(&cases, &candidates, strategy), pair(&cases, &shuffled, strategy));
        }

        #[test]
        fn round_robin_stays_even_however_the_cases_are_grouped_r2_4(
            agents in 1_usize..12, groups in vec(0_usize..20, 1..30), has_device in any::<bool>(),
        ) {
            let as_agent = |number| Candidate { capacity: 1000, has_device, is_online: !has_device, ..agent(number) };
            let mut candidates: Vec<_> = (0..agents).map(as_agent).collect();
            let (mut at, mut total) = (0, BTreeMap::new());
            for group in groups {
                let cases: Vec<_> = (0..group).map(case).collect();
                store(&pair(&cases, &candidates, Strategy::RoundRobin), &mut candidates, &mut at, &mut total);
                prop_assert!(spread(&candidates, &total) <= 1);
            }
        }
    }
}
