//! Shows conversations to one of their participants: one of them, or a page of all of them.
//!
//! It shows what PostgreSQL has stored. A message that was just accepted may be missing from `last_message`,
//! `last_seq` and the order until the persister has stored it; history never lags.

use std::collections::HashMap;

use chat_shared::{
    ids::{ConversationId, UserId},
    position::Seq,
    wire::{Conversation, ConversationPage, Message},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conversations,
    cursor::ListCursor,
    record::{UnreadableRow, participants},
};
use crate::{
    database::{DatabaseError, statement},
    history::{StoredMessage, last_messages},
    refusal::Refusal,
};

/// A conversation with its participants, as one of them sees it.
struct Row {
    conversation_id: Uuid,
    kind: String,
    version: i64,
    last_seq: i64,
    floor_seq: i64,
    read_seq: i64,
    last_message_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    last_activity_at: OffsetDateTime,
    user_ids: Vec<Uuid>,
    roles: Vec<String>,
}

impl Conversations {
    /// One of the user's conversations.
    pub async fn get(&self, user_id: UserId, conversation_id: ConversationId) -> Result<Conversation, Refusal> {
        let mut connection = self.database.connection().await?;
        let row =
            select_one(&mut connection, user_id, conversation_id).await?.ok_or_else(Refusal::no_such_conversation)?;
        let mut shown = self.show(&mut connection, vec![row]).await?;
        shown.pop().ok_or_else(Refusal::no_such_conversation)
    }

    /// A page of the user's conversations, latest activity first.
    pub async fn list(&self, user_id: UserId, limit: usize, cursor: Option<&str>) -> Result<ConversationPage, Refusal> {
        let after = cursor.map(ListCursor::decode).transpose()?;
        let mut connection = self.database.connection().await?;
        let mut rows = select_page(&mut connection, user_id, limit + 1, after).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let conversations = self.show(&mut connection, rows).await?;
        let next_cursor = conversations.last().filter(|_| has_more).map(|last| {
            let Conversation { last_activity_at, conversation_id, .. } = *last;
            ListCursor { last_activity_at, conversation_id }.encode()
        });
        Ok(ConversationPage { conversations, next_cursor })
    }

    /// With each one's last message, all of them read at once.
    async fn show(&self, connection: &mut PgConnection, rows: Vec<Row>) -> Result<Vec<Conversation>, Refusal> {
        let with_messages = rows.iter().filter(|row| row.last_seq > row.floor_seq);
        let wanted: Vec<_> = with_messages
            .filter_map(|row| Some((row.conversation_id, Seq::from_sql(row.last_seq), row.last_message_at?)))
            .collect();
        let mut messages = last_messages(connection, &wanted).await?;
        rows.into_iter().map(|row| Ok(self.conversation(row, &mut messages)?)).collect()
    }

    fn conversation(
        &self,
        row: Row,
        messages: &mut HashMap<Uuid, StoredMessage>,
    ) -> Result<Conversation, UnreadableRow> {
        let conversation_id: ConversationId = row.conversation_id.try_into()?;
        let last_message = messages.remove(&row.conversation_id).and_then(|last| self.open(conversation_id, last));
        let (last_seq, floor_seq) = (Seq::from_sql(row.last_seq), Seq::from_sql(row.floor_seq));
        let read_seq = Seq::from_sql(row.read_seq);
        Ok(Conversation {
            conversation_id,
            kind: row.kind.parse()?,
            version: row.version.unsigned_abs(),
            participants: participants(row.user_ids, &row.roles)?,
            last_seq,
            floor_seq,
            read_seq,
            last_read_message_id: None,
            unread: unread(last_seq, read_seq, floor_seq),
            progress: Vec::new(),
            mute: None,
            last_message,
            created_at: row.created_at.into(),
            last_activity_at: row.last_activity_at.into(),
        })
    }

    /// The message in clear. One that can't be opened, which is logged, doesn't hide the rest of the list.
    fn open(&self, conversation_id: ConversationId, stored: StoredMessage) -> Option<Message> {
        let text = self.content.open_message(conversation_id, &stored.message).ok()?;
        Some(stored.into_message(conversation_id, text))
    }
}

/// What a user has not read yet. Nothing counts up or down, so nothing drifts.
const fn unread(last_seq: Seq, read_seq: Seq, floor_seq: Seq) -> u64 {
    let seen = if read_seq.0 > floor_seq.0 { read_seq.0 } else { floor_seq.0 };
    last_seq.0.saturating_sub(seen)
}

async fn select_one(
    connection: &mut PgConnection,
    user_id: UserId,
    conversation_id: ConversationId,
) -> Result<Option<Row>, DatabaseError> {
    statement(
        sqlx::query_as!(
            Row,
            r#"select c.conversation_id, c.kind, c.version, c.last_seq, c.floor_seq, me.read_seq, c.last_message_at,
                   c.created_at, c.last_activity_at, others.user_ids as "user_ids!", others.roles as "roles!"
               from conversations c
               join participants me on me.conversation_id = c.conversation_id and me.user_id = $1
               cross join lateral (
                   select array_agg(user_id order by position) as user_ids, array_agg(role order by position) as roles
                   from participants where conversation_id = c.conversation_id
               ) others
               where c.conversation_id = $2"#,
            user_id.as_uuid(),
            conversation_id.as_uuid()
        )
        .fetch_optional(connection),
    )
    .await
}

async fn select_page(
    connection: &mut PgConnection,
    user_id: UserId,
    limit: usize,
    after: Option<ListCursor>,
) -> Result<Vec<Row>, DatabaseError> {
    statement(
        sqlx::query_as!(
            Row,
            r#"select c.conversation_id, c.kind, c.version, c.last_seq, c.floor_seq, c.read_seq, c.last_message_at,
                   c.created_at, c.last_activity_at, others.user_ids as "user_ids!", others.roles as "roles!"
               from (
                   select conversations.*, me.read_seq
                   from participants me
                   join conversations using (conversation_id)
                   where me.user_id = $1
                       and ($2::timestamptz is null or (last_activity_at, conversation_id) < ($2, $3::uuid))
                   order by last_activity_at desc, conversation_id desc
                   limit $4
               ) c
               cross join lateral (
                   select array_agg(user_id order by position) as user_ids, array_agg(role order by position) as roles
                   from participants where conversation_id = c.conversation_id
               ) others
               order by c.last_activity_at desc, c.conversation_id desc"#,
            user_id.as_uuid(),
            after.map(|place| OffsetDateTime::from(place.last_activity_at)),
            after.map(|place| place.conversation_id.as_uuid()),
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(connection),
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_is_its_definition() {
        let count = |last, read, floor| unread(Seq(last), Seq(read), Seq(floor));
        assert_eq!(count(0, 0, 0), 0);
        assert_eq!(count(10, 0, 0), 10);
        assert_eq!(count(10, 4, 0), 6);
        assert_eq!(count(10, 4, 7), 3, "what has been aged out is not unread");
        assert_eq!(count(10, 10, 7), 0);
        assert_eq!(count(10, 12, 0), 0, "a read mark that was stored before its message");
    }
}
