//! Facts as they stand in the log, and as inboxes and gateways receive them.
//!
//! An event is complete in itself: it carries its audience, so that delivery reads no database, and
//! its predecessor's position, so that a conversation can be read backwards from its head.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    packed,
    position::{Lsn, Seq, StreamSeq},
    sealing::{AudienceTag, Envelope},
    wire::{Case, ConversationKind, Participant, Role},
};

/// A fact about one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Direct, group or business.
    pub kind: ConversationKind,
    /// The number of the message; for any other fact, of the last message before it.
    pub seq: Seq,
    /// When it was accepted. Never runs backwards within a conversation.
    pub sent_at: Timestamp,
    /// The log position of the conversation's event before this one; zero if there is none in the log, and for receipts,
    /// which no event follows.
    pub previous: StreamSeq,
    /// Who takes part as of this event.
    pub participants: Participants,
    /// What happened.
    pub fact: Fact,
}

/// The participants of a conversation as of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participants {
    /// Grows by one with each change.
    pub version: u64,
    /// In the order they joined.
    pub list: Vec<Participant>,
    /// Of a direct conversation: who of the two has blocked the other. While there is anybody, nothing is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<UserId>,
    /// Of a business conversation: the business and the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business: Option<BusinessPart>,
}

/// The side of the business in a business conversation. The list of participants has the customer and at most one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusinessPart {
    /// The business.
    pub business_id: BusinessId,
    /// The current or last case.
    pub case: Case,
    /// Whether the business takes conversations no more. Then nothing is sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_closed: bool,
}

impl Participants {
    /// The user's place in it, if they take part.
    pub fn find(&self, user_id: UserId) -> Option<&Participant> {
        self.list.iter().find(|participant| participant.user_id == user_id)
    }

    /// Whether one of a pair has blocked the other.
    pub const fn is_blocked(&self) -> bool {
        !self.blocked_by.is_empty()
    }
}

/// Whether this version knows the kind of a conversation and the roles of its participants. What it writes would lose
/// others.
pub fn has_known_names(kind: ConversationKind, participants: &[Participant]) -> bool {
    kind != ConversationKind::Unknown && participants.iter().all(|participant| participant.role != Role::Unknown)
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// A message was accepted.
    MessageSent(MessageSent),
    /// The conversation was made, or users joined or left it.
    ParticipantsChanged(ParticipantsChanged),
    /// A participant of a direct conversation has blocked the other, or does so no longer.
    BlocksChanged(BlocksChanged),
    /// A participant has read further.
    ReadAdvanced(ReadAdvanced),
    /// A device of a participant has more of the messages. It stands in inboxes only, never in the log.
    DeliveredAdvanced(DeliveredAdvanced),
    /// A fact of a later version. It is read, never written: the rest of its event gives the conversation's next head, so
    /// that versions run beside each other.
    Unknown,
}

/// The name of a fact's kind.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum Kind {
    MessageSent,
    ParticipantsChanged,
    BlocksChanged,
    ReadAdvanced,
    DeliveredAdvanced,
    #[serde(other)]
    Unknown,
}

struct FactVisitor;

impl<'de> Visitor<'de> for FactVisitor {
    type Value = Fact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from the name of one kind to its fact")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fact, A::Error> {
        let fact = match map.next_key()?.ok_or_else(|| A::Error::invalid_length(0, &self))? {
            Kind::MessageSent => Fact::MessageSent(map.next_value()?),
            Kind::ParticipantsChanged => Fact::ParticipantsChanged(map.next_value()?),
            Kind::BlocksChanged => Fact::BlocksChanged(map.next_value()?),
            Kind::ReadAdvanced => Fact::ReadAdvanced(map.next_value()?),
            Kind::DeliveredAdvanced => Fact::DeliveredAdvanced(map.next_value()?),
            Kind::Unknown => map.next_value::<IgnoredAny>().map(|_| Fact::Unknown)?,
        };
        if map.next_key::<IgnoredAny>()?.is_some() { Err(A::Error::invalid_length(2, &self)) } else { Ok(fact) }
    }
}

impl<'de> Deserialize<'de> for Fact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FactVisitor)
    }
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSent {
    /// The sender's id for it.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender_id: UserId,
    /// The sealed text.
    pub envelope: Envelope,
    /// The sender's device had shown the messages up to this one when it sent; zero if it did not give that. Less than the
    /// message's own number.
    #[serde(default, skip_serializing_if = "Seq::is_zero")]
    pub seen_seq: Seq,
    /// Says for whom it was accepted: made from the participants with a key that only those have who open texts. Whoever
    /// carries events on can't add anybody.
    #[serde(default)]
    pub audience: AudienceTag,
}

/// A change of the participants; the event's `participants` are those after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantsChanged {
    /// Users that joined.
    pub added: Vec<UserId>,
    /// Users that left or were removed.
    pub removed: Vec<UserId>,
    /// Those of `added` that took part before: they continue with their read marks. The others start at `Event::seq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<UserId>,
    /// PostgreSQL's log up to here has the change; none unless lists are read from replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
}

/// One of a pair has blocked the other, or ceased to; the event's `participants` say how it is after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksChanged {
    /// Who did it. Nobody else is told.
    pub user_id: UserId,
    /// PostgreSQL's log up to here has the change; none unless lists are read from replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
}

/// A participant has read further. Receipts overtake each other; the one that is furthest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAdvanced {
    /// Who.
    pub user_id: UserId,
    /// Up to and with this message.
    pub message_id: MessageId,
    /// Its number.
    pub read_seq: Seq,
}

