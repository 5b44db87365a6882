//! The same for days that age out.

use super::*;
use crate::audit::ageing::{
    AgedCopy, AgedDay, AgedEntry, AgedFloor, AgedListing, AgedMessage, AgedRow, AgedSearch, AgeingEvidence,
};

/// Days before today on both sides of each limit.
const DAYS_AGO: [i32; 4] = [98, 97, 91, 90];
const GONE: usize = 0;
const LAST_DELETED: usize = 1;
const DELETED: usize = 2;
const KEPT: usize = 3;

/// Two people in a conversation with a message of each of the days, after which nothing was sent. One has read nothing, the
/// other one everything.
fn past() -> AgeingEvidence {
    let conversation_id = ConversationId::random();
    let (asha, bikram) = (UserId::random(), UserId::random());
    let message = |(seq, days_ago): (u64, i32)| AgedMessage {
        conversation_id,
        seq: Seq(seq),
        sender_id: asha,
        days_ago,
        row: (days_ago < 98).then_some(AgedRow { is_deleted: days_ago >= 91, is_opened: true }),
        is_in_history: Some(days_ago < 91),
    };
    let day = |days_ago| AgedDay {
        days_ago,
        has_key: days_ago < 98,
        is_attached: days_ago < 98,
        relations: if days_ago < 98 { 5 } else { 0 },
    };
    let entry = |days_ago, gone_from, is_there| AgedEntry { table: "assignments", days_ago, gone_from, is_there };
    let listing = |user_id, read_seq, unread| AgedListing { conversation_id, user_id, read_seq, unread: Some(unread) };
    AgeingEvidence {
        messages: (1..).zip(DAYS_AGO).map(message).collect(),
        days: DAYS_AGO.map(day).to_vec(),
        entries: vec![entry(98, Some(98), false), entry(97, Some(98), true), entry(100, None, true)],
        floors: vec![AgedFloor { conversation_id, floor_seq: Seq(3) }],
        listings: vec![listing(bikram, Seq(0), 1), listing(asha, Seq(4), 0)],
        copies: vec![AgedCopy { name: "the canary in the log".to_owned(), keys: 7, opened: 0 }],
        searches: vec![AgedSearch { name: "the canary's text".to_owned(), files: 20, hits: 0 }],
    }
}

/// The violations after a change of the evidence.
fn found(happens: impl FnOnce(&mut AgeingEvidence)) -> Vec<(Check, u64)> {
    let mut evidence = past();
    happens(&mut evidence);
    let findings = audit_ageing(&evidence);
    findings.iter().filter(|finding| !finding.is_held()).map(|finding| (finding.check, finding.violations)).collect()
}

#[test]
fn days_that_age_at_their_time_are_looked_at_and_nothing_is_found() {
    let findings = audit_ageing(&past());
    assert_eq!(found(|_| {}), []);
    let of: Vec<_> = findings.iter().map(|finding| (finding.check, finding.of)).collect();
    let early = (3 + 1) + 2 * 3 + 2 + 1 + 2;
    let late = 2 * 3 + 2 + 1 + 1 + 2;
    assert_eq!(of, [(Check::AgedTooEarly, early), (Check::AgedTooLate, late), (Check::CanaryOpened, 7 + 20)]);
}

#[test]
fn r1_5_rows_that_are_deleted_a_day_early_or_late() {
    let set = |index: usize, is_deleted| {
        found(|past| past.messages[index].row = Some(AgedRow { is_deleted, is_opened: true }))
    };
    assert_eq!(set(KEPT, true), [(Check::AgedTooEarly, 1)]);
    assert_eq!(set(DELETED, false), [(Check::AgedTooLate, 1)]);
    assert_eq!(set(LAST_DELETED, false), [(Check::AgedTooLate, 1)]);
}

#[test]
fn r1_6_rows_that_are_removed_a_day_early_or_late() {
    for index in [KEPT, DELETED, LAST_DELETED] {
        assert_eq!(found(|past| past.messages[index].row = None), [(Check::AgedTooEarly, 1)]);
    }
    let left = found(|past| past.messages[GONE].row = Some(AgedRow { is_deleted: true, is_opened: false }));
    assert_eq!(left, [(Check::AgedTooLate, 1)]);
}

#[test]
fn r1_6_rows_of_days_that_are_not_gone_and_do_not_open() {
    for index in [KEPT, DELETED, LAST_DELETED] {
        let outcome = found(|past| past.messages[index].row.iter_mut().for_each(|row| row.is_opened = false));
        assert_eq!(outcome, [(Check::AgedTooEarly, 1)]);
    }
}

#[test]
fn r1_5_history_that_lacks_what_is_kept_or_shows_what_is_deleted() {
    assert_eq!(found(|past| past.messages[KEPT].is_in_history = Some(false)), [(Check::AgedTooEarly, 1)]);
    for index in [DELETED, LAST_DELETED, GONE] {
        assert_eq!(found(|past| past.messages[index].is_in_history = Some(true)), [(Check::AgedTooLate, 1)]);
    }
    assert_eq!(found(|past| past.messages.iter_mut().for_each(|message| message.is_in_history = None)), []);
}

#[test]
fn r1_6_keys_and_partitions_that_go_early_or_late() {
    assert_eq!(found(|past| past.days[LAST_DELETED].has_key = false), [(Check::AgedTooEarly, 1)]);
    assert_eq!(found(|past| past.days[LAST_DELETED].is_attached = false), [(Check::AgedTooEarly, 1)]);
    assert_eq!(found(|past| past.days[GONE].has_key = true), [(Check::AgedTooLate, 1)]);
    assert_eq!(found(|past| past.days[GONE].relations = 1), [(Check::AgedTooLate, 1)]);
}

#[test]
fn r1_6_rows_of_other_tables_that_go_early_or_late() {
    assert_eq!(found(|past| past.entries[0].is_there = true), [(Check::AgedTooLate, 1)]);
    assert_eq!(found(|past| past.entries[1].is_there = false), [(Check::AgedTooEarly, 1)]);
    let open = found(|past| past.entries[2].is_there = false);
    assert_eq!(open, [(Check::AgedTooEarly, 1)], "an assignment that has not ended stays");
}

#[test]
fn r1_5_floors_that_are_too_high_or_too_low() {
    assert_eq!(found(|past| past.floors[0].floor_seq = Seq(4)), [(Check::AgedTooEarly, 1)]);
    assert_eq!(found(|past| past.floors[0].floor_seq = Seq(0)), [(Check::AgedTooLate, 1)]);
}

#[test]
fn r1_5_lists_that_count_what_is_deleted_or_do_not_count_what_is_kept() {
    assert_eq!(found(|past| past.listings[0].unread = Some(4)), [(Check::AgedTooLate, 1)]);
    assert_eq!(found(|past| past.listings[0].unread = Some(0)), [(Check::AgedTooEarly, 1)]);
    assert_eq!(found(|past| past.listings[1].unread = None), [(Check::AgedTooEarly, 1)], "the conversation is there");
    assert_eq!(found(|past| past.listings[1].unread = Some(1)), [(Check::AgedTooLate, 1)], "all was read");
}

#[test]
fn r1_6_copies_that_a_key_opens_and_texts_and_keys_in_files() {
    assert_eq!(found(|past| past.copies[0].opened = 1), [(Check::CanaryOpened, 1)]);
    assert_eq!(found(|past| past.searches[0].hits = 2), [(Check::CanaryOpened, 2)]);
}
