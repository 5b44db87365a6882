//! What a customer sees of a business conversation: the business is the one other participant, under its own id. Pure.
//!
//! **Invariant:** no id of a member of staff reaches a customer. Everything that goes to a customer passes here: pushes, pages,
//! conversations, typing, notifications.

use crate::{
    event::Participants,
    ids::{BusinessId, UserId},
    position::Seq,
    wire::{
        BusinessProfile, ChangedConversation, Conversation, Message, Participant, Progress, Push, Role, UserProfile,
    },
};

/// How one customer sees one business conversation: every id of a user but the own one is shown as the id of the business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomerView {
    business_id: BusinessId,
    customer_id: UserId,
}

impl CustomerView {
    /// The view of `viewer`, if that is the customer of a business conversation. Staff, and participants of other
    /// conversations, see ids as they are.
    pub fn of(participants: &Participants, viewer: UserId) -> Option<Self> {
        Self::of_customer(participants).filter(|view| view.is_of(viewer))
    }

    /// The view of the customer of a business conversation; none of another one.
    pub fn of_customer(participants: &Participants) -> Option<Self> {
        let business_id = participants.business.as_ref()?.business_id;
        let customer = participants.list.iter().find(|participant| participant.role == Role::Customer)?;
        Some(Self { business_id, customer_id: customer.user_id })
    }

    /// The view of the customer of a conversation with a business.
    pub const fn new(business_id: BusinessId, customer_id: UserId) -> Self {
        Self { business_id, customer_id }
    }

    /// Whether it is the view of `viewer`.
    pub fn is_of(&self, viewer: UserId) -> bool {
        self.customer_id == viewer
    }

    /// The customer.
    pub const fn customer_id(&self) -> UserId {
        self.customer_id
    }

    /// The business.
    pub const fn business_id(&self) -> BusinessId {
        self.business_id
    }

    /// The id that the customer is shown for a user.
    pub fn id(&self, user_id: UserId) -> UserId {
        if user_id == self.customer_id { user_id } else { self.business_id.into() }
    }

    /// The id under which the other participants see a user: of an agent that of the business, since the customer is the only other
    /// participant.
    pub fn id_to_others(participants: &Participants, user_id: UserId) -> UserId {
        Self::of_customer(participants).map_or(user_id, |view| view.id(user_id))
    }

    /// A message, with the sender that the customer is shown.
    #[must_use]
    pub fn message(&self, mut message: Message) -> Message {
        message.sender_id = self.id(message.sender_id);
        message
    }

    /// Changes a push of a conversation into that of the customer. Names are added by whoever shows it.
    pub fn apply(&self, push: &mut Push) {
        match push {
            Push::Message { message, .. } => message.sender_id = self.id(message.sender_id),
            Push::Receipt { receipt, .. } => receipt.user_id = self.id(receipt.user_id),
            Push::Typing { typing } => typing.user_id = self.id(typing.user_id),
            Push::Conversation { conversation, .. } => self.changed(conversation),
            Push::Ready(_)
            | Push::Presence { .. }
            | Push::Profile { .. }
            | Push::Skipped { .. }
            | Push::Heartbeat { .. }
            | Push::Business { .. }
            | Push::GoingAway { .. } => {}
        }
    }

    /// Agents that come and go are nothing that the customer is shown.
    fn changed(&self, conversation: &mut ChangedConversation) {
        conversation.participants = self.participants();
        for ids in [&mut conversation.added, &mut conversation.removed, &mut conversation.returned] {
            ids.retain(|user_id| *user_id == self.customer_id);
        }
        conversation.profiles = self.profiles(&conversation.profiles, conversation.business.as_deref());
    }

    /// Changes a conversation of a list into that of the customer. `business_read_seq`: up to here the business has read.
    pub fn apply_to(&self, conversation: &mut Conversation, business_read_seq: Seq) {
        conversation.participants = self.participants();
        let (user_id, since_seq) = (self.business_id.into(), Seq::ZERO);
        let read_seq = conversation.progress.iter().map(|progress| progress.read_seq).fold(business_read_seq, Seq::max);
        conversation.progress =
            vec![Progress { user_id, since_seq, read_seq, last_read_message_id: None, delivered_seq: None }];
        if let Some(message) = &mut conversation.last_message {
            message.sender_id = self.id(message.sender_id);
        }
        conversation.profiles = self.profiles(&conversation.profiles, conversation.business.as_deref());
    }

    fn participants(&self) -> Vec<Participant> {
        let customer = Participant { user_id: self.customer_id, role: Role::Customer };
        vec![customer, Participant { user_id: self.business_id.into(), role: Role::Business }]
    }

    /// Those of the participants, in their order, as far as they are known.
    fn profiles(&self, known: &[UserProfile], business: Option<&BusinessProfile>) -> Vec<UserProfile> {
        let customer = known.iter().find(|profile| profile.user_id == self.customer_id).cloned();
        customer.into_iter().chain(business.cloned().map(UserProfile::from)).collect()
    }
}
