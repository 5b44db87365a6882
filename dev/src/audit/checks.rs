//! The audit itself: a pure function from evidence to findings.
//!
//! **Invariant:** every check says what it is out of, so that nothing found can be told from nothing looked at.

mod ageing;
mod cases;
mod changes;
mod cold;
mod realtime;

use std::collections::{BTreeMap, BTreeSet};

use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
    positions::Seq,
    runs::Runs,
    wire::Message,
};

pub use self::{ageing::audit_ageing, cases::audit_cases, cold::audit_cold};
use self::{
    changes::{accepted_wrongly, audience_wrong, change_not_told, marks_wrong, members_wrong, pushed_too_often},
    realtime::{notified_twice, presence_wrong},
};
use super::{
    evidence::{DeviceRecord, Evidence, Room, Row},
    finding::{Check, Finding},
    ledger::{Attempt, Fate, Key, Place},
};

/// Whether all devices know all marks and changes that were answered. Their pushes may be on their way for a moment.
pub fn are_told(evidence: &Evidence) -> bool {
    marks_wrong(evidence).is_held() && change_not_told(evidence).is_held()
}

/// Compares everything with everything.
pub fn audit(evidence: &Evidence) -> Vec<Finding> {
    let books = Books::of(evidence);
    vec![
        books.not_stored(),
        books.not_in_history(),
        books.not_shown(),
        shown_twice(evidence),
        out_of_order(evidence),
        holes(evidence),
        time_backwards(evidence),
        books.phantoms(),
        doubled(evidence),
        books.moved(),
        unread_wrong(evidence),
        books.not_notified(),
        notified_twice(evidence),
        books.notified_wrongly(),
        books.notified_though_muted(),
        presence_wrong(evidence),
        pushed_too_often(evidence),
        marks_wrong(evidence),
        members_wrong(evidence),
        change_not_told(evidence),
        audience_wrong(evidence),
        accepted_wrongly(evidence),
        dead_letters(evidence),
    ]
}

/// The evidence, sorted so that things are found.
struct Books<'a> {
    evidence: &'a Evidence,
    sent: BTreeMap<Key, &'a Attempt>,
    accepted: Vec<(&'a Attempt, Place)>,
}

