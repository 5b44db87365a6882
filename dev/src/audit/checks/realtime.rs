//! Checks of notifications and presence.

use std::collections::{BTreeMap, BTreeSet};

use chat_client::ids::{ConversationId, UserId};

use super::{Books, holds, name};
use crate::audit::{
    evidence::{AwayDevice, Evidence, Sight},
    finding::{Check, Finding},
    ledger::{Attempt, Fate},
};

impl Books<'_> {
    /// Every message of somebody else, to each registered device of participants who are away.
    pub(super) fn not_notified(&self) -> Finding {
        let mut finding = Finding::new(Check::NotNotified);
        let members = self.members();
        for device in &self.evidence.away {
            let notified: BTreeSet<_> = device.notified.iter().collect();
            for (attempt, place) in &self.accepted {
                let key = attempt.key;
                let is_for_them = members.get(&key.conversation_id).is_some_and(|it| it.contains(&device.user_id));
                let is_muted = self.evidence.muted.contains(&(key.conversation_id, device.user_id));
                if is_for_them && !is_muted && key.sender_id != device.user_id {
                    let is_told = notified.contains(&(key.conversation_id, key.message_id));
                    let is_held = is_told || device.unknown.contains(&key.message_id);
                    finding.look(holds(is_held, || {
                        format!("{} to {}", name(key.conversation_id, place.seq), device.name)
                    }));
                }
            }
        }
        finding
    }

    /// What is notified was sent, by somebody else, where they take part.
    pub(super) fn notified_wrongly(&self) -> Finding {
        let mut finding = Finding::new(Check::NotifiedWrongly);
        let members = self.members();
        let sent: BTreeMap<_, _> = self
            .sent
            .values()
            .filter(|attempt| attempt.fate != Fate::NotSent)
            .map(|attempt| ((attempt.key.conversation_id, attempt.key.message_id), attempt.key.sender_id))
            .collect();
        for AwayDevice { name, user_id, notified, .. } in &self.evidence.away {
            for message in notified {
                let is_sent = sent.get(message).is_some_and(|sender_id| sender_id != user_id);
                let is_for_them = members.get(&message.0).is_some_and(|members| members.contains(user_id));
                finding.look(holds(is_sent && is_for_them, || {
                    format!("{name} was notified of something in conversation {}", message.0.as_uuid())
                }));
            }
        }
        finding
    }

    /// Nothing in a conversation that was muted before its first message.
    pub(super) fn notified_though_muted(&self) -> Finding {
        let mut finding = Finding::new(Check::NotifiedThoughMuted);
        for AwayDevice { name: device, user_id, notified, .. } in &self.evidence.away {
            let notified: BTreeSet<_> = notified.iter().collect();
            for (Attempt { key, .. }, place) in &self.accepted {
                if self.evidence.muted.contains(&(key.conversation_id, *user_id)) {
                    let is_held = !notified.contains(&(key.conversation_id, key.message_id));
                    finding.look(holds(is_held, || format!("{} to {device}", name(key.conversation_id, place.seq))));
                }
            }
        }
        finding
    }

    pub(super) fn members(&self) -> BTreeMap<ConversationId, &[UserId]> {
        self.evidence.rooms.iter().map(|room| (room.id, room.members.as_slice())).collect()
    }
}

pub(super) fn notified_twice(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::NotifiedTwice);
    for device in &evidence.away {
        let mut before = BTreeSet::new();
        for message in &device.notified {
            finding.look(holds(before.insert(message), || {
                format!("{} of a message in conversation {}", device.name, message.0.as_uuid())
            }));
        }
    }
    finding
}

pub(super) fn presence_wrong(evidence: &Evidence) -> Finding {
    let mut finding = Finding::new(Check::PresenceWrong);
    for Sight { watcher, user_id, told, is_there } in &evidence.sights {
        finding.look(holds(*told == Some(*is_there), || {
            let told = match told {
                Some(true) => "online",
                Some(false) => "offline",
                None => "nothing",
            };
            let truth = if *is_there { "is there" } else { "is not there" };
            format!("{watcher} is told {told} of {}, who {truth}", user_id.as_uuid())
        }));
    }
    finding
}