/// A device of a participant of a direct conversation has confirmed messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredAdvanced {
    /// Whose device.
    pub user_id: UserId,
    /// Up to and with the message of this number.
    pub delivered_seq: Seq,
}

/// Bytes in the log that are no event.
#[derive(Debug, thiserror::Error)]
#[error("the log entry can't be read as an event: {0}")]
pub struct UnreadableEvent(#[from] rmp_serde::decode::Error);

impl Event {
    /// The event's bytes.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("events are maps of numbers, strings and bytes, which always encode")
    }

    /// The event that `bytes` hold. Fields that are not known are passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableEvent> {
        Ok(packed::read(bytes)?)
    }

    /// Whether this version can write the event without losing a name of a later version.
    pub fn is_writable(&self) -> bool {
        self.fact != Fact::Unknown && self.has_known_names()
    }

    /// Whether this version knows the kind of the conversation and all roles.
    pub fn has_known_names(&self) -> bool {
        has_known_names(self.kind, &self.participants.list)
    }

    /// Up to where PostgreSQL's log has the change, if that is known.
    pub const fn lsn(&self) -> Option<Lsn> {
        match &self.fact {
            Fact::ParticipantsChanged(change) => change.lsn,
            Fact::BlocksChanged(change) => change.lsn,
            Fact::MessageSent(_) | Fact::ReadAdvanced(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown => None,
        }
    }

    /// Notes up to where PostgreSQL's log has the change. Other facts have no such place.
    pub const fn set_lsn(&mut self, lsn: Option<Lsn>) {
        match &mut self.fact {
            Fact::ParticipantsChanged(change) => change.lsn = lsn,
            Fact::BlocksChanged(change) => change.lsn = lsn,
            Fact::MessageSent(_) | Fact::ReadAdvanced(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown => {}
        }
    }

    /// The users who are told: the participants, and those who have just ceased to be. Of a delivery only the others are,
    /// of a block only who made it, of what was read while there is one only the reader, and of an unknown kind nobody.
    pub fn audience(&self) -> impl Iterator<Item = UserId> + '_ {
        let list = if self.fact == Fact::Unknown { &[][..] } else { &self.participants.list[..] };
        let (removed, but, only) = match &self.fact {
            Fact::MessageSent(_) | Fact::Unknown => (&[][..], None, None),
            Fact::ParticipantsChanged(change) => (&change.removed[..], None, None),
            Fact::BlocksChanged(change) => (&[][..], None, Some(change.user_id)),
            Fact::ReadAdvanced(read) => (&[][..], None, Some(read.user_id).filter(|_| self.participants.is_blocked())),
            Fact::DeliveredAdvanced(delivered) => (&[][..], Some(delivered.user_id), None),
        };
        let participants = list.iter().map(|participant| participant.user_id);
        let is_told = move |user_id: &UserId| Some(*user_id) != but && only.is_none_or(|only| only == *user_id);
        participants.filter(is_told).chain(removed.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An earlier version reads a change with an LSN, and this one a change without.
    #[test]
    fn r12_1_the_lsn_of_a_change_is_an_optional_field() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Earlier {
            added: Vec<UserId>,
            removed: Vec<UserId>,
        }
        let bare = ParticipantsChanged { added: vec![UserId::random()], ..ParticipantsChanged::default() };
        let earlier = Earlier { added: bare.added.clone(), removed: Vec::new() };
        assert_eq!(rmp_serde::to_vec_named(&bare).unwrap(), rmp_serde::to_vec_named(&earlier).unwrap());
        let located = ParticipantsChanged { lsn: Some(Lsn(u64::MAX)), ..bare };
        let bytes = rmp_serde::to_vec_named(&located).unwrap();
        assert_eq!(rmp_serde::from_slice::<Earlier>(&bytes).unwrap(), earlier);
        assert_eq!(rmp_serde::from_slice::<ParticipantsChanged>(&bytes).unwrap(), located);
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_read_but_for_its_fact() {
        let event = Event {
            conversation_id: ConversationId::random(),
            kind: ConversationKind::Group,
            seq: Seq(7),
            sent_at: Timestamp(8),
            previous: StreamSeq(9),
            participants: Participants {
                version: 3,
                list: vec![Participant { user_id: UserId::random(), role: Role::Member }],
                ..Participants::default()
            },
            fact: Fact::Unknown,
        };
        let encoded = |fact: serde_json::Value| {
            #[derive(Serialize)]
            struct Newer<'a> {
                conversation_id: ConversationId,
                kind: ConversationKind,
                seq: Seq,
                sent_at: Timestamp,
                previous: StreamSeq,
                participants: &'a Participants,
                fact: serde_json::Value,
            }
            let Event { conversation_id, kind, seq, sent_at, previous, ref participants, .. } = event;
            let newer = Newer { conversation_id, kind, seq, sent_at, previous, participants, fact };
            rmp_serde::to_vec_named(&newer).unwrap()
        };
        for fact in [json!({ "Reacted": { "with": ["a", { "b": null }] } }), json!({ "Pinned": 7 })] {
            let read = Event::decode(&encoded(fact)).unwrap();
            assert_eq!(read, event);
            assert_eq!(read.audience().count(), 0, "nobody could be shown it");
        }
        for nonsense in [json!({}), json!("Reacted"), json!({ "Reacted": 1, "Pinned": 2 }), json!({ "MessageSent": 1 })]
        {
            assert!(Event::decode(&encoded(nonsense.clone())).is_err(), "{nonsense}");
        }
    }
}
