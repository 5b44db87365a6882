//! Tests of the order: each surprise by itself, then all of them at random against the invariant.

use chat_shared::{
    clock::Timestamp,
    ids::{MessageId, UserId},
    wire::{ConversationKind, ConversationName},
};
use proptest::prelude::*;

use super::*;

fn message(id: ConversationId, seq: u64) -> Message {
    Message {
        conversation_id: id,
        message_id: MessageId::random(),
        sender_id: UserId::random(),
        seq: Seq(seq),
        sent_at: Timestamp(0),
        text: "hello".into(),
    }
}

fn listed(id: ConversationId, last_seq: u64, floor_seq: u64) -> Conversation {
    Conversation {
        conversation_id: id,
        kind: ConversationKind::Group,
        version: 1,
        name: ConversationName::default(),
        profiles: Vec::new(),
        business: None,
        case: None,
        is_blocked: false,
        participants: Vec::new(),
        last_seq: Seq(last_seq),
        floor_seq: Seq(floor_seq),
        read_seq: Seq(0),
        last_read_message_id: None,
        own_runs: chat_shared::runs::Runs::default(),
        unread: 0,
        progress: Vec::new(),
        mute: None,
        last_message: None,
        created_at: Timestamp(0),
        last_activity_at: Timestamp(0),
    }
}

fn change(id: ConversationId, version: u64, last_seq: u64) -> ChangedConversation {
    ChangedConversation {
        conversation_id: id,
        kind: ConversationKind::Group,
        version,
        name: ConversationName::default(),
        profiles: Vec::new(),
        business: None,
        case: None,
        is_blocked: false,
        participants: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        returned: Vec::new(),
        last_seq: Seq(last_seq),
        changed_at: Timestamp(0),
    }
}

/// The part of history that a gateway would give.
fn page(id: ConversationId, after: Seq, last_seq: u64, floor_seq: u64, rows: u64) -> HistoryPage {
    let first = after.0.max(floor_seq) + 1;
    let last = last_seq.min(first + rows - 1);
    HistoryPage {
        messages: (first..=last).map(|seq| message(id, seq)).collect(),
        has_more: last < last_seq,
        last_seq: Seq(last_seq),
        floor_seq: Seq(floor_seq),
    }
}

fn fresh(start: Start) -> Order {
    Order::new(start, None::<Vec<_>>)
}

/// An order that has handed over 1 to `seq` of one conversation.
fn at(seq: u64) -> (Order, ConversationId) {
    let id = ConversationId::random();
    (Order::new(Start::Latest, Some([(id, Seq(seq))])), id)
}

fn pops(order: &mut Order) -> Vec<u64> {
    std::iter::from_fn(|| order.pop()).map(|message| message.seq.0).collect()
}

#[test]
fn repeats_are_dropped_and_early_messages_wait_for_their_turn() {
    let (mut order, id) = at(3);
    for seq in [3, 5, 5, 2] {
        order.push(message(id, seq));
    }
    assert!(!order.has_ready());
    order.push(message(id, 4));
    assert_eq!(pops(&mut order), [4, 5]);
    order.push(message(id, 4));
    assert_eq!(pops(&mut order), [0; 0]);
    assert!(order.is_complete());
}

#[test]
fn a_gap_is_filled_from_history_before_later_messages_are_handed_over() {
    let (mut order, id) = at(3);
    order.push(message(id, 7));
    assert_eq!(order.next_fetch(), Some((id, Seq(3))));
    assert_eq!(order.next_fetch(), None, "one fetch at a time");
    order.push(message(id, 8));
    assert_eq!(order.next_fetch(), None);
    assert_eq!(order.fetched(id, page(id, Seq(3), 8, 0, 2)), Fetched::Progress);
    assert_eq!(pops(&mut order), [4, 5]);
    assert_eq!(order.next_fetch(), Some((id, Seq(5))));
    order.put_off(id);
    assert_eq!(order.next_fetch(), Some((id, Seq(5))), "a failed fetch is asked for again");
    order.fetched(id, page(id, Seq(5), 8, 0, 100));
    assert_eq!(pops(&mut order), [6, 7, 8]);
    assert_eq!((order.next_fetch(), order.is_complete()), (None, true));
}

#[test]
fn aged_out_messages_are_skipped_and_named() {
    let (mut order, id) = at(3);
    order.push(message(id, 20));
    let (_, after) = order.next_fetch().unwrap();
    order.fetched(id, page(id, after, 20, 10, 100));
    assert_eq!(order.take_skipped(), [Skipped { conversation_id: id, from: Seq(4), to: Seq(10) }]);
    assert_eq!(pops(&mut order), (11..=20).collect::<Vec<_>>());
}

