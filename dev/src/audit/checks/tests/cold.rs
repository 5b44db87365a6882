//! The same for old texts that move to an object store.

use super::*;
use crate::audit::cold::{ColdDay, ColdEvidence, ColdMessage, ColdObject, ColdPack, TextPlace};

/// A conversation whose newest message stays in its row.
fn moved() -> ColdEvidence {
    let conversation_id = ConversationId::random();
    let message = |(seq, place): (u64, TextPlace)| ColdMessage {
        conversation_id,
        seq: Seq(seq),
        days_ago: 15,
        place,
        stays: place == TextPlace::Row,
        read: 2,
        asked: 2,
    };
    ColdEvidence {
        messages: [(1, TextPlace::Pack), (2, TextPlace::Row)].map(message).to_vec(),
        packs: vec![ColdPack { name: "a pack".to_owned(), is_whole: true }],
        days: vec![ColdDay { days_ago: 15, is_moved: true }],
        objects: vec![ColdObject { name: "an object".to_owned(), texts: 0 }],
    }
}

/// The violations after a change of the evidence.
fn found(happens: impl FnOnce(&mut ColdEvidence)) -> Vec<(Check, u64)> {
    let mut evidence = moved();
    happens(&mut evidence);
    let findings = audit_cold(&evidence);
    findings.iter().filter(|finding| !finding.is_held()).map(|finding| (finding.check, finding.violations)).collect()
}

#[test]
fn r12_3_texts_that_have_moved_are_looked_at_and_nothing_is_found() {
    assert_eq!(found(|_| {}), []);
    let of: Vec<_> = audit_cold(&moved()).iter().map(|finding| (finding.check, finding.of)).collect();
    assert_eq!(of, [(Check::NotInHistory, 4), (Check::TextsLost, 3), (Check::TextsLeft, 2), (Check::TextsInClear, 1)]);
}

#[test]
fn r12_3_texts_that_are_lost_or_not_shown() {
    assert_eq!(found(|it| it.messages[0].place = TextPlace::Nowhere), [(Check::TextsLost, 1)]);
    assert_eq!(found(|it| it.packs[0].is_whole = false), [(Check::TextsLost, 1)]);
    assert_eq!(found(|it| it.messages[0].read = 1), [(Check::NotInHistory, 1)]);
}

#[test]
fn r12_3_texts_that_stay_and_texts_in_clear() {
    assert_eq!(found(|it| it.messages[0].place = TextPlace::Row), [(Check::TextsLeft, 1)]);
    assert_eq!(found(|it| it.days[0].is_moved = false), [(Check::TextsLeft, 1)]);
    assert_eq!(found(|it| it.objects[0].texts = 3), [(Check::TextsInClear, 1)]);
}
