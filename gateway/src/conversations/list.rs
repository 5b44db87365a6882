//! Shows conversations to one of their participants: one of them, or a page of all of them.
//!
//! It shows what PostgreSQL has stored. A message that was just accepted may be missing from `last_message`,
//! `last_seq` and the order until the persister has stored it; history never lags.

use std::collections::HashMap;

use chat_shared::{
    customer_view::CustomerView,
    ids::{ConversationId, UserId},
    limits,
    position::Seq,
    runs::Runs,
    wire::{
        BusinessProfile, Conversation, ConversationKind, ConversationName, ConversationPage, Message, Mute, Progress,
        UnreadTotal,
    },
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conversations,
    cursor::ListCursor,
    record::{UnreadableRow, case, customer, participants},
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
    last_read_message_id: Option<Uuid>,
    unread: i64,
    own_firsts: Vec<i64>,
    own_lasts: Vec<i64>,
    is_muted: bool,
    is_blocked: bool,
    muted_until: Option<OffsetDateTime>,
    last_message_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    last_activity_at: OffsetDateTime,
    business_id: Option<Uuid>,
    customer_id: Option<Uuid>,
    /// Up to here the business has answered, or resolved without an answer.
    business_seq: i64,
    case_number: Option<i32>,
    case_state: Option<String>,
    waiting_since: OffsetDateTime,
    user_ids: Vec<Uuid>,
    roles: Vec<String>,
    since_seqs: Vec<i64>,
    read_seqs: Vec<i64>,
    last_read_message_ids: Vec<Option<Uuid>>,
}

impl Conversations {
    /// One of the user's conversations.
    pub async fn get(&self, user_id: UserId, conversation_id: ConversationId) -> Result<Conversation, Refusal> {
        let on_replica = match self.database.lend(&[user_id.as_uuid()]).await {
            Some((mut connection, lent)) => lent.find(self.read_one(&mut connection, user_id, conversation_id)).await,
            None => None,
        };
        match on_replica {
            Some(shown) => self.dressed(user_id, shown).await,
            None => self.get_changed(user_id, conversation_id).await,
        }
    }

    /// As `get`, as the primary has it: for the answer to a change.
    pub async fn get_changed(&self, user_id: UserId, conversation_id: ConversationId) -> Result<Conversation, Refusal> {
        let mut connection = self.database.connection().await?;
        let shown = self.read_one(&mut connection, user_id, conversation_id).await?;
        drop(connection);
        self.dressed(user_id, shown.ok_or_else(Refusal::no_such_conversation)?).await
    }

    async fn read_one(
        &self,
        connection: &mut PgConnection,
        user_id: UserId,
        conversation_id: ConversationId,
    ) -> Result<Option<Vec<Conversation>>, Refusal> {
        let row = select_one(connection, user_id, conversation_id, self.clock.now().into()).await?;
        match row {
            Some(row) => Ok(Some(self.show(user_id, connection, vec![row]).await?)),
            None => Ok(None),
        }
    }

    async fn dressed(&self, user_id: UserId, mut shown: Vec<Conversation>) -> Result<Conversation, Refusal> {
        self.add_delivered(user_id, &mut shown).await;
        self.profiles.dress(user_id, &mut shown).await;
        shown.pop().ok_or_else(Refusal::no_such_conversation)
    }

    /// A page of the user's conversations, latest activity first.
    pub async fn list(&self, user_id: UserId, limit: usize, cursor: Option<&str>) -> Result<ConversationPage, Refusal> {
        let after = cursor.map(ListCursor::decode).transpose()?;
        let on_replica = match self.database.lend(&[user_id.as_uuid()]).await {
            Some((mut connection, lent)) => lent.read(self.read_page(&mut connection, user_id, limit, after)).await,
            None => None,
        };
        let (mut conversations, has_more) = match on_replica {
            Some(found) => found,
            None => self.read_page(&mut *self.database.connection().await?, user_id, limit, after).await?,
        };
        self.add_delivered(user_id, &mut conversations).await;
        self.profiles.dress(user_id, &mut conversations).await;
        let next_cursor = conversations.last().filter(|_| has_more).map(|last| {
            let Conversation { last_activity_at, conversation_id, .. } = *last;
            ListCursor { last_activity_at, conversation_id }.encode()
        });
        Ok(ConversationPage { conversations, next_cursor })
    }

