//! Facts as they stand in the log, and as inboxes and gateways receive them.
//!
//! An event is complete in itself: it carries its audience, so that delivery reads no database, and
//! its predecessor's position, so that a conversation can be read backwards from its head.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    packed,
    position::{Seq, StreamSeq},
    sealing::{AudienceTag, Envelope},
    wire::{ConversationKind, Participant},
};

/// A fact about one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Direct or group.
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

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Says for whom it was accepted: made from the participants with a key that only those have who open texts. Whoever
    /// carries events on can't add anybody.
    #[serde(default)]
    pub audience: AudienceTag,
}

/// A change of the participants; the event's `participants` are those after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantsChanged {
    /// Who joined.
    pub added: Vec<UserId>,
    /// Who left or was removed.
    pub removed: Vec<UserId>,
}

/// One of a pair has blocked the other, or ceased to; the event's `participants` say how it is after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksChanged {
    /// Who did it. Nobody else is told.
    pub user_id: UserId,
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

    /// The users who are told: the participants, and those who have just ceased to be. Of a delivery only the others are,
    /// of a block only who made it, and of what was read while there is one only the reader.
    pub fn audience(&self) -> impl Iterator<Item = UserId> + '_ {
        let (removed, but, only) = match &self.fact {
            Fact::MessageSent(_) => (&[][..], None, None),
            Fact::ParticipantsChanged(change) => (&change.removed[..], None, None),
            Fact::BlocksChanged(change) => (&[][..], None, Some(change.user_id)),
            Fact::ReadAdvanced(read) => (&[][..], None, Some(read.user_id).filter(|_| self.participants.is_blocked())),
            Fact::DeliveredAdvanced(delivered) => (&[][..], Some(delivered.user_id), None),
        };
        let participants = self.participants.list.iter().map(|participant| participant.user_id);
        let is_told = move |user_id: &UserId| Some(*user_id) != but && only.is_none_or(|only| only == *user_id);
        participants.filter(is_told).chain(removed.iter().copied())
    }
}
