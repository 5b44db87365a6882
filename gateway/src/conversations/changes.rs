//! Changes who takes part in a group, one change of a conversation at a time.

use chat_shared::{
    clock::Timestamp,
    delivery::Delivery,
    event::{Event, Fact, Participants, ParticipantsChanged, has_known_names},
    ids::{ConversationId, UserId},
    position::{Seq, StreamSeq},
    wire::{Conversation, ConversationKind, Participant, Role},
};
use sqlx::{Acquire, PgConnection};
use time::OffsetDateTime;

use super::{
    Conversations,
    blocks::{have_blocked, lock_pairs},
    record::{participants, user_ids},
    rules::{self, Change},
};
use crate::{
    database::{DatabaseError, bounded, statement},
    refusal::Refusal,
};

/// A conversation whose row is locked against other changes.
struct Locked {
    kind: ConversationKind,
    version: u64,
    participants: Vec<Participant>,
    /// Whether the user who changes it left it, and so takes part no more.
    has_left: bool,
}

impl Conversations {
    /// Adds users to a group; those in it already are passed over. A user who left the group adds themself.
    pub async fn add(
        &self,
        by: UserId,
        conversation_id: ConversationId,
        user_ids: &[UserId],
    ) -> Result<Conversation, Refusal> {
        if user_ids.is_empty() {
            return Err(Refusal::invalid("`user_ids` is empty; name who is to be added"));
        }
        let addition = |locked: &Locked| {
            if locked.has_left && user_ids.iter().all(|user_id| *user_id == by) {
                return rules::comeback(&locked.participants, by).map(Some);
            }
            rules::addition(locked.kind, &locked.participants, by, user_ids)
        };
        self.change(by, conversation_id, user_ids, addition).await?;
        self.get_changed(by, conversation_id).await
    }

    /// Removes a user from a group; oneself is leaving. Of a user who left, the owner so ends the right to come back.
    pub async fn remove(&self, by: UserId, conversation_id: ConversationId, user_id: UserId) -> Result<(), Refusal> {
        if by != user_id && self.bar(by, conversation_id, user_id).await? {
            return Ok(());
        }
        let removal = |locked: &Locked| rules::removal(locked.kind, &locked.participants, by, user_id).map(Some);
        self.change(by, conversation_id, &[], removal).await
    }

    /// Lets a user who left a group come back by its owner alone, if `by` is its owner. False if the user has not left it.
    async fn bar(&self, by: UserId, conversation_id: ConversationId, user_id: UserId) -> Result<bool, Refusal> {
        let mut connection = self.database.connection().await?;
        let barring = sqlx::query!(
            "update former_participants former set has_left = false
             where conversation_id = $1 and user_id = $2 and has_left and exists (
                 select from participants owner
                 where owner.conversation_id = former.conversation_id and owner.user_id = $3 and owner.role = $4
             )",
            conversation_id.as_uuid(),
            user_id.as_uuid(),
            by.as_uuid(),
            Role::Owner.as_str()
        );
        Ok(statement(barring.execute(&mut *connection)).await?.rows_affected() > 0)
    }

    /// Waits until no gateway pushes anything more of a conversation to whoever was removed from it.
    async fn tell_of_removal(&self, conversation_id: ConversationId, user_id: UserId, version: u64) {
        self.gateways.tell(&Delivery::ParticipantRemoved { conversation_id, user_id, version }).await;
    }

    /// Carries out what `decide` makes of the conversation as it stands, and tells the log. `named` are to be added.
    async fn change(
        &self,
        by: UserId,
        conversation_id: ConversationId,
        named: &[UserId],
        decide: impl FnOnce(&Locked) -> Result<Option<Change>, Refusal> + Send,
    ) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        if !named.is_empty() {
            lock_pairs(&mut transaction, by, named).await?;
        }
        let locked = lock(&mut transaction, conversation_id, by).await?;
        let Some(change) = decide(&locked)? else {
            // It was changed before, perhaps by a user of whom this one has been pushed nothing.
            drop(transaction);
            drop(connection);
            self.database.note_change(&[by.as_uuid()]).await;
            return Ok(());
        };
        if change.added.iter().any(|user_id| *user_id != by) {
            check_added(&mut transaction, conversation_id, by, &change.added).await?;
        }
        let now = self.clock.now();
        let returned = apply(&mut transaction, conversation_id, by, &change, now).await?;
        let (version, removed) = (locked.version + 1, change.removed);
        insert_change(&mut transaction, conversation_id, locked.kind, version, change, returned, now).await?;
        bounded(transaction.commit()).await?;
        drop(connection);
        self.database.note_change(&[by.as_uuid()]).await;
        self.outbox.publish(conversation_id).await;
        if let Some(user_id) = removed {
            self.tell_of_removal(conversation_id, user_id, version).await;
        }
        Ok(())
    }
}