    /// Conversations of a page, and whether there are more.
    async fn read_page(
        &self,
        connection: &mut PgConnection,
        user_id: UserId,
        limit: usize,
        after: Option<ListCursor>,
    ) -> Result<(Vec<Conversation>, bool), Refusal> {
        let mut rows = select_page(connection, user_id, limit + 1, after, self.clock.now().into()).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Ok((self.show(user_id, connection, rows).await?, has_more))
    }

    /// The last message of each of these conversations in clear, whoever takes part.
    pub async fn last_messages(
        &self,
        connection: &mut PgConnection,
        conversations: &[ConversationId],
    ) -> Result<HashMap<ConversationId, Message>, Refusal> {
        let ids: Vec<_> = conversations.iter().map(|id| id.as_uuid()).collect();
        let rows = statement(
            sqlx::query!(
                r#"select conversation_id, last_seq, last_message_at as "last_message_at!" from conversations
                   where conversation_id = any($1) and last_seq > floor_seq and last_message_at is not null"#,
                &ids
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        let wanted: Vec<_> =
            rows.iter().map(|row| (row.conversation_id, Seq::from_sql(row.last_seq), row.last_message_at)).collect();
        let messages = last_messages(connection, &wanted).await?;
        let open = |(id, stored): (Uuid, StoredMessage)| {
            let conversation_id = ConversationId::try_from(id).ok()?;
            Some((conversation_id, self.open(conversation_id, stored)?))
        };
        Ok(messages.into_iter().filter_map(open).collect())
    }

    /// What the user has not read, over the [`limits::UNREAD_CONVERSATIONS_MAX`] conversations with the latest activity.
    pub async fn unread(&self, user_id: UserId) -> Result<UnreadTotal, Refusal> {
        let on_replica = match self.database.lend(&[user_id.as_uuid()]).await {
            Some((mut connection, lent)) => lent.read(count_unread(&mut connection, user_id)).await,
            None => None,
        };
        Ok(match on_replica {
            Some(total) => total,
            None => count_unread(&mut *self.database.connection().await?, user_id).await?,
        })
    }

    /// Adds what has reached the others in direct conversations. It is at least what they have read, and all of it is
    /// known only while Redis is there.
    async fn add_delivered(&self, user_id: UserId, conversations: &mut [Conversation]) {
        let is_direct = |conversation: &&mut Conversation| conversation.kind == ConversationKind::Direct;
        let ids = conversations.iter().filter(|conversation| conversation.kind == ConversationKind::Direct);
        let ids: Vec<_> = ids.map(|conversation| conversation.conversation_id).collect();
        let delivered = self.inboxes.delivered(user_id, &ids).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what has been delivered is not shown");
            Vec::new()
        });
        let delivered = delivered.into_iter().chain(std::iter::repeat(None));
        for (conversation, delivered) in conversations.iter_mut().filter(is_direct).zip(delivered) {
            for progress in &mut conversation.progress {
                progress.delivered_seq = delivered.max(Some(progress.read_seq));
            }
        }
    }

    /// With each one's last message, all of them read at once.
    async fn show(
        &self,
        user_id: UserId,
        connection: &mut PgConnection,
        rows: Vec<Row>,
    ) -> Result<Vec<Conversation>, Refusal> {
        let with_messages = rows.iter().filter(|row| row.last_seq > row.floor_seq);
        let wanted: Vec<_> = with_messages
            .filter_map(|row| Some((row.conversation_id, Seq::from_sql(row.last_seq), row.last_message_at?)))
            .collect();
        let mut messages = last_messages(connection, &wanted).await?;
        rows.into_iter().map(|row| Ok(self.conversation(user_id, row, &mut messages)?)).collect()
    }

