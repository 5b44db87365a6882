//! A user's part of a conversation, for the export of the user's data: own messages with texts, those of others without.

use std::collections::BTreeSet;

use chat_shared::{
    clock::{Day, Timestamp},
    ids::{ConversationId, MessageId, UserId},
    limits,
    position::Seq,
    wire::ErrorCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cold,
    page::{History, Reader},
    range::Place,
    stored::StoredMessage,
};
use crate::{database::statement, refusal::Refusal};

/// A message of an export.
#[derive(Serialize, ToSchema)]
pub struct ExportedMessage {
    /// Where it was sent.
    pub conversation_id: ConversationId,
    /// Its id.
    pub message_id: MessageId,
    /// The sender; for a customer the business instead of its agents.
    pub sender_id: UserId,
    /// Its number in the conversation.
    pub seq: Seq,
    /// When it was accepted, in milliseconds since 1970.
    pub sent_at: Timestamp,
    /// The text of an own message, `null` if it can't be read any more. Absent in messages of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[expect(clippy::option_option, reason = "absent and null mean different things")]
    pub text: Option<Option<String>>,
    /// Why `text` is `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<Unreadable>,
}

/// Why the text of a message can't be read any more.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// The key of its day has been destroyed.
    KeyDestroyed,
    /// The sealed text is missing or damaged where it is stored.
    Lost,
}

/// Some messages of a conversation, ascending.
pub struct ExportPart {
    pub messages: Vec<ExportedMessage>,
    /// The number after which the next part begins; none after the last part.
    pub next: Option<Seq>,
}

/// The key is stored, and this gateway can't open texts with it.
#[derive(Debug, thiserror::Error)]
#[error("the key of a day is stored, and this gateway does not have it or can't open it")]
struct KeyNotOpened;

impl History {
    /// The messages of a conversation after a number, as far as they belong in the user's export: all if the user takes part in
    /// it now, else own ones alone.
    pub async fn export(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        after: Seq,
    ) -> Result<ExportPart, Refusal> {
        let place = Place::After(after);
        let part = self.read(user_id, conversation_id, place, limits::PAGE_ROWS_MAX, Reader::Export).await?;
        let next = part.shown.filter(|_| part.has_more()).map(|shown| shown.last);
        let (mut messages, mut destroyed) = (Vec::new(), BTreeSet::new());
        for stored in part.found.into_values().flatten() {
            let text = if stored.message.sender_id == user_id {
                Some(self.open_own(conversation_id, &stored, &mut destroyed).await?)
            } else {
                None
            };
            messages.push((stored, text));
        }
        messages.extend(part.lost.into_iter().map(|stored| (stored, Some(Err(Unreadable::Lost)))));
        messages.sort_by_key(|(stored, _)| stored.seq);
        let exported = |(stored, text): (StoredMessage, Option<Result<String, Unreadable>>)| {
            let sender_id = stored.message.sender_id;
            ExportedMessage {
                conversation_id,
                message_id: stored.message.message_id,
                sender_id: part.customer.map_or(sender_id, |customer| customer.id(sender_id)),
                seq: stored.seq,
                sent_at: stored.sent_at,
                reason: text.as_ref().and_then(|text| text.as_ref().err().copied()),
                text: text.map(Result::ok),
            }
        };
        Ok(ExportPart { messages: messages.into_iter().map(exported).collect(), next })
    }

    /// The text of an own message, or why it can't be read any more; adds its day to `destroyed` if the key is destroyed.
    /// Refused if it may be readable later.
    async fn open_own(
        &self,
        conversation_id: ConversationId,
        stored: &StoredMessage,
        destroyed: &mut BTreeSet<Day>,
    ) -> Result<Result<String, Unreadable>, Refusal> {
        let Some(day) = stored.message.envelope.day() else {
            cold::count_unreadable(1);
            return Ok(Err(Unreadable::Lost));
        };
        if !self.content.has_key(day) {
            if !destroyed.contains(&day) && self.is_key_stored(day).await? {
                return Err(Refusal::unavailable("the day's content key", &KeyNotOpened));
            }
            destroyed.insert(day);
            return Ok(Err(Unreadable::KeyDestroyed));
        }
        match self.content.open_message(conversation_id, &stored.message) {
            Err(refusal) if refusal.code == ErrorCode::Internal => {
                cold::count_unreadable(1);
                Ok(Err(Unreadable::Lost))
            }
            text => text.map(Ok),
        }
    }

    async fn is_key_stored(&self, day: Day) -> Result<bool, Refusal> {
        let mut connection = self.database.connection().await?;
        let day = time::Date::from(day);
        let looking =
            sqlx::query_scalar!(r#"select exists (select from content_keys where day = $1) as "is_stored!""#, day);
        Ok(statement(looking.fetch_one(&mut *connection)).await?)
    }
}
