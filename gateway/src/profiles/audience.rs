//! Which users are shown a changed profile unasked: those that share a conversation with its user, and the customers of a
//! business. The profile of an agent is none that customers see.

use chat_shared::ids::{BusinessId, UserId};

use crate::{
    conversations::stored_id,
    database::{Database, statement},
    refusal::Refusal,
};

/// Users of one page.
pub(super) const PAGE_USERS: usize = 1000;

/// A page of those who share a conversation with a user, who are themselves among them: those after a place, in the order
/// of their ids.
pub(super) async fn page(database: &Database, user_id: UserId, after: Option<UserId>) -> Result<Vec<UserId>, Refusal> {
    let mut connection = database.connection().await?;
    let found = statement(
        sqlx::query_scalar!(
            r#"select distinct theirs.user_id
               from participants own join participants theirs using (conversation_id)
               where own.user_id = $1 and (own.role <> 'agent' or theirs.user_id = own.user_id) and ($2::uuid is null or theirs.user_id > $2)
               order by theirs.user_id
               limit $3"#,
            user_id.as_uuid(),
            after.map(UserId::as_uuid),
            i64::try_from(PAGE_USERS).unwrap_or(i64::MAX)
        )
        .fetch_all(&mut *connection),
    )
    .await?;
    found.into_iter().map(|id| Ok(stored_id(id)?)).collect()
}

/// A page of the customers of a business: those after a place, in the order of their ids.
pub(super) async fn page_of_customers(
    database: &Database,
    business_id: BusinessId,
    after: Option<UserId>,
) -> Result<Vec<UserId>, Refusal> {
    let mut connection = database.connection().await?;
    let found = statement(
        sqlx::query_scalar!(
            r#"select customer_id as "customer_id!" from conversations
               where business_id = $1 and ($2::uuid is null or customer_id > $2)
               order by customer_id
               limit $3"#,
            business_id.as_uuid(),
            after.map(UserId::as_uuid),
            i64::try_from(PAGE_USERS).unwrap_or(i64::MAX)
        )
        .fetch_all(&mut *connection),
    )
    .await?;
    found.into_iter().map(|id| Ok(stored_id(id)?)).collect()
}
