//! Checks of read marks, of participants, of blocks, and of how often messages are pushed.

use std::{collections::BTreeSet, time::Duration};

use chat_client::{
    ids::{ConversationId, UserId},
    positions::Seq,
};

use super::{holds, name};
use crate::audit::{
    evidence::{DeviceRecord, Evidence, Marked},
    finding::{Check, Finding},
    ledger::Fate,
};

/// Pushes of one message on one connection that are no fault: a notifier that dies leaves what it has in hand to the next
/// one, which delivers it again.
const PUSHES_ON_A_CONNECTION_MAX: u64 = 4;

/// A mark that was answered within this time of a reload may be missing: no push follows, and the list shows stored marks.
const LIST_LAG_MAX: Duration = Duration::from_secs(5);

/// Delivery is at least once: each connection may begin with what was not confirmed, and each death of a notifier may
/// repeat what it had in hand. Whatever goes beyond that is an endless repeat in the making.
pub(super) fn pushed_too_often(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::PushedTooOften);
    for pushed in &evidence.pushed {
        let most = pushed.connections.saturating_sub(1) + PUSHES_ON_A_CONNECTION_MAX;
        for times in &pushed.times {
            finding.look(holds(*times <= most, || {
                format!("{} was pushed a message {times} times over {} connections", pushed.device, pushed.connections)
            }));
        }
    }
    finding
}

/// Marks that were answered are stored and pushed to the other participants. No stored mark is beyond the messages that the user
/// marked or wrote, or that the conversation had when the user joined.
pub(super) fn marks_wrong(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::MarksWrong);
    for marked in &evidence.marked {
        let Marked { conversation_id, user_id, answered, tried, answered_at } = *marked;
        let is_it = |id: ConversationId, user: UserId| id == conversation_id && user == user_id;
        let kept = evidence.reads.iter().find(|mark| is_it(mark.conversation_id, mark.user_id));
        let (kept, since) = kept.map_or((Seq::ZERO, Seq::ZERO), |mark| (mark.read_seq, mark.since_seq));
        let own = evidence.rows.iter().filter(|row| is_it(row.conversation_id, row.sender_id));
        let own = own.map(|row| row.seq).max().unwrap_or_default();
        finding.look(holds((answered..=tried.max(own).max(since)).contains(&kept), || {
            let (answered, tried) = (answered.0, tried.0);
            format!("{}: kept as read, marked to {tried}, answered to {answered}", name(conversation_id, kept))
        }));
        for device in others(evidence, conversation_id, user_id) {
            let told = told(device, conversation_id, user_id);
            let is_between = answered_at
                .zip(device.reloaded_at)
                .is_some_and(|(answered, reloaded)| answered.max(reloaded) - answered.min(reloaded) < LIST_LAG_MAX);
            finding.look(holds(told >= answered || is_between, || {
                format!("{} was told of {}, marked to {}", device.name, name(conversation_id, told), answered.0)
            }));
        }
    }
    finding
}

/// The devices of everybody else in a conversation.
fn others(
    evidence: &Evidence,
    conversation_id: ConversationId,
    user_id: UserId,
) -> impl Iterator<Item = &DeviceRecord> {
    let room = evidence.rooms.iter().find(move |room| room.id == conversation_id);
    evidence.devices.iter().filter(move |device| {
        device.user_id != user_id && room.is_some_and(|room| room.members.contains(&device.user_id))
    })
}

/// How far a device knows that a user has read.
fn told(device: &DeviceRecord, conversation_id: ConversationId, user_id: UserId) -> Seq {
    device.reads.get(&(conversation_id, user_id)).copied().unwrap_or_default()
}

/// The rows of participants are exactly the expected participants.
pub(super) fn members_wrong(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::MembersWrong);
    for room in &evidence.rooms {
        let kept: BTreeSet<_> =
            evidence.reads.iter().filter(|mark| mark.conversation_id == room.id).map(|mark| mark.user_id).collect();
        let wanted: BTreeSet<_> = room.members.iter().copied().collect();
        finding.look(holds(kept == wanted, || {
            let (id, kept, wanted) = (room.id.as_uuid(), kept.len(), wanted.len());
            format!("conversation {id} has {kept} participants, and {wanted} were answered")
        }));
    }
    finding
}

/// Devices learn of changes by pushes, or load the list. What a list leaves out the device knows nothing of.
pub(super) fn change_not_told(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::ChangeNotTold);
    for (conversation_id, user_id) in &evidence.informed {
        let newest = evidence.heads.iter().find(|head| head.conversation_id == *conversation_id);
        let newest = newest.map_or(0, |head| head.version);
        let room = evidence.rooms.iter().find(|room| room.id == *conversation_id);
        let takes_part = room.is_some_and(|room| room.members.contains(user_id));
        for device in evidence.devices.iter().filter(|device| device.user_id == *user_id) {
            let known = device.versions.get(conversation_id).copied();
            let is_told = known.map_or(!takes_part, |version| version >= newest);
            finding.look(holds(is_told, || {
                let (id, known) = (conversation_id.as_uuid(), known.unwrap_or_default());
                format!("{} knows version {known} of conversation {id}, which is at {newest}", device.name)
            }));
        }
    }
    finding
}

/// Added users are shown the messages sent after that; removed users are not.
pub(super) fn audience_wrong(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::AudienceWrong);
    for observed in &evidence.observed {
        finding.look(holds(observed.is_shown == observed.is_for_them, || {
            let who = if observed.is_for_them { "an added user was not shown" } else { "a removed user was shown" };
            format!("{who} a message of conversation {}", observed.key.conversation_id.as_uuid())
        }));
    }
    finding
}

/// Sends of removed and blocked users are refused.
pub(super) fn accepted_wrongly(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::AcceptedWrongly);
    for attempt in evidence.attempts.iter().filter(|attempt| evidence.forbidden.contains(&attempt.key)) {
        finding.look(holds(!matches!(attempt.fate, Fate::Accepted(_)), || {
            format!("a message in conversation {}", attempt.key.conversation_id.as_uuid())
        }));
    }
    finding
}