impl<'a> Books<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let sent = evidence.attempts.iter().map(|attempt| (attempt.key, attempt)).collect();
        let place = |attempt: &'a Attempt| match attempt.fate {
            Fate::Accepted(place) => Some((attempt, place)),
            Fate::Unknown | Fate::NotSent => None,
        };
        Self { evidence, sent, accepted: evidence.attempts.iter().filter_map(place).collect() }
    }

    fn not_stored(&self) -> Finding {
        let stored: BTreeSet<Key> = self.evidence.rows.iter().map(Row::key).collect();
        let mut finding = Finding::new(Check::NotStored);
        for (attempt, place) in &self.accepted {
            finding.look(holds(stored.contains(&attempt.key), || name(attempt.key.conversation_id, place.seq)));
        }
        finding
    }

    fn not_in_history(&self) -> Finding {
        let history: BTreeMap<Key, &str> =
            self.evidence.history.iter().map(|message| (key(message), message.text.as_str())).collect();
        let mut finding = Finding::new(Check::NotInHistory);
        for (attempt, place) in &self.accepted {
            let is_there = history.get(&attempt.key) == Some(&attempt.text.as_str());
            finding.look(holds(is_there, || name(attempt.key.conversation_id, place.seq)));
        }
        finding
    }

    fn not_shown(&self) -> Finding {
        let mut finding = Finding::new(Check::NotShown);
        let members = self.members();
        for device in &self.evidence.devices {
            let shown: BTreeSet<Key> = device.messages.iter().map(key).collect();
            for (attempt, place) in &self.accepted {
                let conversation_id = attempt.key.conversation_id;
                if members.get(&conversation_id).is_some_and(|members| members.contains(&device.user_id)) {
                    let is_shown = shown.contains(&attempt.key);
                    finding
                        .look(holds(is_shown, || format!("{} to {}", name(conversation_id, place.seq), device.name)));
                }
            }
            if device.skipped > 0 {
                finding.violate(format!("{} skipped {} messages", device.name, device.skipped));
            }
        }
        finding
    }

    /// What there is, and has to have been sent like this.
    fn phantoms(&self) -> Finding {
        let mut finding = Finding::new(Check::Phantoms);
        for row in &self.evidence.rows {
            finding.look(holds(self.was_sent(row.key(), None), || {
                format!("the row of {}", name(row.conversation_id, row.seq))
            }));
        }
        for (message, place) in self.seen() {
            let is_sent = self.was_sent(key(message), Some(&message.text));
            finding.look(holds(is_sent, || format!("{} in {place}", name(message.conversation_id, message.seq))));
        }
        finding
    }

    fn was_sent(&self, key: Key, text: Option<&str>) -> bool {
        self.sent
            .get(&key)
            .is_some_and(|attempt| attempt.fate != Fate::NotSent && text.is_none_or(|text| text == attempt.text))
    }

    /// Whether everything stands where its sender was told.
    fn moved(&self) -> Finding {
        let mut finding = Finding::new(Check::Moved);
        for (attempt, place) in &self.accepted {
            for answer in &attempt.answers {
                finding.look(holds(answer == place, || {
                    format!("{} was answered with {} later", name(attempt.key.conversation_id, place.seq), answer.seq.0)
                }));
            }
        }
        let rows = self.evidence.rows.iter().map(|row| (row.key(), row.seq, row.sent_at, "PostgreSQL"));
        let seen = self.seen().map(|(message, place)| (key(message), message.seq, message.sent_at, place));
        for (key, seq, sent_at, place) in rows.chain(seen) {
            let first = self.sent.get(&key).map(|attempt| attempt.fate);
            let is_same = !matches!(first, Some(Fate::Accepted(first)) if first != Place { seq, sent_at });
            finding.look(holds(is_same, || {
                format!("{} in {place} was accepted elsewhere", name(key.conversation_id, seq))
            }));
        }
        finding
    }

    fn seen(&self) -> impl Iterator<Item = (&'a Message, &'a str)> {
        let history = self.evidence.history.iter().map(|message| (message, "history"));
        let shown = self.evidence.devices.iter();
        history.chain(shown.flat_map(|device| device.messages.iter().map(|message| (message, device.name.as_str()))))
    }
}

fn shown_twice(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::ShownTwice);
    for device in &evidence.devices {
        let (mut ids, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for message in &device.messages {
            let is_new_id = ids.insert(key(message));
            let is_new = numbers.insert((message.conversation_id, message.seq)) && is_new_id;
            finding.look(holds(is_new, || at(device, message)));
        }
    }
    finding
}

fn out_of_order(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::OutOfOrder);
    for device in &evidence.devices {
        let mut last: BTreeMap<ConversationId, Seq> = BTreeMap::new();
        for message in &device.messages {
            let last = last.entry(message.conversation_id).or_default();
            finding.look(holds(*last <= message.seq, || format!("{}, after {}", at(device, message), last.0)));
            *last = message.seq.max(*last);
        }
    }
    finding
}

/// Numbers are 1, 2, 3 … up to the last one that anybody knows of.
fn holes(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::Holes);
    for Room { id, .. } in &evidence.rooms {
        let head = evidence.heads.iter().find(|head| head.conversation_id == *id);
        let (floor, counted) = head.map_or((0, 0), |head| (head.floor_seq.0, head.last_seq.0));
        let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
        for row in evidence.rows.iter().filter(|row| row.conversation_id == *id) {
            *rows.entry(row.seq.0).or_default() += 1;
        }
        let answered = evidence.attempts.iter().filter(|attempt| attempt.key.conversation_id == *id);
        let answered = answered.filter_map(Attempt::kept).map(|kept| kept.seq.0).max().unwrap_or_default();
        let stored = rows.last_key_value().map_or(0, |(seq, _)| *seq);
        for seq in floor + 1..=stored.max(answered).max(counted) {
            let count = rows.get(&seq).copied().unwrap_or_default();
            finding.look(holds(count == 1, || format!("{} has {count} rows", name(*id, Seq(seq)))));
        }
    }
    finding
}

