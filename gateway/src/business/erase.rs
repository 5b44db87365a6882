//! Ends the cases of a customer who is erased.

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{CaseState, ReleaseReason, Role},
};

use super::{Businesses, case::CaseRow, store};
use crate::{
    conversations::{newest_head, stored_id},
    database::statement,
    refusal::Refusal,
};

impl Businesses {
    /// Some of a customer's cases that are open, or would be opened for what the customer has written.
    pub async fn open_cases_of(
        &self,
        customer_id: UserId,
        rows_max: i64,
    ) -> Result<Vec<(BusinessId, ConversationId)>, Refusal> {
        let mut connection = self.database.connection().await?;
        let listing = sqlx::query!(
            "select k.business_id, k.conversation_id
             from participants p
             join cases k using (conversation_id)
             join conversations c using (conversation_id)
             where p.user_id = $1 and p.role = $2 and (k.state <> $3 or c.customer_seq > c.resolved_seq) limit $4",
            customer_id.as_uuid(),
            Role::Customer.as_str(),
            CaseState::Resolved.as_str(),
            rows_max
        );
        let rows = statement(listing.fetch_all(&mut *connection)).await?;
        rows.into_iter().map(|row| Ok((stored_id(row.business_id)?, stored_id(row.conversation_id)?))).collect()
    }

    /// Resolves the case of a customer: no message of the conversation needs an answer any more.
    pub async fn resolve_for_customer(
        &self,
        business_id: BusinessId,
        conversation_id: ConversationId,
    ) -> Result<(), Refusal> {
        let newest = newest_head(&self.log, &self.database, conversation_id).await?;
        let last_seq = newest.map_or(Seq::ZERO, |head| head.seq);
        self.change(business_id, async |connection, business| {
            let is_open = |case: &CaseRow| case.state != CaseState::Resolved || case.customer_seq > case.resolved_seq;
            let case = store::cases(connection, &[conversation_id]).await?.into_iter().find(is_open);
            let resolved = case.map(|case| {
                let seq = last_seq.max(case.customer_seq).max(case.agent_seq);
                case.resolve(seq, ReleaseReason::Resolved, business.now)
            });
            Ok(((), resolved.into_iter().collect()))
        })
        .await?;
        self.wake(business_id);
        Ok(())
    }
}