#[test]
fn what_history_passes_over_is_skipped_in_its_place() {
    let (mut order, id) = at(3);
    order.push(message(id, 12));
    let (_, after) = order.next_fetch().unwrap();
    let mut without = page(id, after, 12, 0, 6);
    without.messages.retain(|message| ![4, 7, 8].contains(&message.seq.0));
    assert_eq!(order.fetched(id, without), Fetched::Progress);
    let skipped = |from, to| Skipped { conversation_id: id, from: Seq(from), to: Seq(to) };
    assert_eq!(order.take_skipped(), [skipped(4, 4)]);
    assert_eq!(pops(&mut order), [5, 6, 9]);
    assert_eq!(order.take_skipped(), [skipped(7, 8)]);
    let (_, after) = order.next_fetch().unwrap();
    let mut without = page(id, after, 14, 0, 100);
    without.messages.clear();
    order.fetched(id, without);
    assert_eq!(pops(&mut order), [12], "what was pushed is handed over");
    assert_eq!(order.take_skipped(), [skipped(10, 11), skipped(13, 14)]);
    assert!(order.is_complete());
}

#[test]
fn a_page_without_messages_passes_over_all_that_it_was_asked_for_and_no_more() {
    let (mut order, id) = at(3);
    order.push(message(id, 200));
    let (_, after) = order.next_fetch().unwrap();
    let empty = HistoryPage { messages: Vec::new(), has_more: true, last_seq: Seq(200), floor_seq: Seq(0) };
    assert_eq!(order.fetched(id, empty.clone()), Fetched::Progress);
    let skipped = |from, to| Skipped { conversation_id: id, from: Seq(from), to: Seq(to) };
    assert_eq!(order.take_skipped(), [skipped(4, 103)]);
    assert_eq!(order.next_fetch(), Some((id, Seq(103))), "{after:?}");
    order.fetched(id, HistoryPage { last_seq: Seq(110), ..empty });
    assert_eq!(order.take_skipped(), [skipped(104, 110)], "what the page doesn't know of may come");
}

#[test]
fn a_gap_that_history_cannot_fill_is_skipped_in_the_end() {
    let (mut order, id) = at(3);
    order.push(message(id, 6));
    for _ in 0..STALLED_FETCHES_MAX {
        assert!(order.take_skipped().is_empty());
        let (_, after) = order.next_fetch().unwrap();
        let empty = HistoryPage { messages: Vec::new(), has_more: true, last_seq: after, floor_seq: Seq(0) };
        assert_eq!(order.fetched(id, empty), Fetched::Stalled);
    }
    assert_eq!(order.take_skipped(), [Skipped { conversation_id: id, from: Seq(4), to: Seq(5) }]);
    assert_eq!(pops(&mut order), [6]);
}

#[test]
fn a_conversation_that_may_not_be_read_any_more_is_not_waited_for() {
    let (mut order, id) = at(3);
    order.push(message(id, 6));
    order.next_fetch();
    order.abandon(id);
    assert_eq!(order.take_skipped(), [Skipped { conversation_id: id, from: Seq(4), to: Seq(6) }]);
    assert!(order.is_complete());
}

#[test]
fn the_first_load_begins_at_the_head_or_at_the_floor() {
    for (start, expected) in [(Start::Latest, Seq(9)), (Start::Beginning, Seq(4))] {
        let (mut order, id) = (fresh(start), ConversationId::random());
        order.load_began();
        order.loaded(&[listed(id, 9, 4)]);
        assert_eq!(order.take_placed(), [(id, expected)], "{start:?}");
    }
}

#[test]
fn what_is_pushed_during_the_first_load_is_handed_over_even_if_the_list_has_it() {
    let (mut order, id, unlisted) = (fresh(Start::Latest), ConversationId::random(), ConversationId::random());
    order.load_began();
    order.push(message(id, 9));
    order.push(message(id, 8));
    order.push(message(unlisted, 40));
    assert!(!order.has_ready(), "the list says where to begin");
    order.loaded(&[listed(id, 9, 0)]);
    let mut seqs = pops(&mut order);
    seqs.sort_unstable();
    assert_eq!(seqs, [8, 9, 40]);
    assert!(order.is_complete());
}

#[test]
fn a_conversation_made_later_is_handed_over_from_its_first_message() {
    let (mut order, _) = at(3);
    let (pushed, told, missed) = (ConversationId::random(), ConversationId::random(), ConversationId::random());
    order.push(message(pushed, 2));
    assert_eq!(order.next_fetch(), Some((pushed, Seq(0))));
    assert!(order.changed(&change(told, 1, 0)));
    order.push(message(told, 1));
    assert_eq!(pops(&mut order), [1]);
    order.load_began();
    order.loaded(&[listed(missed, 2, 0)]);
    assert_eq!(order.next_fetch(), Some((missed, Seq(0))), "made while the client was away");
}

