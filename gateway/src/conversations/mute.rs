//! Whether a conversation's messages notify one of its participants. They are delivered and unread all the same.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
    wire::Mute,
};
use time::OffsetDateTime;

use super::Conversations;
use crate::{database::statement, refusal::Refusal};

impl Conversations {
    /// Mutes a conversation for the user, until a time or for good.
    pub async fn mute(&self, user_id: UserId, conversation_id: ConversationId, mute: Mute) -> Result<(), Refusal> {
        if let Mute::Until(until) = mute {
            if until <= self.clock.now() {
                return Err(Refusal::invalid("`until` has passed; to end the mute, delete it"));
            }
            if Timestamp::from(OffsetDateTime::from(until)) != until {
                return Err(Refusal::invalid("`until` is after the year 9999; give `for_good` to mute for good"));
            }
        }
        self.set_muted_until(user_id, conversation_id, Some(mute)).await
    }

    /// Ends a mute, if there is one.
    pub async fn unmute(&self, user_id: UserId, conversation_id: ConversationId) -> Result<(), Refusal> {
        self.set_muted_until(user_id, conversation_id, None).await
    }

    async fn set_muted_until(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        mute: Option<Mute>,
    ) -> Result<(), Refusal> {
        let until = match mute {
            Some(Mute::Until(until)) => Some(OffsetDateTime::from(until)),
            Some(Mute::ForGood) | None => None,
        };
        let mut connection = self.database.connection().await?;
        let update = sqlx::query!(
            "update participants set muted_until = case when $3 then coalesce($4::timestamptz, 'infinity') end
             where conversation_id = $1 and user_id = $2",
            conversation_id.as_uuid(),
            user_id.as_uuid(),
            mute.is_some(),
            until
        );
        let updated = statement(update.execute(&mut *connection)).await?;
        drop(connection);
        if updated.rows_affected() == 0 {
            return Err(Refusal::no_such_conversation());
        }
        self.database.note_change(&[user_id.as_uuid()]).await;
        Ok(())
    }
}
