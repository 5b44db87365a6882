//! What PostgreSQL says of one conversation: where it stands and who takes part.

use chat_shared::{
    clock::Timestamp,
    customer_view::CustomerView,
    event::{BusinessPart, Event, Participants},
    ids::{ConversationId, InvalidId, UserId},
    log::{Head, Log},
    position::{Seq, StreamSeq},
    wire::{Case, CaseState, ConversationKind, Participant, Role, UnknownName},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, statement},
    refusal::Refusal,
};

/// A stored value that this program can't have written.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRow {
    /// An id of another kind.
    #[error("a stored id is not of version 4")]
    Id(#[from] InvalidId),
    /// A device's platform that isn't known.
    #[error("a stored platform is not known")]
    Platform(#[from] UnknownName),
}

impl From<UnreadableRow> for Refusal {
    fn from(error: UnreadableRow) -> Self {
        Self::internal(&error)
    }
}

/// The participants in two columns of one row.
pub(super) fn participants(user_ids: Vec<Uuid>, roles: &[String]) -> Result<Vec<Participant>, UnreadableRow> {
    let pairs = user_ids.into_iter().zip(roles);
    pairs.map(|(user_id, role)| Ok(Participant { user_id: user_id.try_into()?, role: Role::named(role) })).collect()
}

/// An id in a column.
pub fn stored_id<T: TryFrom<Uuid, Error = InvalidId>>(id: Uuid) -> Result<T, UnreadableRow> {
    Ok(id.try_into()?)
}

/// Users in a column.
pub(super) fn user_ids(user_ids: Vec<Uuid>) -> Result<Vec<UserId>, UnreadableRow> {
    user_ids.into_iter().map(stored_id).collect()
}

/// The case in three columns. A restored database may lack it: such a case counts as resolved, and opens again.
pub(super) fn case(number: Option<i32>, state: Option<&str>, waiting_since: OffsetDateTime) -> Case {
    Case {
        number: number.map_or(1, i32::unsigned_abs),
        state: state.map_or(CaseState::Resolved, CaseState::named),
        waiting_since: waiting_since.into(),
    }
}

/// The head of a conversation by the log, or by PostgreSQL if the log holds nothing of it. Any replica of the log answers,
/// and one that is behind gives an older head.
///
/// The log comes first: a change between the two reads makes an append fail, never pass.
pub async fn head(log: &Log, database: &Database, conversation_id: ConversationId) -> Result<Option<Head>, Refusal> {
    after_last(log.last(conversation_id).await?, database, conversation_id).await
}

/// As `head`, by the log's leader.
pub async fn newest_head(
    log: &Log,
    database: &Database,
    conversation_id: ConversationId,
) -> Result<Option<Head>, Refusal> {
    after_last(log.newest(conversation_id).await?, database, conversation_id).await
}

/// The head after the last event of the log, or the stored one if there is no event.
async fn after_last(
    last: Option<(StreamSeq, Event)>,
    database: &Database,
    conversation_id: ConversationId,
) -> Result<Option<Head>, Refusal> {
    match last {
        Some((at, event)) => Ok(Some(Head::after(event, at))),
        None => stored_head(database, conversation_id).await,
    }
}

/// The head of a conversation by PostgreSQL, for a log that holds nothing of it: after the stored messages.
pub async fn stored_head(database: &Database, conversation_id: ConversationId) -> Result<Option<Head>, Refusal> {
    let mut connection = database.connection().await?;
    let row = statement(
        sqlx::query!(
            r#"select c.kind, c.version, c.last_seq, coalesce(c.last_message_at, c.created_at) as "sent_at!",
                   p.user_ids as "user_ids!: Vec<Uuid>", p.roles as "roles!: Vec<String>",
                   c.business_id, not b.is_open as is_closed, k.case_number as "case_number?", k.state as "case_state?",
                   coalesce(k.waiting_since, c.created_at) as "waiting_since!",
                   array(
                       select blocker_id from blocks
                       where (blocker_id, blocked_id) in
                           ((c.direct_low, c.direct_high), (c.direct_high, c.direct_low))
                   ) as "blocked_by!: Vec<Uuid>"
               from conversations c
               left join businesses b using (business_id)
               left join cases k using (conversation_id)
               cross join lateral (
                   select coalesce(array_agg(user_id order by position), '{}') as user_ids,
                       coalesce(array_agg(role order by position), '{}') as roles
                   from participants where conversation_id = c.conversation_id
               ) p
               where c.conversation_id = $1"#,
            conversation_id.as_uuid()
        )
        .fetch_optional(&mut *connection),
    )
    .await?;
    let Some(row) = row else { return Ok(None) };
    let case = case(row.case_number, row.case_state.as_deref(), row.waiting_since);
    let business = row.business_id.map(stored_id).transpose()?.map(|business_id| BusinessPart {
        business_id,
        case,
        is_closed: row.is_closed.unwrap_or_default(),
    });
    Ok(Some(Head {
        stream_seq: StreamSeq::ZERO,
        kind: ConversationKind::named(&row.kind),
        seq: Seq::from_sql(row.last_seq),
        sent_at: row.sent_at.into(),
        participants: Participants {
            version: row.version.unsigned_abs(),
            list: participants(row.user_ids, &row.roles)?,
            blocked_by: user_ids(row.blocked_by)?,
            business,
        },
    }))
}

/// How far a conversation is stored, and whether a user takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Whether the user takes part.
    pub is_participant: bool,
    /// The number of the last message stored.
    pub last_seq: Seq,
    /// Messages up to here have been aged out.
    pub floor_seq: Seq,
    /// When the last message stored was accepted.
    pub last_message_at: Option<Timestamp>,
    /// How the user sees it, if that is the customer of a business conversation.
    pub customer: Option<CustomerView>,
}

/// The customer's view of a conversation with these columns.
pub(super) fn customer(business_id: Option<Uuid>, customer_id: Option<Uuid>) -> Option<CustomerView> {
    Some(CustomerView::new(business_id?.try_into().ok()?, customer_id?.try_into().ok()?))
}

/// How far the conversation is stored, and whether the user takes part. None if there is no such conversation.
pub async fn membership(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    user_id: UserId,
) -> Result<Option<Membership>, DatabaseError> {
    let row = statement(
        sqlx::query!(
            r#"select last_seq, floor_seq, last_message_at, business_id, customer_id, exists (
                   select from participants p where p.conversation_id = c.conversation_id and p.user_id = $2
               ) as "is_participant!"
               from conversations c where conversation_id = $1"#,
            conversation_id.as_uuid(),
            user_id.as_uuid()
        )
        .fetch_optional(connection),
    )
    .await?;
    Ok(row.map(|row| Membership {
        customer: customer(row.business_id, row.customer_id).filter(|customer| customer.is_of(user_id)),
        is_participant: row.is_participant,
        last_seq: Seq::from_sql(row.last_seq),
        floor_seq: Seq::from_sql(row.floor_seq),
        last_message_at: row.last_message_at.map(Timestamp::from),
    }))
}
