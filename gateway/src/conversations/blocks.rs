//! Who wants nothing to do with whom. Of a pair that has a direct conversation each block and its end is a change of it,
//! and so reaches the log, where it fences what is sent.

use std::collections::{BTreeSet, HashSet};

use chat_shared::{
    clock::Timestamp,
    delivery::Delivery,
    event::{BlocksChanged, Fact, Participants},
    ids::{ConversationId, UserId},
    limits,
    wire::{Block, BlockList, ConversationKind, Participant, Role},
};
use sqlx::{Acquire, PgConnection};
use time::OffsetDateTime;

use super::{
    Conversations,
    changes::insert_outbox,
    record::{UnreadableRow, user_ids},
    rules,
};
use crate::{
    database::{Database, DatabaseError, bounded, statement},
    refusal::Refusal,
};

impl Conversations {
    /// Blocks a user, also one whom nobody knows. Once it returns neither can send the other anything directly.
    pub async fn block(&self, by: UserId, user_id: UserId) -> Result<(), Refusal> {
        self.change_block(by, user_id, true).await
    }

    /// Ends a block, if there is one.
    pub async fn unblock(&self, by: UserId, user_id: UserId) -> Result<(), Refusal> {
        self.change_block(by, user_id, false).await
    }

    /// Whom a user has blocked, the latest first.
    pub async fn blocks(&self, user_id: UserId) -> Result<BlockList, Refusal> {
        let mut connection = self.database.connection().await?;
        let listing = sqlx::query!(
            "select blocked_id, created_at from blocks where blocker_id = $1 order by created_at desc, blocked_id limit $2",
            user_id.as_uuid(),
            i64::try_from(limits::BLOCKS_MAX).unwrap_or(i64::MAX)
        );
        let rows = statement(listing.fetch_all(&mut *connection)).await?;
        let block =
            |row: (uuid::Uuid, OffsetDateTime)| Ok(Block { user_id: row.0.try_into()?, blocked_at: row.1.into() });
        let blocks = rows.into_iter().map(|row| block((row.blocked_id, row.created_at)));
        Ok(BlockList { blocks: blocks.collect::<Result<_, UnreadableRow>>()? })
    }

    async fn change_block(&self, by: UserId, user_id: UserId, is_blocked: bool) -> Result<(), Refusal> {
        let pair = rules::pair(by, user_id).map_err(|_| Refusal::invalid("`user_id` is yourself"))?;
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        lock(&mut transaction, [by.as_uuid()]).await?;
        lock_pair(&mut transaction, pair).await?;
        let now = self.clock.now();
        let has_changed = if is_blocked {
            insert(&mut transaction, by, user_id, now).await?
        } else {
            delete(&mut transaction, by, user_id).await?
        };
        let conversation_id = direct_of(&mut transaction, pair).await?;
        if let Some(conversation_id) = conversation_id.filter(|_| has_changed) {
            leave_in_outbox(&mut transaction, conversation_id, pair, by, now).await?;
        }
        bounded(transaction.commit()).await?;
        drop(connection);
        self.database.note_change(&[by.as_uuid()]).await;
        // Also if nothing has changed: whoever changed it may have died before anybody was told.
        if let Some(conversation_id) = conversation_id {
            self.outbox.publish(conversation_id).await;
        }
        self.gateways.tell(&Delivery::BlocksChanged { pair: [by, user_id], conversation_id }).await;
        Ok(())
    }
}

/// Waits for whoever makes the pair's conversation or changes their blocks, until the transaction ends: a conversation and
/// a block that are made at the same time see each other.
pub(super) async fn lock_pair(connection: &mut PgConnection, pair: [UserId; 2]) -> Result<(), Refusal> {
    lock(connection, pair.map(UserId::as_uuid)).await
}

/// A lock that stands for these ids. Others may happen to share it; they wait for each other and no more. Whoever takes that
/// of a user and that of a pair takes them in this order.
async fn lock<const N: usize>(connection: &mut PgConnection, ids: [uuid::Uuid; N]) -> Result<(), Refusal> {
    let locking = sqlx::query!("select pg_advisory_xact_lock($1)", lock_key(ids));
    statement(locking.execute(connection)).await?;
    Ok(())
}

/// The key of the lock of these ids, whatever their order.
fn lock_key<const N: usize>(ids: [uuid::Uuid; N]) -> i64 {
    let mix = |key, (high, low): (u64, u64)| key ^ high.rotate_left(1) ^ low;
    ids.iter().map(uuid::Uuid::as_u64_pair).fold(0, mix).cast_signed()
}

/// Lets blocks between `by` and each of the users wait until the transaction ends. Taken before the row of a conversation:
/// a block takes such a row after its lock.
pub(super) async fn lock_pairs(connection: &mut PgConnection, by: UserId, user_ids: &[UserId]) -> Result<(), Refusal> {
    let others = user_ids.iter().filter(|user_id| **user_id != by);
    let keys: BTreeSet<_> = others.map(|user_id| lock_key([by, *user_id].map(UserId::as_uuid))).collect();
    // Of more than can be in a group none is added. All transactions take the locks in the same order.
    let keys: Vec<_> = keys.into_iter().take(limits::GROUP_PARTICIPANTS_MAX).collect();
    let locking = sqlx::query!("select pg_advisory_xact_lock(key) from unnest($1::bigint[]) as key", &keys);
    statement(locking.execute(connection)).await?;
    Ok(())
}

