//! Whose presence a user may know: their own, and that of everybody with whom they share a conversation. Who has blocked
//! them, or is blocked by them, is shown to them as somebody who was never there.

use std::collections::HashSet;

use chat_shared::ids::UserId;
use uuid::Uuid;

use super::lists::Allowed;
use crate::{
    database::{Database, statement},
    refusal::Refusal,
};

/// Refuses unless the user may know the presence of each; those who are hidden from them all the same.
pub async fn authorise(database: &Database, user_id: UserId, others: &[UserId]) -> Result<HashSet<UserId>, Refusal> {
    let allowed = allowed(database, user_id, others).await?;
    if others.iter().all(|other| allowed.known.contains(other)) {
        Ok(allowed.hidden)
    } else {
        Err(Refusal::no_shared_conversation())
    }
}

/// Those whose presence the user may know, and those of them who are hidden by a block, whichever of the two made it.
pub async fn allowed(database: &Database, user_id: UserId, others: &[UserId]) -> Result<Allowed, Refusal> {
    let mut allowed = Allowed { known: HashSet::from([user_id]), ..Allowed::default() };
    let asked: Vec<Uuid> = others.iter().filter(|other| **other != user_id).map(|other| other.as_uuid()).collect();
    if asked.is_empty() {
        return Ok(allowed);
    }
    let mut connection = database.connection().await?;
    let found = statement(
        sqlx::query!(
            r#"select asked.user_id as "user_id!",
                   exists (
                       select from blocks
                       where (blocker_id, blocked_id) in ((asked.user_id, $1), ($1, asked.user_id))
                   ) as "is_hidden!"
               from unnest($2::uuid[]) as asked (user_id)
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
        let user_id = other.user_id.try_into().map_err(|error| Refusal::internal(&error))?;
        allowed.known.insert(user_id);
        if other.is_hidden {
            allowed.hidden.insert(user_id);
        }
    }
    Ok(allowed)
}
