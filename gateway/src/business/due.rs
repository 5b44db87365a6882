//! What happens to an assigned case when its time comes. Without any I/O.
//!
//! While the customer waits for an answer, a clock runs at whose end the case is given back; otherwise a clock runs at
//! whose end the case is resolved. Numbers of messages decide between the two, and times of messages start the clock.
//!
//! **Invariant:** for equal input the result changes at one moment from [`Due::Later`] to what is due, and stays so.

use std::time::Duration;

use chat_shared::{clock::Timestamp, position::Seq};

/// The next look at a case is no sooner than this, even if the business has set a clock to zero.
const AGAIN_MIN: Duration = Duration::from_millis(1);

/// How long a business lets cases stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "bounds end in `_max`")]
pub struct Clocks {
    /// Until the first answer of an agent who was online at the assignment.
    pub answer_max: Duration,
    /// Until the first answer of an agent who had to be notified.
    pub notified_max: Duration,
    /// Until the first answer after the agent accepted the case, and until each later answer.
    pub reply_max: Duration,
    /// Until a case in which the customer waits for nothing is resolved.
    pub quiet_max: Duration,
}

/// An assigned case, with the numbers and times of its conversation's messages as far as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedCase {
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// When the agent first accepted this assignment.
    pub accepted_at: Option<Timestamp>,
    /// Whether the agent was online at the assignment.
    pub was_online: bool,
    /// The customer's last message; zero if there is none.
    pub customer_seq: Seq,
    /// When the customer's first message above `greatest(agent_seq, resolved_seq)` was accepted; none if there is no
    /// such message, or if it is no longer stored, in which case it counts as older than the assignment.
    ///
    /// It is read from `messages` with the case: the `sent_at` of the conversation's first row above that number. Every
    /// message of a business conversation is the customer's or an agent's, so this row is the customer's. It is not a
    /// column, because a column cannot be raised correctly by batches that are stored in any order: if the customer's
    /// 10, 12 and 13 are stored before the agent's 11, the right time becomes that of 12, and a column that keeps the
    /// first and the last has lost it.
    pub waiting_at: Option<Timestamp>,
    /// The last message of any agent; zero if there is none.
    pub agent_seq: Seq,
    /// When the last message of the conversation was accepted.
    pub last_message_at: Option<Timestamp>,
    /// The last message before the assignment. The log refuses messages of other agents after it.
    pub since_seq: Seq,
    /// Up to which message the conversation was last resolved; zero if never.
    pub resolved_seq: Seq,
}

impl AssignedCase {
    /// Whether the customer waits for an answer.
    fn needs_answer(&self) -> bool {
        self.customer_seq > self.agent_seq.max(self.resolved_seq)
    }

    /// Whether the agent has written since the assignment.
    fn is_answered(&self) -> bool {
        self.agent_seq > self.since_seq
    }
}

/// What is to be done with an assigned case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing until this moment, which is later than the present one. Then the case is looked at again. A message that
    /// is accepted in between makes nothing due before this moment, so it need not change it.
    Later(Timestamp),
    /// The assignment ends and the case waits again.
    GiveBack(Missed),
    /// The case is resolved up to this message.
    Resolve(Seq),
}

/// What an agent has let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The time for the first answer.
    Answer,
    /// The time for an answer after the agent had accepted the case or answered before.
    Reply,
}

