//! What notifiers, and gateways among themselves, send to gateways over core NATS.
//!
//! One message per gateway and batch on the gateway's own subject; without Redis, to all gateways.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, Epoch, GatewayId, LoginId, SessionId, UserId},
    packed,
    position::{Cursor, StreamSeq},
    wire::{Presence, ProfileList, Typing},
};

/// A message to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Events for users who are connected to this gateway.
    Numbered(Vec<NumberedEvent>),
    /// Events that could not be put in inboxes; whoever of their audience is connected gets them without a cursor.
    Unnumbered(Vec<ByteBuf>),
    /// A session was replaced by a newer one of the same device; its connection is to be closed.
    SessionReplaced {
        /// Whose.
        user_id: UserId,
        /// Which.
        session_id: SessionId,
    },
    /// A session of a user has ended, and a notification waits for their other sessions to confirm what it left.
    ConfirmationAwaited {
        /// Whose sessions.
        user_id: UserId,
        /// Up to here in their inbox.
        up_to: Cursor,
    },
    /// Users came or went; to all gateways, for those who watch them.
    PresenceChanged(Vec<PresenceChange>),
    /// A participant writes, or has stopped.
    Typing {
        /// Who and where.
        typing: Typing,
        /// The version of the participants that are told.
        #[serde(default)]
        version: u64,
        /// Whom to tell, if they are connected to this gateway.
        user_ids: Vec<UserId>,
    },
    /// Profiles have changed; to all gateways, which forget what they remember of them.
    ProfilesChanged {
        /// Whose.
        user_ids: Vec<UserId>,
        /// Which businesses'.
        business_ids: Vec<BusinessId>,
    },
    /// Profiles as they are now, for users who are connected.
    Profiles {
        /// As they are.
        profiles: ProfileList,
        /// Whom to tell.
        user_ids: Vec<UserId>,
    },
    /// Users were logged out; to all gateways, which close their connections and take their tokens no longer.
    Revoked(Vec<Revocation>),
    /// Two users have blocked each other, or no longer do; to all gateways.
    BlocksChanged {
        /// Who did it, and whom it concerns.
        pair: [UserId; 2],
        /// Their conversation, if they have one: where it stands is to be read afresh.
        conversation_id: Option<ConversationId>,
    },
    /// A user takes part no longer; to all gateways. Whoever has answered pushes nothing more of it to them.
    ParticipantRemoved {
        /// Where.
        conversation_id: ConversationId,
        /// Who.
        user_id: UserId,
        /// The conversation's version since.
        version: u64,
    },
    /// Businesses have changed; to all gateways, for connections that watch them.
    BusinessesChanged {
        /// The businesses.
        business_ids: Vec<BusinessId>,
        /// Whether users may have left the staff: a gateway that has answered pushes them nothing of the queue.
        of_staff: bool,
    },
    /// Nothing but a sign that the way from the notifiers to the gateways is open.
    Beacon,
}

/// Tokens that are no longer taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose.
    pub user_id: UserId,
    /// Only those of one login, by a hash of the tokens' `sid`; all of the user's if absent.
    pub login: Option<LoginId>,
    /// Those issued until then.
    pub at: Timestamp,
}

/// A user came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceChange {
    /// How they are now.
    pub presence: Presence,
    /// Its place among the changes of the user: one that is not later than another is passed over.
    pub at: Timestamp,
}

/// An event and its place in each of the inboxes it was put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// The event's bytes, as in the log.
    pub event: ByteBuf,
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// Who it is for.
    pub recipients: Vec<Recipient>,
}

/// A connected user and where the event stands in their inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Who.
    pub user_id: UserId,
    /// Their inbox' epoch.
    pub epoch: Epoch,
    /// The event's place in it.
    pub cursor: Cursor,
}

/// Bytes that are no delivery.
#[derive(Debug, thiserror::Error)]
#[error("the delivery can't be read: {0}")]
pub struct UnreadableDelivery(#[from] rmp_serde::decode::Error);

impl Delivery {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("deliveries are maps of numbers, strings and bytes, which always encode")
    }

    /// The delivery that `bytes` hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableDelivery> {
        Ok(packed::read(bytes)?)
    }
}

/// The subject of one gateway.
pub fn gateway_subject(namespace: &str, gateway_id: GatewayId) -> String {
    format!("{namespace}.gateway.{}", gateway_id.as_uuid().simple())
}

/// The subject that all gateways listen on.
pub fn all_gateways_subject(namespace: &str) -> String {
    format!("{namespace}.gateways")
}
