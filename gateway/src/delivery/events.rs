//! Events as clients see them.

use chat_shared::{
    event::{Event, Fact},
    position::Cursor,
    wire::{ChangedConversation, Message, Push, Receipt, ReceiptKind},
};

use crate::{content::Content, refusal::Refusal};

/// The push of an event, once its cursor is known. Opens the content.
pub(super) fn push_of(content: &Content, event: Event) -> Result<impl Fn(Option<Cursor>) -> Push, Refusal> {
    let push = match event.fact {
        Fact::MessageSent(message) => Push::Message {
            cursor: None,
            message: Message {
                conversation_id: event.conversation_id,
                message_id: message.message_id,
                sender_id: message.sender_id,
                seq: event.seq,
                sent_at: event.sent_at,
                text: content.open_message(event.conversation_id, &message)?,
            },
        },
        Fact::ParticipantsChanged(change) => Push::Conversation {
            cursor: None,
            conversation: ChangedConversation {
                conversation_id: event.conversation_id,
                kind: event.kind,
                version: event.participants.version,
                participants: event.participants.list,
                added: change.added,
                removed: change.removed,
                last_seq: event.seq,
                changed_at: event.sent_at,
            },
        },
        Fact::ReadAdvanced(read) => Push::Receipt {
            cursor: None,
            receipt: Receipt {
                conversation_id: event.conversation_id,
                user_id: read.user_id,
                kind: ReceiptKind::Read,
                seq: read.read_seq,
                message_id: Some(read.message_id),
                unread: None,
                at: event.sent_at,
            },
        },
        Fact::DeliveredAdvanced(delivered) => Push::Receipt {
            cursor: None,
            receipt: Receipt {
                conversation_id: event.conversation_id,
                user_id: delivered.user_id,
                kind: ReceiptKind::Delivered,
                seq: delivered.delivered_seq,
                message_id: None,
                unread: None,
                at: event.sent_at,
            },
        },
    };
    Ok(move |at| {
        let mut push = push.clone();
        if let Push::Message { cursor, .. } | Push::Conversation { cursor, .. } | Push::Receipt { cursor, .. } =
            &mut push
        {
            *cursor = at;
        }
        push
    })
}