/// Whether one of the users has blocked `by`.
pub(super) async fn have_blocked(
    connection: &mut PgConnection,
    by: UserId,
    user_ids: &[UserId],
) -> Result<bool, Refusal> {
    let user_ids: Vec<_> = user_ids.iter().map(|user_id| user_id.as_uuid()).collect();
    let finding = sqlx::query_scalar!(
        r#"select exists (select from blocks where blocked_id = $1 and blocker_id = any($2)) as "is_blocked!""#,
        by.as_uuid(),
        &user_ids
    );
    Ok(statement(finding.fetch_one(connection)).await?)
}

/// Those of the pairs of whom one has blocked the other.
pub async fn blocked_among(database: &Database, pairs: &[[UserId; 2]]) -> Result<HashSet<[UserId; 2]>, DatabaseError> {
    let (ones, others): (Vec<_>, Vec<_>) = pairs.iter().map(|[one, other]| (one.as_uuid(), other.as_uuid())).unzip();
    let mut connection = database.connection().await?;
    // Nobody's request, and not counted as such.
    let found = bounded(
        sqlx::query_scalar!(
            r#"select place as "place!"
               from unnest($1::uuid[], $2::uuid[]) with ordinality as pair (one, other, place)
               where exists (
                   select from blocks where (blocker_id, blocked_id) in ((one, other), (other, one))
               )"#,
            &ones,
            &others
        )
        .fetch_all(&mut *connection),
    )
    .await?;
    let pair = |place: i64| pairs.get(usize::try_from(place).ok()?.checked_sub(1)?).copied();
    Ok(found.into_iter().filter_map(pair).collect())
}

/// Who of the two has blocked the other.
pub(super) async fn blocked_by(connection: &mut PgConnection, pair: [UserId; 2]) -> Result<Vec<UserId>, Refusal> {
    let [low, high] = pair.map(UserId::as_uuid);
    let blockers = statement(
        sqlx::query_scalar!(
            "select blocker_id from blocks
             where (blocker_id = $1 and blocked_id = $2) or (blocker_id = $2 and blocked_id = $1)",
            low,
            high
        )
        .fetch_all(connection),
    )
    .await?;
    Ok(user_ids(blockers)?)
}

/// The direct conversation of a pair.
pub(super) async fn direct_of(
    connection: &mut PgConnection,
    pair: [UserId; 2],
) -> Result<Option<ConversationId>, Refusal> {
    let [low, high] = pair.map(UserId::as_uuid);
    let found = statement(
        sqlx::query_scalar!(
            "select conversation_id from conversations where direct_low = $1 and direct_high = $2",
            low,
            high
        )
        .fetch_optional(connection),
    )
    .await?;
    Ok(found.map(ConversationId::try_from).transpose().map_err(UnreadableRow::from)?)
}

/// False if the block is there already.
async fn insert(connection: &mut PgConnection, by: UserId, user_id: UserId, now: Timestamp) -> Result<bool, Refusal> {
    let inserted = statement(
        sqlx::query!(
            "insert into blocks (blocker_id, blocked_id, created_at) values ($1, $2, $3) on conflict do nothing",
            by.as_uuid(),
            user_id.as_uuid(),
            OffsetDateTime::from(now)
        )
        .execute(&mut *connection),
    )
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let counting =
        sqlx::query_scalar!(r#"select count(*) as "count!" from blocks where blocker_id = $1"#, by.as_uuid());
    let count = statement(counting.fetch_one(connection)).await?;
    if usize::try_from(count).is_ok_and(|count| count <= limits::BLOCKS_MAX) {
        return Ok(true);
    }
    Err(Refusal::conflict(format!("you have blocked {} users, which is as many as may be", limits::BLOCKS_MAX)))
}

/// False if there was none.
async fn delete(connection: &mut PgConnection, by: UserId, user_id: UserId) -> Result<bool, Refusal> {
    let deletion =
        sqlx::query!("delete from blocks where blocker_id = $1 and blocked_id = $2", by.as_uuid(), user_id.as_uuid());
    Ok(statement(deletion.execute(connection)).await?.rows_affected() > 0)
}

async fn leave_in_outbox(
    connection: &mut PgConnection,
    conversation_id: ConversationId,
    pair: [UserId; 2],
    by: UserId,
    now: Timestamp,
) -> Result<(), Refusal> {
    let raising = sqlx::query_scalar!(
        "update conversations set version = version + 1 where conversation_id = $1 returning version",
        conversation_id.as_uuid()
    );
    let version = statement(raising.fetch_one(&mut *connection)).await?.unsigned_abs();
    let reading = sqlx::query_scalar!(
        "select user_id from participants where conversation_id = $1 order by position",
        conversation_id.as_uuid()
    );
    let members = user_ids(statement(reading.fetch_all(&mut *connection)).await?)?;
    let list = members.into_iter().map(|user_id| Participant { user_id, role: Role::Member }).collect();
    let blocked_by = blocked_by(connection, pair).await?;
    let participants = Participants { version, list, blocked_by, business: None };
    let fact = Fact::BlocksChanged(BlocksChanged { user_id: by, lsn: None });
    insert_outbox(connection, conversation_id, ConversationKind::Direct, participants, fact, now).await
}
