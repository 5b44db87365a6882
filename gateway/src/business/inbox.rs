//! The inbox of a business: its conversations, as its staff list them (R7.1). An agent reads the texts of its own ones alone.

use std::collections::HashMap;

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, UserId},
    limits,
    wire::{BusinessConversation, BusinessConversationPage, CaseState, Message},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Businesses, case::CaseRow, decide::member, store};
use crate::{database::statement, refusal::Refusal};

/// Which part of the inbox.
#[derive(Debug, Clone, Copy)]
pub struct InboxQuery<'a> {
    /// Conversations whose cases are in this state.
    pub state: CaseState,
    /// Only those that this agent has, or had last.
    pub agent_id: Option<UserId>,
    /// Rows at the most.
    pub limit: usize,
    /// The `next_cursor` of the page before.
    pub cursor: Option<&'a str>,
}

/// The last conversation of a page: the moment that sorts it, in milliseconds, and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InboxCursor {
    at: Timestamp,
    conversation_id: ConversationId,
}

impl InboxCursor {
    fn encode(self) -> String {
        format!("{}.{}", self.at.0, self.conversation_id.as_uuid().simple())
    }

    fn decode(text: &str) -> Result<Self, Refusal> {
        let parts = text.split_once('.').and_then(|(at, id)| {
            let at = Timestamp(at.parse().ok()?);
            // PostgreSQL has to take it.
            let is_stored = at >= Timestamp(0) && Timestamp::from(OffsetDateTime::from(at)) == at;
            Some(Self { at, conversation_id: ConversationId::from_key(id)? }).filter(|_| is_stored)
        });
        parts.ok_or_else(|| Refusal::invalid("`cursor` is none that this list gave"))
    }
}

impl Businesses {
    /// A page of the inbox.
    pub async fn inbox(
        &self,
        by: UserId,
        business_id: BusinessId,
        query: InboxQuery<'_>,
    ) -> Result<BusinessConversationPage, Refusal> {
        let after = query.cursor.map(InboxCursor::decode).transpose()?;
        let of = [by.as_uuid(), business_id.as_uuid()];
        let on_replica = match self.database.lend(&of).await {
            Some((mut connection, lent)) => {
                lent.find(self.read_inbox(&mut connection, by, business_id, query, after)).await
            }
            None => None,
        };
        let found = if on_replica.is_some() {
            on_replica
        } else {
            let mut connection = self.database.connection().await?;
            self.read_inbox(&mut connection, by, business_id, query, after).await?
        };
        let Found { cases, mut messages, has_more } = found.ok_or_else(Refusal::no_such_business)?;
        let next_cursor = cases
            .last()
            .filter(|_| has_more)
            .map(|last| InboxCursor { at: sorted_by(last), conversation_id: last.conversation_id }.encode());
        let customers: Vec<_> = cases.iter().map(|case| case.customer_id).collect();
        let customers = self.profiles.users(by, &customers).await;
        let conversations = cases.into_iter().zip(customers).map(|(case, customer)| {
            let last_message = messages.remove(&case.conversation_id);
            BusinessConversation {
                conversation_id: case.conversation_id,
                version: case.version,
                customer,
                case: case.shown(),
                agent_id: case.agent_id,
                last_agent_id: case.last_agent_id,
                needs_answer: case.needs_answer(),
                given_back: case.given_back,
                last_message,
            }
        });
        Ok(BusinessConversationPage { conversations: conversations.collect(), next_cursor })
    }

    /// None if the user is not on the staff.
    async fn read_inbox(
        &self,
        connection: &mut PgConnection,
        by: UserId,
        business_id: BusinessId,
        InboxQuery { state, agent_id, limit, .. }: InboxQuery<'_>,
        after: Option<InboxCursor>,
    ) -> Result<Option<Found>, Refusal> {
        let Some(member) = member(connection, business_id, by).await? else { return Ok(None) };
        let leads = member.role.leads();
        // Other agents' cases are none of an agent's; which ones wait is.
        let agent_id = if leads || state == CaseState::Waiting { agent_id } else { Some(by) };
        let mut ids = page(connection, by, business_id, state, agent_id, after, limit + 1).await?;
        let has_more = ids.len() > limit;
        ids.truncate(limit);
        let cases = store::cases(connection, &ids).await?;
        // Supervisors read the history of other cases, which is recorded.
        let is_read = |case: &CaseRow| case.agent_id == Some(by);
        let readable: Vec<_> = cases.iter().filter(|case| is_read(case)).map(|case| case.conversation_id).collect();
        let messages = self.conversations.last_messages(connection, &readable).await?;
        Ok(Some(Found { cases, messages, has_more }))
    }
}

