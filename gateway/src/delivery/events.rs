//! Events as clients see them.

use std::sync::Arc;

use chat_shared::{
    clock::Timestamp,
    customer_view::CustomerView,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::{BusinessId, ConversationId, UserId},
    position::{Cursor, Seq},
    wire::{ChangedConversation, ConversationKind, ConversationName, Message, ProfileList, Push, Receipt, ReceiptKind},
};

use crate::{content::Content, profiles::name_of, refusal::Refusal};

/// An event with this number panics when it is shown.
#[cfg(test)]
pub const PANICS_AT: Seq = Seq(1 << 50);

/// An event that can be pushed to anybody it is for.
pub struct Shown {
    push: Push,
    direct: Option<Arc<DirectMessage>>,
    /// Of a direct conversation: who of the two has blocked the other.
    blocked_by: Vec<UserId>,
    /// Of a business conversation: how the customer sees it.
    customer: Option<CustomerView>,
    conversation_id: ConversationId,
    /// Of the participants.
    version: u64,
}

/// A message of a direct conversation, as far as its sender is told when the other one has it.
#[derive(Debug, PartialEq, Eq)]
pub struct DirectMessage {
    /// Where.
    pub conversation_id: ConversationId,
    /// The sender and the other one.
    pub participants: Participants,
    /// Who sent it.
    pub sender_id: UserId,
    /// Its number.
    pub seq: Seq,
    /// When it was accepted.
    pub sent_at: Timestamp,
}

/// A fact of a later version is to be shown. It has no audience, so nothing shows it.
#[derive(Debug, thiserror::Error)]
#[error("a fact of a later version can't be shown")]
struct NotShown;

impl DirectMessage {
    /// The message of an event, if it is one of a direct conversation.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let Fact::MessageSent(message) = &event.fact else { return None };
        let (conversation_id, participants) = (event.conversation_id, event.participants.clone());
        let is_direct = event.kind == ConversationKind::Direct;
        let (sender_id, seq, sent_at) = (message.sender_id, event.seq, event.sent_at);
        is_direct.then_some(Self { conversation_id, participants, sender_id, seq, sent_at })
    }
}

/// Whose profiles are needed to show events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub users: Vec<UserId>,
    pub businesses: Vec<BusinessId>,
}

impl Named {
    /// Those that an event needs, whoever it is shown to.
    pub(super) fn of(event: &Event) -> Self {
        match event.fact {
            Fact::ParticipantsChanged(_) | Fact::BlocksChanged(_) => Self {
                users: event.participants.list.iter().map(|participant| participant.user_id).collect(),
                businesses: event.participants.business.iter().map(|business| business.business_id).collect(),
            },
            Fact::MessageSent(_) | Fact::ReadAdvanced(_) | Fact::DeliveredAdvanced(_) | Fact::Unknown => {
                Self::default()
            }
        }
    }

    /// Those that an event needs for one of its audience. Profiles that come late are pushed to the viewer, so a customer's
    /// names none of the staff.
    pub(super) fn by(event: &Event, viewer: UserId) -> Self {
        let mut named = Self::of(event);
        if CustomerView::of(&event.participants, viewer).is_some() {
            named.users.retain(|user_id| *user_id == viewer);
        }
        named
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.users.is_empty() && self.businesses.is_empty()
    }
}

