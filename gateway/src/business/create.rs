//! Makes the conversation of a customer with a business, once.

use chat_shared::{
    event::{Fact, ParticipantsChanged},
    ids::{BusinessId, ConversationId, UserId},
    wire::{CaseState, ConversationKind, Participant, Role},
};
use sqlx::PgConnection;

use super::{
    Businesses, sql,
    store::{self, Business},
};
use crate::{
    conversations::{Created, insert_outbox, insert_participants, stored_id},
    database::statement,
    quota::{EVENT_BYTES, Quotas, Resource},
    refusal::Refusal,
};

impl Businesses {
    /// The conversation of a user with a business. A new one has its first case, which an agent gets before this returns if one
    /// has room.
    pub async fn converse(
        &self,
        quotas: &Quotas,
        customer_id: UserId,
        business_id: BusinessId,
    ) -> Result<Created, Refusal> {
        let mut connection = self.database.connection().await?;
        let existing = find(&mut connection, business_id, customer_id).await?;
        drop(connection);
        if let Some(conversation_id) = existing {
            // If its maker's gateway died, this publishes it.
            self.outbox.publish(conversation_id).await;
            self.database.note_change(&[customer_id.as_uuid()]).await;
            let conversation = self.conversations.get_changed(customer_id, conversation_id).await?;
            return Ok(Created { conversation, is_new: false });
        }
        quotas.check(customer_id, Resource::Conversations)?;
        quotas.check(customer_id, Resource::LogBytes)?;
        let (conversation_id, is_new) = self.insert(customer_id, business_id).await?;
        if is_new {
            quotas.count(customer_id, Resource::Conversations, 1);
            quotas.count(customer_id, Resource::LogBytes, EVENT_BYTES);
            self.note_changed(business_id);
        }
        self.database.note_change(&[customer_id.as_uuid()]).await;
        self.outbox.publish(conversation_id).await;
        if let Err(refusal) = self.route(business_id, &[]).await {
            tracing::debug!(%refusal, "a new case is left to the sweep");
        }
        let conversation = self.conversations.get_changed(customer_id, conversation_id).await?;
        Ok(Created { conversation, is_new })
    }

    /// Inserts the conversation with its first case; if another request was faster, its conversation and false.
    async fn insert(&self, customer_id: UserId, business_id: BusinessId) -> Result<(ConversationId, bool), Refusal> {
        self.change(business_id, async |connection, business| {
            // The lock of the business keeps other requests from making the conversation.
            if let Some(conversation_id) = find(connection, business_id, customer_id).await? {
                return Ok(((conversation_id, false), Vec::new()));
            }
            if !business.is_open {
                return Err(Refusal::business_closed());
            }
            let conversation_id = ConversationId::random();
            let inserting = sqlx::query!(
                "insert into conversations (conversation_id, kind, business_id, customer_id, created_at, last_activity_at)
                 values ($1, $2, $3, $4, $5, $5)",
                conversation_id.as_uuid(),
                ConversationKind::Business.as_str(),
                business_id.as_uuid(),
                customer_id.as_uuid(),
                sql(business.now)
            );
            statement(inserting.execute(&mut *connection)).await?;
            insert_case(connection, business, conversation_id, customer_id).await?;
            Ok(((conversation_id, true), Vec::new()))
        })
        .await
    }
}

/// The first case of a new conversation, its customer, and the event that makes both known.
async fn insert_case(
    connection: &mut PgConnection,
    business: &Business,
    conversation_id: ConversationId,
    customer_id: UserId,
) -> Result<(), Refusal> {
    let Business { business_id, now, .. } = *business;
    let inserting = sqlx::query!(
        "insert into cases (conversation_id, business_id, customer_id, state, opened_at, waiting_since)
         values ($1, $2, $3, $4, $5, $5)",
        conversation_id.as_uuid(),
        business_id.as_uuid(),
        customer_id.as_uuid(),
        CaseState::Waiting.as_str(),
        sql(now)
    );
    statement(inserting.execute(&mut *connection)).await?;
    let customer = [Participant { user_id: customer_id, role: Role::Customer }];
    insert_participants(&mut *connection, conversation_id, &customer, now).await?;
    let cases = store::cases(connection, &[conversation_id]).await?;
    let case = cases.into_iter().next().ok_or_else(Refusal::no_such_conversation)?;
    let added = ParticipantsChanged { added: vec![customer_id], ..ParticipantsChanged::default() };
    let (participants, fact) = (case.participants(false), Fact::ParticipantsChanged(added));
    insert_outbox(connection, conversation_id, ConversationKind::Business, participants, fact, now).await
}

async fn find(
    connection: &mut PgConnection,
    business_id: BusinessId,
    customer_id: UserId,
) -> Result<Option<ConversationId>, Refusal> {
    let finding = sqlx::query_scalar!(
        "select conversation_id from conversations where business_id = $1 and customer_id = $2",
        business_id.as_uuid(),
        customer_id.as_uuid()
    );
    let found = statement(finding.fetch_optional(connection)).await?;
    Ok(found.map(stored_id).transpose()?)
}