/// A page as it is stored.
struct Found {
    cases: Vec<CaseRow>,
    /// The last messages of the user's own cases.
    messages: HashMap<ConversationId, Message>,
    has_more: bool,
}

/// The moment that sorts a case in the list of its state.
fn sorted_by(case: &CaseRow) -> Timestamp {
    match case.state {
        CaseState::Assigned => case.assigned_at.unwrap_or(case.opened_at),
        CaseState::Resolved => case.resolved_at.unwrap_or(case.opened_at),
        CaseState::Waiting | CaseState::Unknown => case.waiting_since,
    }
}

/// The ids of a page, without the conversation of which the user is the customer: waiting cases by age, others by the moment of their assignment or end, the latest first. They are stored
/// in whole milliseconds, as cursors have them.
async fn page(
    connection: &mut PgConnection,
    by: UserId,
    business_id: BusinessId,
    state: CaseState,
    agent_id: Option<UserId>,
    after: Option<InboxCursor>,
    limit: usize,
) -> Result<Vec<ConversationId>, Refusal> {
    let limit = i64::try_from(limit.min(limits::PAGE_ROWS_MAX + 1)).unwrap_or(i64::MAX);
    let (at, id): (Option<OffsetDateTime>, Option<Uuid>) =
        after.map(|after| (after.at.into(), after.conversation_id.as_uuid())).unzip();
    let (business, agent) = (business_id.as_uuid(), agent_id.map(UserId::as_uuid));
    let found = match state {
        CaseState::Waiting => {
            let reading = sqlx::query_scalar!(
                "select conversation_id from cases
                 where business_id = $1 and customer_id <> $6 and state = 'waiting' and ($2::uuid is null or last_agent_id = $2)
                     and ($3::timestamptz is null or (waiting_since, conversation_id) > ($3, $4::uuid))
                 order by waiting_since, conversation_id limit $5",
                business,
                agent,
                at,
                id,
                limit,
                by.as_uuid()
            );
            statement(reading.fetch_all(connection)).await?
        }
        CaseState::Assigned => {
            let reading = sqlx::query_scalar!(
                "select conversation_id from cases
                 where business_id = $1 and customer_id <> $6 and state = 'assigned' and ($2::uuid is null or agent_id = $2)
                     and ($3::timestamptz is null or (assigned_at, conversation_id) < ($3, $4::uuid))
                 order by assigned_at desc, conversation_id desc limit $5",
                business,
                agent,
                at,
                id,
                limit,
                by.as_uuid()
            );
            statement(reading.fetch_all(connection)).await?
        }
        CaseState::Resolved => {
            let reading = sqlx::query_scalar!(
                "select conversation_id from cases
                 where business_id = $1 and customer_id <> $6 and state = 'resolved' and ($2::uuid is null or last_agent_id = $2)
                     and ($3::timestamptz is null or (resolved_at, conversation_id) < ($3, $4::uuid))
                 order by resolved_at desc, conversation_id desc limit $5",
                business,
                agent,
                at,
                id,
                limit,
                by.as_uuid()
            );
            statement(reading.fetch_all(connection)).await?
        }
        CaseState::Unknown => return Err(Refusal::invalid("`state` is `waiting`, `assigned` or `resolved`")),
    };
    store::ids(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_this_list_did_not_give_is_refused() {
        let cursor = InboxCursor { at: Timestamp(1_767_225_600_000), conversation_id: ConversationId::random() };
        assert_eq!(InboxCursor::decode(&cursor.encode()), Ok(cursor));
        let id = cursor.conversation_id.as_uuid().simple();
        for wrong in [
            "",
            ".",
            "1",
            "1.2",
            &format!("-250000000000000.{id}"),
            &format!("{}.{}", i64::MAX, cursor.conversation_id.as_uuid().simple()),
        ] {
            assert!(InboxCursor::decode(wrong).is_err(), "{wrong}");
        }
    }
}
