//! Statements of an erasure about the conversations of a user.

use chat_shared::{
    ids::{ConversationId, UserId},
    wire::ConversationKind,
};

use super::{Conversations, record::stored_id};
use crate::{database::statement, refusal::Refusal};

impl Conversations {
    /// Some of the blocks by a user and of a user, as blocker and blocked user.
    pub async fn blocks_with(&self, user_id: UserId, rows_max: i64) -> Result<Vec<[UserId; 2]>, Refusal> {
        let mut connection = self.database.connection().await?;
        let listing = sqlx::query!(
            "select blocker_id, blocked_id from blocks where blocker_id = $1 or blocked_id = $1 limit $2",
            user_id.as_uuid(),
            rows_max
        );
        let rows = statement(listing.fetch_all(&mut *connection)).await?;
        rows.into_iter().map(|row| Ok([stored_id(row.blocker_id)?, stored_id(row.blocked_id)?])).collect()
    }

    /// Some of the groups that a user takes part in.
    pub async fn groups_of(&self, user_id: UserId, rows_max: i64) -> Result<Vec<ConversationId>, Refusal> {
        let mut connection = self.database.connection().await?;
        let listing = sqlx::query_scalar!(
            "select conversation_id from participants join conversations using (conversation_id)
             where user_id = $1 and kind = $2 limit $3",
            user_id.as_uuid(),
            ConversationKind::Group.as_str(),
            rows_max
        );
        let rows = statement(listing.fetch_all(&mut *connection)).await?;
        rows.into_iter().map(|id| Ok(stored_id(id)?)).collect()
    }

    /// Removes some of the rows of groups that a user has left, and some mutes. Gives the number of both.
    pub async fn forget_memberships(&self, user_id: UserId, rows_max: i64) -> Result<u64, Refusal> {
        let mut connection = self.database.connection().await?;
        let deletion = sqlx::query!(
            "delete from former_participants where user_id = $1 and conversation_id in (
                 select conversation_id from former_participants where user_id = $1 limit $2
             )",
            user_id.as_uuid(),
            rows_max
        );
        let deleted = statement(deletion.execute(&mut *connection)).await?.rows_affected();
        let unmuting = sqlx::query!(
            "update participants set muted_until = null where user_id = $1 and conversation_id in (
                 select conversation_id from participants where user_id = $1 and muted_until is not null limit $2
             )",
            user_id.as_uuid(),
            rows_max
        );
        Ok(deleted + statement(unmuting.execute(&mut *connection)).await?.rows_affected())
    }
}
