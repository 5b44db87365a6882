//! Which members of the staff read a conversation without taking part in it (R6.5). Each day's reading is recorded once.

use chat_shared::ids::{ConversationId, UserId};

use super::{
    Businesses,
    decide::member,
    rights::{self, Action},
    store,
};
use crate::{database::statement, refusal::Refusal};

impl Businesses {
    /// Refuses a user who may not read the conversation as a supervisor of its business, and records the reading.
    pub async fn check_reader(&self, by: UserId, conversation_id: ConversationId) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let case = store::cases(&mut connection, &[conversation_id]).await?.into_iter().next();
        let case = case.ok_or_else(Refusal::no_such_conversation)?;
        let member = member(&mut connection, case.business_id, by).await?.ok_or_else(Refusal::no_such_conversation)?;
        rights::check(by, member.role, &case, Action::Read, case.opened_at)?;
        let recording = sqlx::query!(
            "insert into staff_reads (day, user_id, conversation_id)
             values ((now() at time zone 'UTC')::date, $1, $2) on conflict do nothing",
            by.as_uuid(),
            conversation_id.as_uuid()
        );
        statement(recording.execute(&mut *connection)).await?;
        Ok(())
    }
}
