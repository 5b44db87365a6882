//! How far the other side of direct conversations has the user's messages.

use super::{InboxError, Inboxes, bounded};
use crate::{
    ids::{ConversationId, UserId},
    position::Seq,
};

impl Inboxes {
    /// For each conversation, the number up to which the other side's devices are known to have the messages.
    pub async fn delivered(
        &self,
        user_id: UserId,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Seq>>, InboxError> {
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys(user_id).delivered);
        for conversation_id in conversations {
            command.arg(conversation_id.as_uuid().simple().to_string());
        }
        let mut redis = self.redis.link().await?;
        let found: Vec<Option<u64>> = bounded(command.query_async(&mut redis)).await?;
        Ok(found.into_iter().map(|seq| seq.map(Seq)).collect())
    }
}