impl Shown {
    /// The event's push. Opens the content.
    pub(super) fn new(content: &Content, event: Event) -> Result<Self, Refusal> {
        // Without the panic hook, which may symbolize a backtrace: that blocks the runtime for many seconds in a debug build.
        #[cfg(test)]
        if event.seq == PANICS_AT {
            std::panic::resume_unwind(Box::new("requested by a test"));
        }
        let (conversation_id, at) = (event.conversation_id, event.sent_at);
        let direct = DirectMessage::of(&event).map(Arc::new);
        let (blocked_by, version) = (event.participants.blocked_by.clone(), event.participants.version);
        let customer = CustomerView::of_customer(&event.participants);
        let changed = |participants: Participants, change: ParticipantsChanged| ChangedConversation {
            conversation_id,
            kind: event.kind,
            version: participants.version,
            name: ConversationName::default(),
            participants: participants.list,
            profiles: Vec::new(),
            business: None,
            case: participants.business.map(|business| business.case),
            is_blocked: false,
            added: change.added,
            removed: change.removed,
            returned: change.returned,
            last_seq: event.seq,
            changed_at: at,
        };
        let push = match event.fact {
            Fact::MessageSent(message) => {
                content.check_audience(conversation_id, &message, &event.participants.list)?;
                let text = content.open_message(conversation_id, &message)?;
                let (message_id, sender_id, seq) = (message.message_id, message.sender_id, event.seq);
                let seen_seq = Some(message.seen_seq).filter(|seq| *seq > Seq::ZERO);
                let message = Message { conversation_id, message_id, sender_id, seq, sent_at: at, text };
                Push::Message { cursor: None, seen_seq, message }
            }
            Fact::ParticipantsChanged(change) => {
                Push::Conversation { cursor: None, conversation: changed(event.participants, change) }
            }
            Fact::BlocksChanged(_) => Push::Conversation {
                cursor: None,
                conversation: changed(event.participants, ParticipantsChanged::default()),
            },
            Fact::ReadAdvanced(read) => Push::Receipt {
                cursor: None,
                receipt: Receipt {
                    conversation_id,
                    user_id: read.user_id,
                    kind: ReceiptKind::Read,
                    seq: read.read_seq,
                    message_id: Some(read.message_id),
                    unread: Some(event.seq.0.saturating_sub(read.read_seq.0)),
                    at,
                },
            },
            Fact::DeliveredAdvanced(delivered) => Push::Receipt {
                cursor: None,
                receipt: Receipt {
                    conversation_id,
                    user_id: delivered.user_id,
                    kind: ReceiptKind::Delivered,
                    seq: delivered.delivered_seq,
                    message_id: None,
                    unread: None,
                    at,
                },
            },
            Fact::Unknown => return Err(Refusal::internal(&NotShown)),
        };
        Ok(Self { push, direct, blocked_by, customer, conversation_id, version })
    }

    /// Which conversation it is of, and the version of its participants.
    pub const fn place(&self) -> (ConversationId, u64) {
        (self.conversation_id, self.version)
    }

    /// As it is shown with the profiles of those whom [`Named`] gives for the event.
    pub(super) fn with_profiles(mut self, profiles: ProfileList) -> Self {
        if let Push::Conversation { conversation, .. } = &mut self.push {
            conversation.profiles = profiles.users;
            conversation.business = profiles.businesses.into_iter().next().map(Box::new);
        }
        self
    }

    /// The push for one of those it is for. What somebody has yet to read, and whom they have blocked, is nobody else's
    /// business.
    pub fn to(&self, user_id: UserId, at: Option<Cursor>) -> Push {
        let mut push = self.push.clone();
        if let Some(customer) = self.customer.filter(|customer| customer.is_of(user_id)) {
            customer.apply(&mut push);
        }
        match &mut push {
            Push::Receipt { cursor, receipt } => {
                *cursor = at;
                receipt.unread = receipt.unread.filter(|_| receipt.user_id == user_id);
            }
            Push::Conversation { cursor, conversation } => {
                *cursor = at;
                conversation.is_blocked = self.blocked_by.contains(&user_id);
                conversation.name = name_of(conversation.kind, &conversation.profiles, user_id);
            }
            Push::Message { cursor, .. } => *cursor = at,
            Push::Ready(_)
            | Push::Typing { .. }
            | Push::Presence { .. }
            | Push::Profile { .. }
            | Push::Skipped { .. }
            | Push::Heartbeat { .. }
            | Push::Business { .. }
            | Push::GoingAway { .. } => {}
        }
        push
    }

    /// The message, if its sender is to be told once this user has it.
    pub fn direct_message_to(&self, user_id: UserId) -> Option<&Arc<DirectMessage>> {
        self.direct.as_ref().filter(|message| message.sender_id != user_id)
    }

    /// A message of a direct conversation in clear.
    #[cfg(test)]
    pub fn for_test(message: DirectMessage) -> Self {
        let DirectMessage { conversation_id, sender_id, seq, .. } = message;
        let version = message.participants.version;
        let (message_id, sent_at) = (chat_shared::ids::MessageId::random(), chat_shared::clock::Timestamp::default());
        let shown = Message { conversation_id, message_id, sender_id, seq, sent_at, text: seq.0.to_string() };
        Self {
            push: Push::Message { cursor: None, seen_seq: None, message: shown },
            direct: Some(Arc::new(message)),
            blocked_by: Vec::new(),
            customer: None,
            conversation_id,
            version,
        }
    }
}