    fn conversation(
        &self,
        user_id: UserId,
        row: Row,
        messages: &mut HashMap<Uuid, StoredMessage>,
    ) -> Result<Conversation, UnreadableRow> {
        let conversation_id: ConversationId = row.conversation_id.try_into()?;
        let last_message = messages.remove(&row.conversation_id).and_then(|last| self.open(conversation_id, last));
        let (last_seq, floor_seq) = (Seq::from_sql(row.last_seq), Seq::from_sql(row.floor_seq));
        let read_seq = Seq::from_sql(row.read_seq);
        let own_runs = row.own_firsts.into_iter().map(Seq::from_sql).zip(row.own_lasts.into_iter().map(Seq::from_sql));
        let participants = participants(row.user_ids, &row.roles)?;
        let seqs = row.since_seqs.into_iter().map(Seq::from_sql).zip(row.read_seqs.into_iter().map(Seq::from_sql));
        let marks = seqs.zip(row.last_read_message_ids);
        let progress = participants.iter().zip(marks).filter(|(participant, _)| participant.user_id != user_id);
        let progress = progress.map(|(participant, ((since_seq, read_seq), message_id))| {
            let last_read_message_id = message_id.map(TryInto::try_into).transpose()?;
            let user_id = participant.user_id;
            Ok(Progress { user_id, since_seq, read_seq, last_read_message_id, delivered_seq: None })
        });
        let customer = customer(row.business_id, row.customer_id);
        let neutral = |view: CustomerView| Box::new(BusinessProfile::unavailable(view.business_id()));
        let mut conversation = Conversation {
            business: customer.map(neutral),
            case: customer.map(|_| case(row.case_number, row.case_state.as_deref(), row.waiting_since)),
            conversation_id,
            kind: ConversationKind::named(&row.kind),
            version: row.version.unsigned_abs(),
            name: ConversationName::default(),
            profiles: Vec::new(),
            is_blocked: row.is_blocked,
            last_seq,
            floor_seq,
            read_seq,
            last_read_message_id: row.last_read_message_id.map(TryInto::try_into).transpose()?,
            own_runs: Runs::of(own_runs),
            unread: row.unread.unsigned_abs(),
            progress: progress.collect::<Result<_, UnreadableRow>>()?,
            mute: row.is_muted.then(|| row.muted_until.map_or(Mute::ForGood, |until| Mute::Until(until.into()))),
            participants,
            last_message,
            created_at: row.created_at.into(),
            last_activity_at: row.last_activity_at.into(),
        };
        if let Some(customer) = customer.filter(|customer| customer.is_of(user_id)) {
            customer.apply_to(&mut conversation, Seq::from_sql(row.business_seq));
        }
        Ok(conversation)
    }

    /// The message in clear. One that can't be opened, which is logged, doesn't hide the rest of the list.
    fn open(&self, conversation_id: ConversationId, stored: StoredMessage) -> Option<Message> {
        let text = self.content.open_message(conversation_id, &stored.message).ok()?;
        Some(stored.into_message(conversation_id, text))
    }
}

async fn count_unread(connection: &mut PgConnection, user_id: UserId) -> Result<UnreadTotal, DatabaseError> {
    let total = statement(
        sqlx::query!(
            r#"select coalesce(sum(unread), 0)::bigint as "messages!", count(*) as "conversations!"
               from (
                   select unread_count(c.last_seq, c.floor_seq, p.read_seq, p.own_runs) as unread
                   from (
                       select conversation_id, read_seq, own_runs from participants where user_id = $1
                       order by listed_at desc
                       limit $2
                   ) p
                   join conversations c using (conversation_id)
               ) of_each
               where unread > 0"#,
            user_id.as_uuid(),
            limits::UNREAD_CONVERSATIONS_MAX
        )
        .fetch_one(connection),
    )
    .await?;
    Ok(UnreadTotal { messages: total.messages.unsigned_abs(), conversations: total.conversations.unsigned_abs() })
}

async fn select_one(
    connection: &mut PgConnection,
    user_id: UserId,
    conversation_id: ConversationId,
    now: OffsetDateTime,
) -> Result<Option<Row>, DatabaseError> {
    statement(
        sqlx::query_as!(
            Row,
            r#"select c.conversation_id, c.kind, c.version, c.last_seq, c.floor_seq, me.read_seq, me.last_read_message_id,
                   unread_count(c.last_seq, c.floor_seq, me.read_seq, me.own_runs) as "unread!",
                   array(select lower(run) from unnest(me.own_runs) as run order by run) as "own_firsts!: Vec<i64>",
                   array(select upper(run) - 1 from unnest(me.own_runs) as run order by run) as "own_lasts!: Vec<i64>",
                   coalesce(me.muted_until > $3, false) as "is_muted!",
                   nullif(me.muted_until, 'infinity') as muted_until,
                   exists (
                       select from blocks
                       where blocker_id = $1
                           and blocked_id = case $1 when c.direct_low then c.direct_high else c.direct_low end
                   ) as "is_blocked!",
                   c.last_message_at, c.created_at, c.last_activity_at, c.business_id, c.customer_id,
                   greatest(c.agent_seq, c.resolved_seq) as "business_seq!",
                   k.case_number as "case_number?", k.state as "case_state?",
                   coalesce(k.waiting_since, c.created_at) as "waiting_since!",
                   everybody.user_ids as "user_ids!", everybody.roles as "roles!", everybody.since_seqs as "since_seqs!",
                   everybody.read_seqs as "read_seqs!",
                   everybody.last_read_message_ids as "last_read_message_ids!: Vec<Option<Uuid>>"
               from conversations c
               join participants me on me.conversation_id = c.conversation_id and me.user_id = $1
               left join cases k on k.conversation_id = c.conversation_id
               cross join lateral (
                   select array_agg(user_id order by position) as user_ids, array_agg(role order by position) as roles,
                       array_agg(since_seq order by position) as since_seqs,
                       array_agg(read_seq order by position) as read_seqs,
                       array_agg(last_read_message_id order by position) as last_read_message_ids
                   from participants where conversation_id = c.conversation_id
               ) everybody
               where c.conversation_id = $2"#,
            user_id.as_uuid(),
            conversation_id.as_uuid(),
            now
        )
        .fetch_optional(connection),
    )
    .await
}

