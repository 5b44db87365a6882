//! Looks for the number of a message by its id, in what PostgreSQL has stored and in what only the log has yet.

use std::time::Duration;

use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact},
    ids::{ConversationId, MessageId, UserId},
    limits,
    log::AppendError,
    position::Seq,
};

use super::{
    backwards::Backwards,
    stored,
    tail::{Tail, TailError},
};
use crate::{database::Database, refusal::Refusal};

/// Persisters store side by side, so what is older than the last stored message may be missing for a moment.
const UNSETTLED_AGE_MAX: Duration = Duration::from_mins(1);

/// Events that are read at once among those that may be missing.
const UNSETTLED_READ: usize = 32;

/// What is left of the log is out of reach.
#[derive(Debug, thiserror::Error)]
#[error("the message is not among the last {} events of the log", limits::TAIL_STEPS_MAX)]
struct TooFar;

/// The number of a message that `user_id` asks for; none if the conversation has no such message. `newest` is the
/// conversation's newest event in the log, read before. Of several messages with this id, from different senders, the
/// earliest counts.
pub async fn number_of(
    database: &Database,
    tail: &Tail,
    user_id: UserId,
    newest: Option<Event>,
    conversation_id: ConversationId,
    message_id: MessageId,
) -> Result<Option<Seq>, Refusal> {
    let stored = find_stored(database, conversation_id, message_id).await;
    let stored_seq = match &stored {
        Ok(stored::Numbered { seq: Some(seq), .. }) => return Ok(Some(*seq)),
        Ok(stored) => stored.last_seq,
        Err(stored::RowsError::Database(_)) => Seq::ZERO,
        Err(stored::RowsError::Unreadable(error)) => return Err(Refusal::internal(error)),
    };
    let walk = find_in_log(tail, user_id, newest, stored_seq, message_id);
    let in_log = tokio::time::timeout(limits::APPEND_WAIT_MAX, walk).await;
    let in_log = in_log.unwrap_or(Err(TailError::Log(AppendError::Unknown)))?;
    match (in_log, stored) {
        (InLog::Found(seq), _) => Ok(Some(seq)),
        (_, Err(error)) => Err(error.into()),
        (InLog::TooFar, _) => Err(Refusal::unavailable("this far back in the log", &TooFar)),
        (InLog::Missing, _) => Ok(None),
    }
}

async fn find_stored(
    database: &Database,
    conversation_id: ConversationId,
    message_id: MessageId,
) -> Result<stored::Numbered, stored::RowsError> {
    let mut connection = database.connection().await?;
    stored::find_number(&mut connection, conversation_id, message_id).await
}

enum InLog {
    Found(Seq),
    Missing,
    TooFar,
}

/// Walks back from the newest event to what is surely stored.
async fn find_in_log(
    tail: &Tail,
    user_id: UserId,
    newest: Option<Event>,
    stored_seq: Seq,
    message_id: MessageId,
) -> Result<InLog, TailError> {
    let Some(newest) = newest else { return Ok(InLog::Missing) };
    let mut backwards = Backwards::from(tail, user_id, &newest);
    let age_max = i64::try_from(UNSETTLED_AGE_MAX.as_millis()).unwrap_or(i64::MAX);
    let settled = Timestamp(newest.sent_at.0.saturating_sub(age_max));
    let (mut next, mut found) = (Some(newest), None);
    for steps in 1..=limits::TAIL_STEPS_MAX {
        let is_stored = |event: &Event| event.seq <= stored_seq && event.sent_at < settled;
        let Some(event) = next.filter(|event| !is_stored(event)) else {
            return Ok(found.map_or(InLog::Missing, InLog::Found));
        };
        if matches!(&event.fact, Fact::MessageSent(message) if message.message_id == message_id) {
            found = Some(event.seq);
        }
        // How many are not settled is not known.
        let wanted =
            usize::try_from(event.seq.0.saturating_sub(stored_seq.0)).unwrap_or(usize::MAX).max(UNSETTLED_READ);
        next = backwards.next(wanted.min(limits::TAIL_STEPS_MAX + 1 - steps)).await?;
    }
    Ok(found.map_or(InLog::TooFar, InLog::Found))
}