/// Locks the conversation's row, if `by` takes part or left it, and reads its participants. They are read after the lock is
/// held: a statement that waits for a lock sees the other tables as they were before.
async fn lock(connection: &mut PgConnection, conversation_id: ConversationId, by: UserId) -> Result<Locked, Refusal> {
    let id = conversation_id.as_uuid();
    let row = statement(
        sqlx::query!(
            "select kind, version from conversations c
             where conversation_id = $1
                 and (
                     exists (select from participants p where p.conversation_id = c.conversation_id and p.user_id = $2)
                     or exists (
                         select from former_participants f
                         where f.conversation_id = c.conversation_id and f.user_id = $2 and f.has_left
                     )
                 )
             for no key update of c",
            id,
            by.as_uuid()
        )
        .fetch_optional(&mut *connection),
    )
    .await?
    .ok_or_else(Refusal::no_such_conversation)?;
    let rows = statement(
        sqlx::query!("select user_id, role from participants where conversation_id = $1 order by position", id)
            .fetch_all(&mut *connection),
    )
    .await?;
    let has_left = !rows.iter().any(|row| row.user_id == by.as_uuid())
        && have_left(&mut *connection, conversation_id, &[by]).await?;
    let (user_ids, roles): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.user_id, row.role)).unzip();
    let locked = Locked {
        kind: ConversationKind::named(&row.kind),
        version: row.version.unsigned_abs(),
        participants: participants(user_ids, &roles)?,
        has_left,
    };
    if has_known_names(locked.kind, &locked.participants) { Ok(locked) } else { Err(Refusal::later_version()) }
}

/// Refuses to add users who have blocked the one who adds, or who left the group.
async fn check_added(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    by: UserId,
    added: &[UserId],
) -> Result<(), Refusal> {
    let is_refused =
        have_blocked(connection, by, added).await? || have_left(connection, conversation_id, added).await?;
    if is_refused { Err(Refusal::not_to_be_added()) } else { Ok(()) }
}

/// Whether one of the users left the conversation.
async fn have_left(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    users: &[UserId],
) -> Result<bool, Refusal> {
    let users: Vec<_> = users.iter().map(|user_id| user_id.as_uuid()).collect();
    let looking = sqlx::query_scalar!(
        r#"select exists (
               select from former_participants where conversation_id = $1 and user_id = any($2) and has_left
           ) as "have_left!""#,
        conversation_id.as_uuid(),
        &users
    );
    Ok(statement(looking.fetch_one(connection)).await?)
}

/// Applies the change that `by` makes. Returns those of the added users who took part before.
async fn apply(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    by: UserId,
    change: &Change,
    now: Timestamp,
) -> Result<Vec<UserId>, Refusal> {
    let id = conversation_id.as_uuid();
    statement(
        sqlx::query!("update conversations set version = version + 1 where conversation_id = $1", id)
            .execute(&mut *connection),
    )
    .await?;
    if let Some(removed) = change.removed {
        // A gateway of an earlier version leaves the row of a user whom it adds.
        let earlier = sqlx::query!(
            "delete from former_participants where conversation_id = $1 and user_id = $2",
            id,
            removed.as_uuid()
        );
        statement(earlier.execute(&mut *connection)).await?;
        let removal = sqlx::query!(
            "with gone as (
                 delete from participants where conversation_id = $1 and user_id = $2
                 returning conversation_id, user_id, read_seq, last_read_message_id, own_runs
             )
             insert into former_participants
                 (conversation_id, user_id, read_seq, last_read_message_id, own_runs, has_left)
             select conversation_id, user_id, read_seq, last_read_message_id, own_runs, $3 from gone",
            id,
            removed.as_uuid(),
            removed == by
        );
        statement(removal.execute(&mut *connection)).await?;
    }
    if let Some(promoted) = change.promoted {
        let promotion = sqlx::query!(
            "update participants set role = $3 where conversation_id = $1 and user_id = $2",
            id,
            promoted.as_uuid(),
            Role::Owner.as_str()
        );
        statement(promotion.execute(&mut *connection)).await?;
    }
    let is_added = |participant: &&Participant| change.added.contains(&participant.user_id);
    let added: Vec<_> = change.participants.iter().filter(is_added).copied().collect();
    if added.is_empty() {
        return Ok(Vec::new());
    }
    insert_participants(connection, conversation_id, &added, now).await
}