/// The cost depends on the page, not on how many conversations the user has: the index of the user's participations gives
/// those that may be in it. It may have each [`limits::LIST_LAG_MAX`] too early, and never too late. The inner look finds a
/// page's number of conversations that are surely before the cursor; those of the page are active at least as late as the
/// last of them, and so not listed more than the lag before it.
async fn select_page(
    connection: &mut PgConnection,
    user_id: UserId,
    limit: usize,
    after: Option<ListCursor>,
    now: OffsetDateTime,
) -> Result<Vec<Row>, DatabaseError> {
    statement(
        sqlx::query_as!(
            Row,
            r#"select c.conversation_id, c.kind, c.version, c.last_seq, c.floor_seq, c.read_seq, c.last_read_message_id,
                   unread_count(c.last_seq, c.floor_seq, c.read_seq, c.own_runs) as "unread!",
                   array(select lower(run) from unnest(c.own_runs) as run order by run) as "own_firsts!: Vec<i64>",
                   array(select upper(run) - 1 from unnest(c.own_runs) as run order by run) as "own_lasts!: Vec<i64>",
                   coalesce(c.muted_until > $5, false) as "is_muted!",
                   nullif(c.muted_until, 'infinity') as muted_until,
                   exists (
                       select from blocks
                       where blocker_id = $1
                           and blocked_id = case $1 when c.direct_low then c.direct_high else c.direct_low end
                   ) as "is_blocked!",
                   c.last_message_at, c.created_at, c.last_activity_at, c.business_id, c.customer_id,
                   greatest(c.agent_seq, c.resolved_seq) as "business_seq!",
                   k.case_number as "case_number?", k.state as "case_state?",
                   coalesce(k.waiting_since, c.created_at) as "waiting_since!",
                   everybody.user_ids as "user_ids!", everybody.roles as "roles!", everybody.since_seqs as "since_seqs!",
                   everybody.read_seqs as "read_seqs!",
                   everybody.last_read_message_ids as "last_read_message_ids!: Vec<Option<Uuid>>"
               from (
                   select conversations.*, me.read_seq, me.last_read_message_id, me.own_runs, me.muted_until
                   from participants me
                   join conversations using (conversation_id)
                   where me.user_id = $1
                       and me.listed_at <= coalesce($2::timestamptz, 'infinity')
                       and me.listed_at >= coalesce((
                           select listed_at from participants
                           where user_id = $1
                               and listed_at < coalesce($2::timestamptz, 'infinity') - make_interval(secs => $6)
                           order by listed_at desc
                           offset $4::bigint - 1 limit 1
                       ), '-infinity') - make_interval(secs => $6)
                       and (last_activity_at, conversation_id) < (
                           coalesce($2::timestamptz, 'infinity'),
                           coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                       )
                   order by last_activity_at desc, conversation_id desc
                   limit $4
               ) c
               left join cases k on k.conversation_id = c.conversation_id
               cross join lateral (
                   select array_agg(user_id order by position) as user_ids, array_agg(role order by position) as roles,
                       array_agg(since_seq order by position) as since_seqs,
                       array_agg(read_seq order by position) as read_seqs,
                       array_agg(last_read_message_id order by position) as last_read_message_ids
                   from participants where conversation_id = c.conversation_id
               ) everybody
               order by c.last_activity_at desc, c.conversation_id desc"#,
            user_id.as_uuid(),
            after.map(|place| OffsetDateTime::from(place.last_activity_at)),
            after.map(|place| place.conversation_id.as_uuid()),
            i64::try_from(limit).unwrap_or(i64::MAX),
            now,
            limits::LIST_LAG_MAX.as_secs_f64()
        )
        .fetch_all(connection),
    )
    .await
}
