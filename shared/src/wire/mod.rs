//! What clients and gateways say to each other: commands, replies, pushes, REST bodies, codes.
//!
//! One set of types for both encodings. A MessagePack frame is the JSON frame's map, with the same
//! keys and ids as text, only packed.

mod account;
mod body;
mod business;
mod close;
mod command;
mod complaint;
mod device;
mod encoding;
mod error;
mod hours;
mod map;
mod plain;
mod profile;
mod push;
mod realtime;

pub use account::{Block, BlockList, Ticket};
pub use body::{
    AddParticipants, Conversation, ConversationPage, CreateConversation, HistoryPage, Message, Participant,
    SendMessageBody,
};
pub use business::{
    Assignment, AssignmentList, AssignmentReason, Availability, BusinessAvailability, BusinessConversation,
    BusinessConversationPage, BusinessQueue, BusinessSettings, Case, CaseState, Clocks, Considered, ReleaseReason,
    ResolveCase, SetAgent, SetStatus, StaffLoad, StaffRole, StaffStatus, StaffedBusiness, StaffedBusinessList,
    Strategy, Verdict, WatchedBusiness,
};
pub use close::CloseCode;
pub use command::{
    Command, CommandFrame, Confirm, Heartbeat, Hello, MarkRead, RenewToken, Resume, SendMessage, SetTyping,
    WatchBusinesses, WatchPresence,
};
pub use complaint::without_values;
pub use device::{Device, DeviceList, NotificationAddress, Platform, RegisterDevice};
pub use encoding::{DecodeError, Encoding, decode_command};
pub use error::{ErrorBody, ErrorCode};
pub use hours::{Hours, HoursException, Span, Weekday, WeeklySpans};
pub use map::Map;
pub use profile::{BusinessProfile, ConversationName, ProfileList, ProfileState, UserProfile};
pub use push::{Accepted, ChangedConversation, Connected, Push, Rejected, Reply, ServerFrame, WireLimits};
pub use realtime::{
    MarkReadBody, Mute, MuteFields, Presence, PresenceList, Progress, Receipt, ReceiptKind, Typing, UnreadTotal,
};

use serde::{Deserialize, Serialize};

/// What a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Exactly two users; one such conversation exists for a pair.
    Direct,
    /// Two to eight users when it is made; eight at the most.
    Group,
    /// A customer and a business, for which at most one agent takes part at a time.
    Business,
    /// A kind of a later version. Never sent in a request.
    #[serde(other)]
    Unknown,
}

impl ConversationKind {
    /// Its name in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Business => "business",
            Self::Unknown => "unknown",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Self {
        [Self::Direct, Self::Group, Self::Business]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .unwrap_or(Self::Unknown)
    }
}

/// What a participant may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes.
    Member,
    /// A member who also adds and removes participants of a group.
    Owner,
    /// The customer of a business conversation.
    Customer,
    /// The member of staff that answers a customer.
    Agent,
    /// The business, as a customer is shown it: `user_id` is the `business_id`. Never stored.
    Business,
    /// A role of a later version. Never sent in a request.
    #[serde(other)]
    Unknown,
}

impl Role {
    /// Its name in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Owner => "owner",
            Self::Customer => "customer",
            Self::Agent => "agent",
            Self::Business => "business",
            Self::Unknown => "unknown",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Self {
        [Self::Member, Self::Owner, Self::Customer, Self::Agent]
            .into_iter()
            .find(|role| role.as_str() == name)
            .unwrap_or(Self::Unknown)
    }
}

/// A name that is not in the list it was looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name is not one of those known here")]
pub struct UnknownName;