/// Inserts participants in this order of joining. A user who took part before continues with the read mark; another one has
/// read all messages. The persister raises both to the number of the change in the log. Returns those who took part before.
pub async fn insert_participants(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    added: &[Participant],
    joined_at: Timestamp,
) -> Result<Vec<UserId>, Refusal> {
    let added_ids: Vec<_> = added.iter().map(|participant| participant.user_id.as_uuid()).collect();
    let roles: Vec<_> = added.iter().map(|participant| participant.role.as_str().to_owned()).collect();
    let inserted: Result<_, DatabaseError> = statement(
        sqlx::query!(
            r#"with locked as materialized (
                 select user_id from former_participants where conversation_id = $1 and user_id = any($2)
                 order by user_id for update
             ), former as (
                 delete from former_participants
                 where conversation_id = $1 and user_id in (select user_id from locked)
                 returning *
             )
             insert into participants
                 (conversation_id, user_id, role, joined_at, read_seq, last_read_message_id, own_runs, since_seq)
             select c.conversation_id, joining.user_id, joining.role, $4, coalesce(former.read_seq, c.last_seq),
                 former.last_read_message_id, coalesce(former.own_runs, '{}'), c.last_seq
             from unnest($2::uuid[], $3::text[]) with ordinality as joining (user_id, role, place)
             join conversations c on c.conversation_id = $1
             left join former on former.user_id = joining.user_id
             order by joining.place
             returning user_id, exists (select from former where former.user_id = participants.user_id) as "is_back!""#,
            conversation_id.as_uuid(),
            &added_ids,
            &roles,
            OffsetDateTime::from(joined_at)
        )
        .fetch_all(connection),
    )
    .await;
    match inserted {
        Err(error) if error.constraint() == Some("conversations_participants_max") => Err(rules::full()),
        Err(error) => Err(error.into()),
        Ok(rows) => Ok(user_ids(rows.into_iter().filter(|row| row.is_back).map(|row| row.user_id).collect())?),
    }
}

/// Leaves the change of participants in the outbox.
pub(super) async fn insert_change(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    kind: ConversationKind,
    version: u64,
    change: Change,
    returned: Vec<UserId>,
    changed_at: Timestamp,
) -> Result<(), Refusal> {
    let participants = Participants { version, list: change.participants, ..Participants::default() };
    let removed = change.removed.into_iter().collect();
    let fact = Fact::ParticipantsChanged(ParticipantsChanged { added: change.added, removed, returned, lsn: None });
    insert_outbox(connection, conversation_id, kind, participants, fact, changed_at).await
}

/// Leaves a change in the outbox. Its number, time and place in the log are filled in when it is appended.
pub async fn insert_outbox(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    kind: ConversationKind,
    participants: Participants,
    fact: Fact,
    changed_at: Timestamp,
) -> Result<(), Refusal> {
    let version = participants.version;
    let (seq, previous) = (Seq::ZERO, StreamSeq::ZERO);
    let event = Event { conversation_id, kind, seq, sent_at: changed_at, previous, participants, fact };
    let insertion = sqlx::query!(
        "insert into outbox (conversation_id, version, event, created_at) values ($1, $2, $3, $4)",
        conversation_id.as_uuid(),
        version.cast_signed(),
        event.encode(),
        OffsetDateTime::from(changed_at)
    );
    statement(insertion.execute(connection)).await?;
    Ok(())
}