/// What is due for `case` at `now`.
pub fn due(case: &AssignedCase, clocks: &Clocks, now: Timestamp) -> Due {
    let Clocks { answer_max, notified_max, reply_max, quiet_max } = *clocks;
    let (since, within, missed) = match case.accepted_at {
        _ if case.is_answered() => (case.assigned_at, reply_max, Missed::Reply),
        Some(accepted_at) => (accepted_at.max(case.assigned_at), reply_max, Missed::Reply),
        None if case.was_online => (case.assigned_at, answer_max, Missed::Answer),
        None => (case.assigned_at, notified_max, Missed::Answer),
    };
    let (deadline, outcome) = if case.needs_answer() {
        (latest(since, [case.waiting_at]).after(within), Due::GiveBack(missed))
    } else {
        let quiet_since = latest(case.assigned_at, [case.last_message_at]);
        (quiet_since.after(quiet_max), Due::Resolve(case.agent_seq.max(case.customer_seq)))
    };
    if now >= deadline {
        return outcome;
    }
    // A message yet to come starts another clock, but does not change the moment of the next look. So the next look is
    // no later than the earliest end of such a clock.
    let again = within.min(reply_max).min(quiet_max).max(AGAIN_MIN);
    Due::Later(deadline.min(now.after(again)))
}

