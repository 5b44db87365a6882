//! Whose presence a user may know: their own, and that of everybody with whom they share a conversation that is none with a
//! business. Who has blocked
//! them, or is blocked by them, is shown to them as somebody who was never there.

use std::collections::{HashMap, HashSet};

use chat_shared::ids::UserId;

use super::lists::Allowed;
use crate::{
    conversations::stored_id,
    database::{Database, statement},
    refusal::Refusal,
};

/// Refuses unless the user may know the presence of each; those who are hidden from them all the same.
pub async fn authorise(database: &Database, user_id: UserId, others: &[UserId]) -> Result<HashSet<UserId>, Refusal> {
    let mut allowed = allowed(database, &[(user_id, others)]).await?;
    let allowed = allowed.remove(&user_id).unwrap_or_default();
    if others.iter().all(|other| allowed.known.contains(other)) {
        Ok(allowed.hidden)
    } else {
        Err(Refusal::no_shared_conversation())
    }
}

/// Those whose presence each of the users may know, of those named with them, and who of them are hidden by a block,
/// whichever of the two made it.
pub async fn allowed(database: &Database, asked: &[(UserId, &[UserId])]) -> Result<HashMap<UserId, Allowed>, Refusal> {
    let mut allowed: HashMap<UserId, Allowed> = HashMap::with_capacity(asked.len());
    let (mut user_ids, mut other_ids) = (Vec::new(), Vec::new());
    for (user_id, others) in asked {
        allowed.entry(*user_id).or_default().known.insert(*user_id);
        for other in others.iter().filter(|other| *other != user_id) {
            user_ids.push(user_id.as_uuid());
            other_ids.push(other.as_uuid());
        }
    }
    if user_ids.is_empty() {
        return Ok(allowed);
    }
    let mut connection = database.connection().await?;
    let found = statement(
        sqlx::query!(
            r#"select asked.user_id as "user_id!", asked.other_id as "other_id!",
                   exists (
                       select from blocks
                       where (blocker_id, blocked_id)
                           in ((asked.other_id, asked.user_id), (asked.user_id, asked.other_id))
                   ) as "is_hidden!"
               from unnest($1::uuid[], $2::uuid[]) as asked (user_id, other_id)
               where exists (
                   select from participants theirs join participants own using (conversation_id)
                   where theirs.user_id = asked.other_id and own.user_id = asked.user_id
                       and theirs.role in ('member', 'owner')
               )"#,
            &user_ids,
            &other_ids
        )
        .fetch_all(&mut *connection),
    )
    .await?;
    for pair in found {
        let (user_id, other_id) = (stored_id(pair.user_id)?, stored_id(pair.other_id)?);
        let allowed = allowed.entry(user_id).or_default();
        allowed.known.insert(other_id);
        if pair.is_hidden {
            allowed.hidden.insert(other_id);
        }
    }
    Ok(allowed)
}
