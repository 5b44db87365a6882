//! Checks of days that age out: nothing before its time, everything at its time, and nothing that could be read again.

use std::collections::BTreeMap;

use chat_client::{ids::ConversationId, positions::Seq};

use super::{holds, name};
use crate::audit::{
    ageing::{AgedListing, AgedMessage, AgedRow, AgeingEvidence, DELETED_FROM, GONE_FROM},
    finding::{Check, Finding},
};

/// Compares what is left of days with their age.
pub fn audit_ageing(evidence: &AgeingEvidence) -> Vec<Finding> {
    vec![aged_too_early(evidence), aged_too_late(evidence), canary_opened(evidence)]
}

/// Rows, keys and partitions are there until their day is gone, undeleted and shown until it is deleted.
fn aged_too_early(evidence: &AgeingEvidence) -> Finding {
    let mut finding = Finding::new(Check::AgedTooEarly);
    for message in evidence.messages.iter().filter(|message| message.days_ago < GONE_FROM) {
        finding.look(match message.row {
            None => Err(of(message, "has no row")),
            Some(AgedRow { is_opened: false, .. }) => Err(of(message, "is not opened by the key of its day")),
            Some(AgedRow { is_deleted: true, .. }) if message.days_ago < DELETED_FROM => Err(of(message, "is deleted")),
            Some(_) => Ok(()),
        });
        if message.days_ago < DELETED_FROM {
            finding.look(holds(message.is_in_history != Some(false), || of(message, "is not in history")));
        }
    }
    for day in evidence.days.iter().filter(|day| day.days_ago < GONE_FROM) {
        finding.look(holds(day.has_key, || format!("the key of {} days ago is gone", day.days_ago)));
        finding.look(holds(day.is_attached, || format!("the partition of {} days ago is gone", day.days_ago)));
    }
    for entry in evidence.entries.iter().filter(|entry| entry.gone_from.is_none_or(|gone| entry.days_ago < gone)) {
        finding.look(holds(entry.is_there, || {
            format!("a row of {} from {} days ago is gone", entry.table, entry.days_ago)
        }));
    }
    let due = last_due(evidence);
    for floor in &evidence.floors {
        let due = due.get(&floor.conversation_id).copied().unwrap_or_default();
        finding.look(holds(floor.floor_seq <= due, || {
            format!("the floor is {} above {}", name(floor.conversation_id, floor.floor_seq), due.0)
        }));
    }
    for listing in &evidence.listings {
        let wanted = unread(evidence, listing);
        finding.look(holds(listing.unread.is_some_and(|unread| unread >= wanted), || {
            format!("{} are unread instead of {wanted}", listed(listing))
        }));
    }
    finding
}

/// Rows are deleted and nothing is shown or counted once their day is deleted, and nothing is left once it is gone.
fn aged_too_late(evidence: &AgeingEvidence) -> Finding {
    let mut finding = Finding::new(Check::AgedTooLate);
    for message in evidence.messages.iter().filter(|message| message.days_ago >= DELETED_FROM) {
        let is_gone = message.days_ago >= GONE_FROM;
        finding.look(match message.row {
            Some(_) if is_gone => Err(of(message, "has a row")),
            Some(AgedRow { is_deleted: false, .. }) => Err(of(message, "is not deleted")),
            Some(_) | None => Ok(()),
        });
        finding.look(holds(message.is_in_history != Some(true), || of(message, "is in history")));
    }
    for day in evidence.days.iter().filter(|day| day.days_ago >= GONE_FROM) {
        finding.look(holds(!day.has_key, || format!("there is a key of {} days ago", day.days_ago)));
        finding.look(holds(day.relations == 0, || {
            format!("{} relations are left of the partition of {} days ago", day.relations, day.days_ago)
        }));
    }
    for entry in evidence.entries.iter().filter(|entry| entry.gone_from.is_some_and(|gone| entry.days_ago >= gone)) {
        finding.look(holds(!entry.is_there, || {
            format!("there is a row of {} from {} days ago", entry.table, entry.days_ago)
        }));
    }
    let due = last_due(evidence);
    for floor in &evidence.floors {
        let due = due.get(&floor.conversation_id).copied().unwrap_or_default();
        finding.look(holds(floor.floor_seq >= due, || {
            format!("the floor is {} below {}", name(floor.conversation_id, floor.floor_seq), due.0)
        }));
    }
    for listing in &evidence.listings {
        let wanted = unread(evidence, listing);
        finding.look(holds(listing.unread.is_none_or(|unread| unread <= wanted), || {
            format!("{} are unread instead of {wanted}", listed(listing))
        }));
    }
    finding
}

/// No key opens a copy of a text whose day is gone, and neither such a text nor a key of such a day stands in a file.
fn canary_opened(evidence: &AgeingEvidence) -> Finding {
    let mut finding = Finding::new(Check::CanaryOpened);
    for copy in &evidence.copies {
        finding.of += copy.keys;
        if copy.opened > 0 {
            finding.violations += copy.opened;
            finding.first.get_or_insert_with(|| format!("{}, by {} of {} keys", copy.name, copy.opened, copy.keys));
        }
    }
    for search in &evidence.searches {
        finding.of += search.files;
        if search.hits > 0 {
            finding.violations += search.hits;
            finding.first.get_or_insert_with(|| format!("{}: {} times", search.name, search.hits));
        }
    }
    finding
}

/// The last message of each conversation whose day is deleted.
fn last_due(evidence: &AgeingEvidence) -> BTreeMap<ConversationId, Seq> {
    let mut last: BTreeMap<_, Seq> = BTreeMap::new();
    for message in evidence.messages.iter().filter(|message| message.days_ago >= DELETED_FROM) {
        let last = last.entry(message.conversation_id).or_default();
        *last = message.seq.max(*last);
    }
    last
}

/// Messages of others after the read mark whose day is not deleted.
fn unread(evidence: &AgeingEvidence, listing: &AgedListing) -> u64 {
    let kept = evidence.messages.iter().filter(|it| it.days_ago < DELETED_FROM);
    let others = kept.filter(|it| it.conversation_id == listing.conversation_id && it.sender_id != listing.user_id);
    others.filter(|it| it.seq > listing.read_seq).count() as u64
}

fn of(message: &AgedMessage, what: &str) -> String {
    format!("{}, {} days old, {what}", name(message.conversation_id, message.seq), message.days_ago)
}

fn listed(listing: &AgedListing) -> String {
    let unread = listing.unread.map_or_else(|| "none".to_owned(), |unread| unread.to_string());
    format!("{unread} of conversation {}", listing.conversation_id.as_uuid())
}
