//! Whose presence a user may know: their own, and that of everybody with whom they share a conversation.

use std::collections::HashSet;

use chat_shared::ids::UserId;
use uuid::Uuid;

use crate::{
    database::{Database, statement},
    refusal::Refusal,
};

/// Refuses unless the user may know the presence of each.
pub async fn authorise(database: &Database, user_id: UserId, others: &[UserId]) -> Result<(), Refusal> {
    let allowed = allowed(database, user_id, others).await?;
    if others.iter().all(|other| allowed.contains(other)) { Ok(()) } else { Err(Refusal::no_shared_conversation()) }
}

/// Those whose presence the user may know.
pub async fn allowed(database: &Database, user_id: UserId, others: &[UserId]) -> Result<HashSet<UserId>, Refusal> {
    let mut allowed = HashSet::from([user_id]);
    let asked: Vec<Uuid> = others.iter().filter(|other| **other != user_id).map(|other| other.as_uuid()).collect();
    if asked.is_empty() {
        return Ok(allowed);
    }
    let mut connection = database.connection().await?;
    let found = statement(
        sqlx::query_scalar!(
            r#"select asked.user_id as "user_id!" from unnest($2::uuid[]) as asked (user_id)
               where exists (
                   select from participants theirs join participants own using (conversation_id)
                   where theirs.user_id = asked.user_id and own.user_id = $1
               )"#,
            user_id.as_uuid(),
            &asked
        )
        .fetch_all(&mut *connection),
    )
    .await?;
    for other in found {
        allowed.insert(other.try_into().map_err(|error| Refusal::internal(&error))?);
    }
    Ok(allowed)
}