/// The latest of `moment` and those of `others` that are known.
fn latest<const N: usize>(moment: Timestamp, others: [Option<Timestamp>; N]) -> Timestamp {
    others.into_iter().flatten().fold(moment, Timestamp::max)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    /// In milliseconds.
    const CLOCKS: Clocks = Clocks {
        answer_max: Duration::from_millis(120),
        notified_max: Duration::from_millis(600),
        reply_max: Duration::from_millis(900),
        quiet_max: Duration::from_millis(1800),
    };

    const ASSIGNED_AT: i64 = 10_000;

    /// Assigned to agent 1 while online; without a message.
    fn assigned() -> AssignedCase {
        AssignedCase {
            assigned_at: Timestamp(ASSIGNED_AT),
            accepted_at: None,
            was_online: true,
            customer_seq: Seq::ZERO,
            waiting_at: None,
            agent_seq: Seq::ZERO,
            last_message_at: None,
            since_seq: Seq::ZERO,
            resolved_seq: Seq::ZERO,
        }
    }

    /// A message: its number, when it was accepted, and its sender, none for the customer.
    type Message = (u64, i64, Option<u8>);

    /// A message of the customer.
    const fn asked(seq: u64, at: i64) -> Message {
        (seq, at, None)
    }

    /// A message of agent `number`.
    fn answered(seq: u64, at: i64, number: u8) -> Message {
        (seq, at, Some(number))
    }

    /// `case` once `messages` are stored one by one, in this order: rows are inserted, and the columns of the customer
    /// and of the agents are raised, each by its own number. Then `waiting_at` is read.
    fn stored(case: AssignedCase, messages: &[Message]) -> AssignedCase {
        let mut case = case;
        let mut rows = BTreeMap::new();
        for &(seq, at, sender_id) in messages {
            let (seq, at) = (Seq(seq), Timestamp(at));
            rows.insert(seq, at);
            match sender_id {
                None => case.customer_seq = case.customer_seq.max(seq),
                Some(_) => case.agent_seq = case.agent_seq.max(seq),
            }
        }
        case.last_message_at = rows.last_key_value().map(|(_, at)| *at);
        let is_before = |(_, at): &(&Seq, &Timestamp)| **at < case.assigned_at;
        case.since_seq = rows.iter().take_while(is_before).last().map_or(Seq::ZERO, |(seq, _)| *seq);
        case.waiting_at = rows.range(case.agent_seq.max(case.resolved_seq).next()..).next().map(|(_, at)| *at);
        case
    }

    /// The first moment at which something is due, and what; looks at the case only when it asks for it.
    fn first_due(case: &AssignedCase, clocks: &Clocks) -> (i64, Due) {
        let mut now = case.assigned_at;
        loop {
            match due(case, clocks, now) {
                Due::Later(at) => {
                    assert!(at > now);
                    now = at;
                }
                outcome => return (now.0, outcome),
            }
        }
    }

    #[track_caller]
    fn assert_due(case: &AssignedCase, at: i64, outcome: Due) {
        assert_eq!(first_due(case, &CLOCKS), (at, outcome));
        assert!(matches!(due(case, &CLOCKS, Timestamp(at - 1)), Due::Later(_)));
    }

    const ANSWER_MISSED: Due = Due::GiveBack(Missed::Answer);
    const REPLY_MISSED: Due = Due::GiveBack(Missed::Reply);

    #[test]
    fn the_first_answer_is_due_from_the_assignment_if_the_customer_wrote_before_it() {
        let case = stored(assigned(), &[asked(1, 3_000)]);
        assert_due(&case, ASSIGNED_AT + 120, ANSWER_MISSED);
        assert_due(&AssignedCase { was_online: false, ..case }, ASSIGNED_AT + 600, ANSWER_MISSED);
    }

    #[test]
    fn the_first_answer_is_due_from_the_first_message_if_the_customer_wrote_after_the_assignment() {
        let case = stored(assigned(), &[asked(1, ASSIGNED_AT + 500)]);
        assert_due(&case, ASSIGNED_AT + 620, ANSWER_MISSED);
    }

    #[test]
    fn an_accepted_case_is_due_from_its_acceptance_or_the_later_message() {
        let accepted = AssignedCase { accepted_at: Some(Timestamp(ASSIGNED_AT + 100)), ..assigned() };
        assert_due(&stored(accepted, &[asked(1, 3_000)]), ASSIGNED_AT + 1_000, REPLY_MISSED);
        assert_due(&stored(accepted, &[asked(1, ASSIGNED_AT + 300)]), ASSIGNED_AT + 1_200, REPLY_MISSED);
    }

    #[test]
    fn a_later_answer_is_due_from_the_customers_first_message_after_the_last_answer() {
        let messages = [
            asked(1, 3_000),
            answered(2, ASSIGNED_AT + 50, 1),
            asked(3, ASSIGNED_AT + 200),
            asked(4, ASSIGNED_AT + 800),
            asked(5, ASSIGNED_AT + 1_050),
        ];
        assert_due(&stored(assigned(), &messages), ASSIGNED_AT + 1_100, REPLY_MISSED);
    }

    #[test]
    fn acceptance_after_an_answer_moves_nothing() {
        let case = stored(assigned(), &[answered(1, ASSIGNED_AT + 50, 1), asked(2, ASSIGNED_AT + 200)]);
        let accepted = AssignedCase { accepted_at: Some(Timestamp(ASSIGNED_AT + 1_000)), ..case };
        assert_due(&accepted, ASSIGNED_AT + 1_100, REPLY_MISSED);
    }

    #[test]
    fn an_answer_of_a_former_agent_or_of_a_former_assignment_is_not_an_answer_since_the_assignment() {
        for former in [answered(2, 5_000, 2), answered(2, 5_000, 1)] {
            let case = stored(assigned(), &[asked(1, 3_000), former, asked(3, ASSIGNED_AT + 10)]);
            assert_due(&case, ASSIGNED_AT + 130, ANSWER_MISSED);
        }
    }

    #[test]
    fn an_answer_in_the_millisecond_of_the_assignment_counts() {
        let case = stored(assigned(), &[answered(1, ASSIGNED_AT, 1), asked(2, ASSIGNED_AT)]);
        assert_due(&case, ASSIGNED_AT + 900, REPLY_MISSED);
    }

    #[test]
    fn what_was_resolved_needs_no_answer() {
        let reopened = AssignedCase { resolved_seq: Seq(2), ..assigned() };
        assert_due(&stored(reopened, &[asked(1, 3_000), asked(2, 4_000)]), ASSIGNED_AT + 1_800, Due::Resolve(Seq(2)));
        let again = stored(reopened, &[asked(1, 3_000), asked(2, 4_000), asked(3, ASSIGNED_AT + 7)]);
        assert_due(&again, ASSIGNED_AT + 127, ANSWER_MISSED);
    }

    #[test]
    fn an_answered_case_is_resolved_once_it_was_quiet() {
        let case = stored(assigned(), &[asked(1, 3_000), answered(2, ASSIGNED_AT + 60, 1)]);
        assert_due(&case, ASSIGNED_AT + 1_860, Due::Resolve(Seq(2)));
    }

    #[test]
    fn a_case_without_a_message_frees_its_agent_once_it_was_quiet() {
        assert_due(&assigned(), ASSIGNED_AT + 1_800, Due::Resolve(Seq::ZERO));
    }

    #[test]
    fn a_waiting_message_that_is_no_longer_stored_is_due_from_the_assignment() {
        let case = AssignedCase { waiting_at: None, ..stored(assigned(), &[asked(1, 3_000)]) };
        assert_due(&case, ASSIGNED_AT + 120, ANSWER_MISSED);
    }

    #[test]
    fn a_quiet_case_is_looked_at_again_before_a_message_yet_to_come_is_due() {
        let at = Timestamp(ASSIGNED_AT + 100);
        assert_eq!(due(&assigned(), &CLOCKS, at), Due::Later(Timestamp(ASSIGNED_AT + 220)));
        let case = stored(assigned(), &[answered(1, ASSIGNED_AT + 50, 1)]);
        assert_eq!(due(&case, &CLOCKS, at), Due::Later(Timestamp(ASSIGNED_AT + 1_000)));
    }

    #[test]
    fn the_ends_of_time_are_no_trap() {
        let max = Duration::MAX;
        let clocks = Clocks { answer_max: max, notified_max: max, reply_max: max, quiet_max: max };
        let case = stored(assigned(), &[asked(1, i64::MAX)]);
        assert_eq!(due(&case, &clocks, Timestamp(i64::MIN)), Due::Later(Timestamp(-1)));
        assert_eq!(due(&case, &clocks, Timestamp(0)), Due::Later(Timestamp(i64::MAX)));
        assert_eq!(due(&case, &clocks, Timestamp(i64::MAX)), ANSWER_MISSED);
    }

    /// Clocks of at least a millisecond: a clock of zero ends before the next look can be.
    fn any_clocks() -> impl Strategy<Value = Clocks> {
        let any = || (1_u64..200).prop_map(Duration::from_millis);
        (any(), any(), any(), any()).prop_map(|(answer_max, notified_max, reply_max, quiet_max)| Clocks {
            answer_max,
            notified_max,
            reply_max,
            quiet_max,
        })
    }

    /// Messages from the number and moment on, each up to 60 ms after the one before it.
    fn numbered(steps: &[(i64, Option<u8>)], after_seq: u64, at: i64) -> Vec<Message> {
        let mut at = at;
        let mut messages = Vec::new();
        for (seq, (gap, sender)) in (after_seq + 1..).zip(steps) {
            at += gap;
            messages.push((seq, at, *sender));
        }
        messages
    }

    /// A conversation around an assignment to agent 1: the case as assigned, and its messages. Before the assignment
    /// another agent wrote too.
    fn any_history() -> impl Strategy<Value = (AssignedCase, Vec<Message>)> {
        let step = |senders: Vec<Option<u8>>| (0_i64..60, prop::sample::select(senders));
        (
            vec(step(vec![None, Some(1), Some(2)]), 0..6),
            0_i64..60,
            vec(step(vec![None, Some(1)]), 0..6),
            0_u64..8,
            option::weighted(0.3, 0_i64..200),
            any::<bool>(),
        )
            .prop_map(|(before, gap, since, resolved_seq, accepted_after, was_online)| {
                let mut messages = numbered(&before, 0, 0);
                let assigned_at = messages.last().map_or(0, |(_, at, _)| *at) + gap;
                messages.extend(numbered(&since, messages.len() as u64, assigned_at));
                let case = AssignedCase {
                    assigned_at: Timestamp(assigned_at),
                    accepted_at: accepted_after.map(|after| Timestamp(assigned_at + after)),
                    was_online,
                    resolved_seq: Seq(resolved_seq.min(before.len() as u64)),
                    ..assigned()
                };
                (case, messages)
            })
    }

    fn last_at(case: &AssignedCase) -> i64 {
        latest(case.assigned_at, [case.last_message_at]).0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn the_next_look_is_always_in_the_future(
            (case, messages) in any_history(), clocks in any_clocks(), now in -100_i64..2_000,
        ) {
            if let Due::Later(at) = due(&stored(case, &messages), &clocks, Timestamp(now)) {
                prop_assert!(at > Timestamp(now));
            }
        }

        #[test]
        fn what_is_due_stays_due(
            (case, messages) in any_history(), clocks in any_clocks(), now in -100_i64..2_000, more in 0_i64..2_000,
        ) {
            let case = stored(case, &messages);
            let (first, later) = (due(&case, &clocks, Timestamp(now)), due(&case, &clocks, Timestamp(now + more)));
            prop_assert!(matches!(first, Due::Later(_)) || first == later);
        }

        #[test]
        fn a_customer_who_keeps_writing_moves_no_clock(
            (case, mut messages) in any_history(), clocks in any_clocks(), gaps in vec(0_i64..300, 2..6),
        ) {
            let (seq, at) = (messages.len() as u64, last_at(&stored(case, &messages)));
            let more = numbered(&gaps.into_iter().map(|gap| (gap, None)).collect::<Vec<_>>(), seq, at);
            messages.push(more[0]);
            let first = stored(case, &messages);
            messages.extend(&more[1..]);
            prop_assert!(matches!(first_due(&first, &clocks).1, Due::GiveBack(_)));
            prop_assert_eq!(first_due(&stored(case, &messages), &clocks), first_due(&first, &clocks));
        }

        #[test]
        fn an_agent_who_has_answered_has_the_time_for_a_reply_from_the_next_message_on(
            (case, mut messages) in any_history(), clocks in any_clocks(), answered_after in 0_i64..300,
            asked_after in 0_i64..300, now in 0_i64..2_000,
        ) {
            let (seq, at) = (messages.len() as u64, last_at(&stored(case, &messages)));
            let (answered_at, asked_at) = (at + answered_after, at + answered_after + asked_after);
            messages.extend([asked(seq + 1, at), answered(seq + 2, answered_at, 1)]);
            let answer = stored(case, &messages);
            prop_assert!(!matches!(due(&answer, &clocks, Timestamp(now)), Due::GiveBack(_)));
            messages.push(asked(seq + 3, asked_at));
            let expected = (Timestamp(asked_at).after(clocks.reply_max).0, REPLY_MISSED);
            prop_assert_eq!(first_due(&stored(case, &messages), &clocks), expected);
        }

        #[test]
        fn no_message_makes_anything_due_before_the_next_look(
            (case, messages) in any_history(), clocks in any_clocks(), passed in 0_i64..200,
            steps in vec((0_i64..60, prop::sample::select(vec![None, Some(1)])), 1..6),
        ) {
            let before = stored(case, &messages);
            let now = last_at(&before) + passed;
            if let Due::Later(look_at) = due(&before, &clocks, Timestamp(now)) {
                let more = numbered(&steps, messages.len() as u64, now);
                let after = stored(case, &[messages, more].concat());
                let (at, _) = first_due(&after, &clocks);
                prop_assert!(at >= look_at.0, "due at {at}, looked at again at {look_at:?}");
            }
        }

        #[test]
        fn the_order_and_the_repetition_of_storing_do_not_matter(
            (case, messages, shuffled) in any_history().prop_flat_map(|(case, messages)| {
                let twice = [messages.clone(), messages.clone()].concat();
                (Just(case), Just(messages), Just(twice).prop_shuffle())
            }),
        ) {
            prop_assert_eq!(stored(case, &messages), stored(case, &shuffled));
        }
    }
}