fn time_backwards(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::TimeBackwards);
    let mut rows: Vec<&Row> = evidence.rows.iter().collect();
    rows.sort_by_key(|row| (row.conversation_id, row.seq));
    let mut last: Option<(ConversationId, Timestamp)> = None;
    for row in rows {
        let is_later = last.is_none_or(|(id, sent_at)| id != row.conversation_id || sent_at <= row.sent_at);
        finding.look(holds(is_later, || name(row.conversation_id, row.seq)));
        last = Some((row.conversation_id, row.sent_at));
    }
    finding
}

fn doubled(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::Doubled);
    let mut counts: BTreeMap<Key, (u64, Seq)> = BTreeMap::new();
    for row in &evidence.rows {
        counts.entry(row.key()).or_insert((0, row.seq)).0 += 1;
    }
    for (key, (count, seq)) in counts {
        finding.look(holds(count == 1, || format!("{} has {count} rows", name(key.conversation_id, seq))));
    }
    finding
}

/// Lists are what their definition makes of PostgreSQL's own rows: the last number, and
/// `last_seq − max(read_seq, floor_seq)`, less the user's own messages after that, as far as their runs are kept.
fn unread_wrong(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::UnreadWrong);
    for room in &evidence.rooms {
        let rows = || evidence.rows.iter().filter(|row| row.conversation_id == room.id);
        let last = rows().map(|row| row.seq.0).max().unwrap_or_default();
        let floor =
            evidence.heads.iter().find(|head| head.conversation_id == room.id).map_or(0, |head| head.floor_seq.0);
        for member in &room.members {
            let is_it =
                |conversation_id: ConversationId, user_id: UserId| conversation_id == room.id && user_id == *member;
            let mark = evidence.reads.iter().find(|mark| is_it(mark.conversation_id, mark.user_id));
            let listed = evidence.listed.iter().find(|listed| is_it(listed.conversation_id, listed.user_id));
            finding.look(match (mark, listed) {
                (None, _) => Err(format!("{} has no mark of a participant", name(room.id, Seq(last)))),
                (_, None) => Err(format!("a participant's list lacks {}", name(room.id, Seq(last)))),
                (Some(mark), Some(listed)) => {
                    let seen = mark.read_seq.0.max(floor);
                    let own = rows().filter(|row| row.sender_id == *member && row.seq.0 > seen);
                    let own = Runs::of(own.map(|row| (row.seq, row.seq))).count_after(Seq(seen));
                    let unread = last.saturating_sub(seen).saturating_sub(own);
                    let is_right = listed.last_seq.0 == last && listed.unread == unread && mark.read_seq.0 <= last;
                    holds(is_right, || {
                        format!(
                            "{}: listed as {} of {}, read to {}, {own} own after it, so {unread} of {last}",
                            name(room.id, Seq(last)),
                            listed.unread,
                            listed.last_seq.0,
                            mark.read_seq.0,
                        )
                    })
                }
            });
        }
    }
    finding
}

fn dead_letters(evidence: &Evidence) -> Finding {
    let Evidence { attempts, dead_letters, dead_letters_expected, .. } = evidence;
    let violations = dead_letters.abs_diff(*dead_letters_expected);
    Finding {
        check: Check::DeadLetters,
        violations,
        of: attempts.len() as u64 + dead_letters_expected,
        first: (violations > 0).then(|| format!("{dead_letters} dead letters instead of {dead_letters_expected}")),
    }
}

fn holds(is_held: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_held { Ok(()) } else { Err(what()) }
}

const fn key(message: &Message) -> Key {
    Key { conversation_id: message.conversation_id, sender_id: message.sender_id, message_id: message.message_id }
}

fn name(conversation_id: ConversationId, seq: Seq) -> String {
    format!("number {} of conversation {}", seq.0, conversation_id.as_uuid())
}

fn at(device: &DeviceRecord, message: &Message) -> String {
    format!("{} to {}", name(message.conversation_id, message.seq), device.name)
}

#[cfg(test)]
mod tests;
