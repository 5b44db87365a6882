//! The conversations that a user takes part in, or took part in, in the order of their ids: for the export of the user's data.

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    position::Seq,
    wire::{ConversationKind, Mute, MuteFields, Role},
};
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Conversations,
    record::{UnreadableRow, customer, stored_id, user_ids},
};
use crate::{database::statement, refusal::Refusal};

/// A conversation of an export.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedConversation {
    /// Its id.
    pub conversation_id: ConversationId,
    /// Its kind.
    pub kind: ConversationKind,
    /// False for a group that the user left or was removed from.
    pub is_participant: bool,
    /// The user's role. Absent without `is_participant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub role: Option<Role>,
    /// When the user joined, in milliseconds since 1970. Absent without `is_participant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub joined_at: Option<Timestamp>,
    /// When it was made, in milliseconds since 1970.
    pub created_at: Timestamp,
    /// The business, if it is a conversation with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub business_id: Option<BusinessId>,
    /// The other participants now; for a customer the business instead of its agents. Empty without `is_participant`.
    pub participants: Vec<UserId>,
    /// The number up to which the user has read.
    pub read_seq: Seq,
    /// The last message that the user has read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_read_message_id: Option<MessageId>,
    /// How long it is muted. Absent if it isn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MuteFields>, nullable = false)]
    pub mute: Option<Mute>,
}

/// A row of the statement.
struct Row {
    conversation_id: Uuid,
    kind: String,
    role: Option<String>,
    joined_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    business_id: Option<Uuid>,
    customer_id: Option<Uuid>,
    others: Vec<Uuid>,
    read_seq: i64,
    last_read_message_id: Option<Uuid>,
    is_muted: bool,
    muted_until: Option<OffsetDateTime>,
}

impl Row {
    fn exported(self, user_id: UserId) -> Result<ExportedConversation, UnreadableRow> {
        let customer = customer(self.business_id, self.customer_id).filter(|customer| customer.is_of(user_id));
        let is_participant = self.role.is_some();
        let participants = match customer {
            _ if !is_participant => Vec::new(),
            Some(customer) => vec![customer.business_id().into()],
            None => user_ids(self.others)?,
        };
        Ok(ExportedConversation {
            conversation_id: stored_id(self.conversation_id)?,
            kind: ConversationKind::named(&self.kind),
            is_participant,
            role: self.role.as_deref().map(Role::named),
            joined_at: self.joined_at.map(Timestamp::from),
            created_at: self.created_at.into(),
            business_id: self.business_id.map(stored_id).transpose()?,
            participants,
            read_seq: Seq::from_sql(self.read_seq),
            last_read_message_id: self.last_read_message_id.map(stored_id).transpose()?,
            mute: self.is_muted.then(|| self.muted_until.map_or(Mute::ForGood, |until| Mute::Until(until.into()))),
        })
    }
}

impl Conversations {
    /// Conversations from an id on, ascending, at most `limit` of them.
    pub async fn memberships(
        &self,
        user_id: UserId,
        from: Uuid,
        limit: usize,
    ) -> Result<Vec<ExportedConversation>, Refusal> {
        let now = self.clock.now().into();
        let on_replica = match self.database.lend(&[user_id.as_uuid()]).await {
            Some((mut connection, lent)) => lent.read(select(&mut connection, user_id, from, limit, now)).await,
            None => None,
        };
        match on_replica {
            Some(memberships) => Ok(memberships),
            None => select(&mut *self.database.connection().await?, user_id, from, limit, now).await,
        }
    }
}

/// The user's rows are read before they are put in order, so that no plan walks through those of all users.
async fn select(
    connection: &mut PgConnection,
    user_id: UserId,
    from: Uuid,
    limit: usize,
    now: OffsetDateTime,
) -> Result<Vec<ExportedConversation>, Refusal> {
    let rows = statement(
        sqlx::query_as!(
            Row,
            r#"with mine as materialized (
                   select conversation_id, role, joined_at, read_seq, last_read_message_id, muted_until
                   from participants where user_id = $1
                   union all
                   select f.conversation_id, null, null, f.read_seq, f.last_read_message_id, null
                   from former_participants f
                   where f.user_id = $1 and not exists (
                       select from participants p where p.conversation_id = f.conversation_id and p.user_id = $1
                   )
               )
               select c.conversation_id, c.kind, mine.role, mine.joined_at, c.created_at, c.business_id, c.customer_id,
                   array(
                       select user_id from participants p
                       where p.conversation_id = c.conversation_id and p.user_id <> $1 order by position
                   ) as "others!",
                   mine.read_seq as "read_seq!", mine.last_read_message_id,
                   coalesce(mine.muted_until > $4, false) as "is_muted!",
                   nullif(mine.muted_until, 'infinity') as muted_until
               from (select * from mine where conversation_id >= $2 order by conversation_id limit $3) mine
               join conversations c using (conversation_id)
               order by c.conversation_id"#,
            user_id.as_uuid(),
            from,
            i64::try_from(limit).unwrap_or(i64::MAX),
            now
        )
        .fetch_all(connection),
    )
    .await?;
    rows.into_iter().map(|row| Ok(row.exported(user_id)?)).collect()
}
