//! Checks of old texts that move to an object store: none lost, none left behind, none in clear.

use super::{holds, name};
use crate::audit::{
    cold::{ColdEvidence, ColdMessage, TextPlace},
    finding::{Check, Finding},
};

/// Compares where old texts are with where they have to be.
pub fn audit_cold(evidence: &ColdEvidence) -> Vec<Finding> {
    vec![not_in_history(evidence), texts_lost(evidence), texts_left(evidence), texts_in_clear(evidence)]
}

/// Each gateway gives each message with its text.
fn not_in_history(evidence: &ColdEvidence) -> Finding {
    let mut finding = Finding::new(Check::NotInHistory);
    for message in &evidence.messages {
        for turn in 0..message.asked {
            finding.look(holds(turn < message.read, || of(message, "lacks its text in history")));
        }
    }
    finding
}

/// Each text is in its row or in a pack, and each pack is in the store.
fn texts_lost(evidence: &ColdEvidence) -> Finding {
    let mut finding = Finding::new(Check::TextsLost);
    for message in &evidence.messages {
        finding.look(holds(message.place != TextPlace::Nowhere, || of(message, "is neither in a row nor in a pack")));
    }
    for pack in &evidence.packs {
        finding.look(holds(pack.is_whole, || format!("{} is missing or damaged", pack.name)));
    }
    finding
}

/// Rows keep no text but those that have to stay, and all days have moved.
fn texts_left(evidence: &ColdEvidence) -> Finding {
    let mut finding = Finding::new(Check::TextsLeft);
    for message in evidence.messages.iter().filter(|message| !message.stays) {
        finding.look(holds(message.place != TextPlace::Row, || of(message, "is still in its row")));
    }
    for day in &evidence.days {
        finding.look(holds(day.is_moved, || format!("the texts of {} days ago have not moved", day.days_ago)));
    }
    finding
}

fn texts_in_clear(evidence: &ColdEvidence) -> Finding {
    let mut finding = Finding::new(Check::TextsInClear);
    for object in &evidence.objects {
        finding.look(holds(object.texts == 0, || format!("{} has {} texts", object.name, object.texts)));
    }
    finding
}

fn of(message: &ColdMessage, what: &str) -> String {
    format!("{}, {} days old, {what}", name(message.conversation_id, message.seq), message.days_ago)
}
