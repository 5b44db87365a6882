//! Recognises messages that were sent before: the first answer for the same sender and text, a conflict for others.

use chat_shared::{
    event::{Event, Fact, MessageSent},
    log::AppendError,
    position::{Seq, StreamSeq},
    wire::ErrorCode,
};

use super::{Acceptance, Request, Sender, takes_part};
use crate::{history, refusal::Refusal};

impl Sender {
    /// Compares with the event that stands under the same append id.
    pub(super) async fn compare_with(&self, request: &Request, at: StreamSeq) -> Result<Acceptance, Refusal> {
        let event = self.tail.log().get(at).await?.ok_or(AppendError::Unknown)?;
        match &event.fact {
            Fact::MessageSent(message) => self.compare(request, event.seq, event.sent_at, message),
            _ => Err(AppendError::Unknown.into()),
        }
    }

    /// Looks for the message where the log's own window doesn't reach: in what PostgreSQL has stored, and in what it
    /// has yet to store. Nobody's lane is held meanwhile: what is accepted from now on is within that window.
    pub(super) async fn find_earlier(&self, request: &Request) -> Result<Option<Acceptance>, Refusal> {
        let mut lane = self.lanes.enter(request.command.conversation_id).await;
        let head = lane.head_that(|head| takes_part(head, request.user_id)).await?;
        drop(lane);
        let (stored_seq, found, unavailable) =
            match history::find_stored(&self.database, request.command.conversation_id, request.command.message_id)
                .await
            {
                Ok(stored) => (stored.last_seq, stored.message, None),
                // Without PostgreSQL the log alone decides, if it reaches back to the conversation's first message.
                Err(refusal) if refusal.code == ErrorCode::Unavailable => (Seq::ZERO, None, Some(refusal)),
                Err(refusal) => return Err(refusal),
            };
        if let Some(row) = found {
            if row.lacks_text() && row.message.sender_id == request.user_id {
                // Its text is in the object store, on which no send may depend.
                return Ok(Some(Acceptance { seq: row.seq, sent_at: row.sent_at, is_repeat: true, opens_case: None }));
            }
            return self.compare(request, row.seq, row.sent_at, &row.message).map(Some);
        }
        let tail = self.tail.read(request.user_id, head.stream_seq, stored_seq).await?;
        let is_it = |event: &Event| matches!(&event.fact, Fact::MessageSent(message) if message.message_id == request.command.message_id);
        // A log that fills up keeps events for less than its age.
        let is_whole = tail.iter().map(|event| event.seq).min().is_none_or(|first| first <= Seq(1));
        match tail.into_iter().find(is_it) {
            Some(Event { seq, sent_at, fact: Fact::MessageSent(message), .. }) => {
                self.compare(request, seq, sent_at, &message).map(Some)
            }
            _ => match unavailable {
                Some(refusal) if !is_whole => Err(refusal),
                _ => Ok(None),
            },
        }
    }

    fn compare(
        &self,
        request: &Request,
        seq: Seq,
        sent_at: chat_shared::clock::Timestamp,
        message: &MessageSent,
    ) -> Result<Acceptance, Refusal> {
        if message.sender_id != request.user_id {
            return Err(Refusal::conflict(
                "another participant has used this `message_id`; a new message needs a new id",
            ));
        }
        if self.content.open_message(request.command.conversation_id, message)? == request.command.text {
            Ok(Acceptance { seq, sent_at, is_repeat: true, opens_case: None })
        } else {
            Err(Refusal::conflict("this `message_id` was used for another text; a new message needs a new id"))
        }
    }
}