#[test]
fn a_list_that_is_behind_hides_no_message() {
    let (mut order, id) = at(3);
    order.load_began();
    order.loaded(&[listed(id, 3, 0)]);
    assert!(!order.are_heads_known());
    let (_, after) = order.next_fetch().unwrap();
    assert_eq!(order.fetched(id, page(id, after, 5, 0, 100)), Fetched::Progress);
    assert_eq!(pops(&mut order), [4, 5]);
    assert!(order.are_heads_known() && order.is_complete());
    assert_eq!(order.next_fetch(), None);
}

#[test]
fn someone_added_to_an_old_group_begins_with_what_follows() {
    let (mut order, id) = (fresh(Start::Latest), ConversationId::random());
    order.load_began();
    order.loaded(&[]);
    assert!(order.changed(&change(id, 2, 50)));
    order.push(message(id, 51));
    assert_eq!(pops(&mut order), [51]);
    assert!(!order.changed(&change(id, 2, 50)), "a repeat is no news");
    assert!(order.changed(&change(id, 3, 51)));
}

#[test]
fn a_flood_is_bounded_and_fetched_again() {
    let (mut order, id) = at(0);
    for seq in 2..1000 {
        order.push(message(id, seq));
    }
    assert_eq!(order.held, HELD_PER_CONVERSATION_MAX);
    let mut seen = Vec::new();
    while let Some((_, after)) = order.next_fetch() {
        order.fetched(id, page(id, after, 999, 0, 100));
        seen.extend(pops(&mut order));
    }
    assert_eq!(seen, (1..1000).collect::<Vec<_>>());
}

#[test]
fn the_bound_over_all_conversations_holds_without_losing_anything() {
    let ids: Vec<_> = (0..HELD_MAX).map(|_| ConversationId::random()).collect();
    let mut order = Order::new(Start::Latest, Some(ids.iter().map(|id| (*id, Seq(0)))));
    for id in &ids {
        order.push(message(*id, 3));
        order.push(message(*id, 2));
    }
    assert_eq!(order.held, HELD_MAX);
    let mut seen = 0;
    while let Some((id, after)) = order.next_fetch() {
        order.fetched(id, page(id, after, 3, 0, 100));
        seen += pops(&mut order).len();
    }
    assert_eq!((seen, order.held), (3 * HELD_MAX, 0));
}

/// What can happen to one of three conversations.
#[derive(Debug, Clone)]
enum Step {
    Push(usize, u64),
    Load,
    Fetch { rows: u64, fails: bool },
    Pop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_usize, 1..60_u64).prop_map(|(conversation, seq)| Step::Push(conversation, seq)),
        1 => Just(Step::Load),
        3 => (1..20_u64, any::<bool>()).prop_map(|(rows, fails)| Step::Fetch { rows, fails }),
        3 => (1..5_usize).prop_map(Step::Pop),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn every_message_comes_once_and_in_order_whatever_happens(steps in steps(), starts in proptest::array::uniform3(0..30_u64)) {
        let ids: [ConversationId; 3] = std::array::from_fn(|_| ConversationId::random());
        let mut order = Order::new(Start::Latest, Some((0..3).map(|n| (ids[n], Seq(starts[n])))));
        let mut seen: HashMap<ConversationId, Vec<u64>> = HashMap::new();
        let mut heads = starts;
        let mut see = |message: Message| seen.entry(message.conversation_id).or_default().push(message.seq.0);
        for step in steps {
            match step {
                Step::Push(n, seq) => {
                    heads[n] = heads[n].max(seq);
                    order.push(message(ids[n], seq));
                }
                Step::Load => {
                    order.load_began();
                    order.loaded(&std::array::from_fn::<_, 3, _>(|n| listed(ids[n], heads[n], 0)));
                }
                Step::Fetch { rows, fails } => if let Some((id, after)) = order.next_fetch() {
                    let n = ids.iter().position(|known| *known == id).unwrap();
                    if fails { order.put_off(id) } else { order.fetched(id, page(id, after, heads[n], 0, rows)); }
                },
                Step::Pop(count) => for _ in 0..count {
                    if let Some(message) = order.pop() { see(message) }
                },
            }
        }
        loop {
            while let Some(message) = order.pop() { see(message) }
            let Some((id, after)) = order.next_fetch() else { break };
            let n = ids.iter().position(|known| *known == id).unwrap();
            order.fetched(id, page(id, after, heads[n], 0, 7));
        }
        for n in 0..3 {
            let expected: Vec<u64> = (starts[n] + 1..=heads[n]).collect();
            prop_assert_eq!(seen.remove(&ids[n]).unwrap_or_default(), expected);
        }
        prop_assert!(order.is_complete() && order.take_skipped().is_empty());
    }
}
