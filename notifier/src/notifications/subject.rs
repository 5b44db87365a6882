//! What a user may have to be notified of, whether that is a message or an assignment.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, Epoch, UserId},
    inbox::Occasion,
    jobs::{AssignedJob, MessageJob},
    position::{Cursor, Seq},
};

/// What the decision and the notification need of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The user to be notified.
    pub user_id: UserId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// What the notification is of.
    pub occasion: Occasion,
    /// The number of the message, or of the last message before the assignment; zero if there is none.
    pub seq: Seq,
    /// The sender as the user is shown it; of an assignment the customer.
    pub sender_id: UserId,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Its place in the inbox of the user; none if there was no inbox.
    pub place: Option<(Epoch, Cursor)>,
}

impl From<&MessageJob> for Subject {
    fn from(job: &MessageJob) -> Self {
        let MessageJob { user_id, conversation_id, message_id, seq, sender_id, sent_at, place, .. } = *job;
        Self {
            user_id,
            conversation_id,
            occasion: Occasion::Message(message_id),
            seq,
            sender_id: job.shown_sender_id.unwrap_or(sender_id),
            sent_at,
            place,
        }
    }
}

impl From<&AssignedJob> for Subject {
    fn from(job: &AssignedJob) -> Self {
        let AssignedJob { user_id, conversation_id, version, seq, customer_id, sent_at, place } = *job;
        let occasion = Occasion::Assignment { conversation_id, version };
        Self { user_id, conversation_id, occasion, seq, sender_id: customer_id, sent_at, place }
    }
}
