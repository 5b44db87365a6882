//! The statements: what is due, and the functions of the database that decide by themselves whether they may.

use std::time::Duration;

use chat_cold::pack::{Key, Pack};
use chat_shared::{
    postgres::{self, PostgresError},
    settings::PostgresSettings,
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// How long a statement may take: the copy of a day of 10 million messages takes minutes.
const STATEMENT_WAIT_MAX: Duration = Duration::from_mins(30);

/// A step of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bodies go into packs.
    Pack,
    /// Rows are copied without their bodies.
    Copy,
    /// The copy takes the partition's place.
    Swap,
    /// The rows with bodies go, a day later.
    DropWarm,
    /// Bodies of users who are erased go from packs.
    Rewrite,
    /// The packs of a day that ages out go.
    DeletePacks,
}

impl Step {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pack" => Self::Pack,
            "copy" => Self::Copy,
            "swap" => Self::Swap,
            "drop_warm" => Self::DropWarm,
            "rewrite" => Self::Rewrite,
            "delete_packs" => Self::DeletePacks,
            _ => return None,
        })
    }
}

/// A body that waits to be packed.
#[derive(Debug)]
pub struct SealedBody {
    /// Its message.
    pub key: Key,
    /// As it is stored.
    pub envelope: Vec<u8>,
}

/// A pack that is recorded.
#[derive(Debug, Clone)]
pub struct PackRow {
    /// Its number in its day, from 1.
    pub number: i32,
    /// Its name in the store.
    pub object: String,
    /// The messages in it.
    pub messages: i64,
    /// Its SHA-256.
    pub sha256: Vec<u8>,
}

/// A pool whose statements may take as long as those of this worker do.
pub fn connect(settings: &PostgresSettings, application: &str) -> Result<PgPool, PostgresError> {
    let options = postgres::options(settings)?
        .application_name(application)
        .options([("statement_timeout", STATEMENT_WAIT_MAX.as_millis().to_string())]);
    Ok(PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(3)).connect_lazy_with(options))
}

/// The steps that are due, the oldest day first. A step that a later version has added is left to it.
pub async fn due(pool: &PgPool, after_days: i32) -> sqlx::Result<Vec<(Date, Step)>> {
    let rows = sqlx::query!(r#"select day as "day!", step as "step!" from due_cold_steps($1)"#, after_days)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.day, Step::named(&row.step)?))).collect())
}

/// The step of a day that is due now.
pub async fn next(pool: &PgPool, after_days: i32, day: Date) -> sqlx::Result<Option<Step>> {
    let due = due(pool, after_days).await?;
    Ok(due.into_iter().find(|(due, _)| *due == day).map(|(_, step)| step))
}

/// Takes or renews the lease of a day; false if another worker has it.
pub async fn hold(pool: &PgPool, day: Date, holder: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select hold_cold_day($1, $2) as "holds!""#, day, holder).fetch_one(pool).await
}

/// The number of the next pack of a day, and the last message that is packed.
pub async fn resume(pool: &PgPool, day: Date) -> sqlx::Result<(i32, Option<Key>)> {
    let last = sqlx::query!(
        "select number, last_conversation_id, last_seq from cold_packs where day = $1 order by number desc limit 1",
        day
    )
    .fetch_optional(pool)
    .await?;
    Ok(last.map_or((1, None), |last| {
        (last.number + 1, Some(Key { conversation_id: last.last_conversation_id, seq: last.last_seq.unsigned_abs() }))
    }))
}

/// The next bodies of a day, in the order of packs.
pub async fn bodies(pool: &PgPool, day: Date, after: Option<Key>, rows_max: i64) -> sqlx::Result<Vec<SealedBody>> {
    let (first, last) = span(day);
    let (after_id, after_seq) = after.map_or((Uuid::nil(), 0), |key| (key.conversation_id, to_sql(key.seq)));
    let rows = sqlx::query!(
        r#"select conversation_id, seq, envelope as "envelope!" from messages
           where sent_at >= $1 and sent_at < $2 and (conversation_id, seq) > ($3, $4)
               and envelope is not null and deleted_at is null
           order by conversation_id, seq limit $5"#,
        first,
        last,
        after_id,
        after_seq,
        rows_max
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| SealedBody {
            key: Key { conversation_id: row.conversation_id, seq: row.seq.unsigned_abs() },
            envelope: row.envelope,
        })
        .collect())
}

/// Records a pack that is stored and was read back.
pub async fn record(
    pool: &PgPool,
    day: Date,
    holder: Uuid,
    number: i32,
    object: &str,
    pack: &Pack,
) -> sqlx::Result<()> {
    let chunks = Chunks::of(Some(pack));
    sqlx::query!(
        "select record_cold_pack($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        day,
        holder,
        number,
        object,
        i64::try_from(pack.bytes.len()).unwrap_or(i64::MAX),
        to_sql(pack.messages),
        pack.sha256,
        pack.last.conversation_id,
        to_sql(pack.last.seq),
        &chunks.conversations,
        &chunks.seqs,
        &chunks.places,
        &chunks.lengths
    )
    .fetch_one(pool)
    .await?;
    Ok(())
}

/// The chunks of a pack in columns.
#[derive(Default)]
struct Chunks {
    conversations: Vec<Uuid>,
    seqs: Vec<i64>,
    places: Vec<i32>,
    lengths: Vec<i32>,
}

impl Chunks {
    fn of(pack: Option<&Pack>) -> Self {
        let short = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let mut columns = Self::default();
        for chunk in pack.into_iter().flat_map(|pack| &pack.chunks) {
            columns.conversations.push(chunk.first.conversation_id);
            columns.seqs.push(to_sql(chunk.first.seq));
            columns.places.push(short(chunk.place));
            columns.lengths.push(short(chunk.length));
        }
        columns
    }
}

/// Messages of a day whose bodies have to go from packs, in the order of packs.
pub async fn erasures(pool: &PgPool, day: Date, rows_max: i64) -> sqlx::Result<Vec<Key>> {
    let rows = sqlx::query!(
        "select conversation_id, seq from cold_erasures where day = $1 order by conversation_id, seq limit $2",
        day,
        rows_max
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| Key { conversation_id: row.conversation_id, seq: row.seq.unsigned_abs() }).collect())
}

/// The pack that may have the body of a message: the first one that does not end before it.
pub async fn pack_of(pool: &PgPool, day: Date, key: Key) -> sqlx::Result<Option<(PackRow, Key)>> {
    let row = sqlx::query!(
        "select number, object, messages, sha256, last_conversation_id, last_seq from cold_packs
         where day = $1 and (last_conversation_id, last_seq) >= ($2, $3) order by number limit 1",
        day,
        key.conversation_id,
        to_sql(key.seq)
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| {
        let last = Key { conversation_id: row.last_conversation_id, seq: row.last_seq.unsigned_abs() };
        (PackRow { number: row.number, object: row.object, messages: row.messages, sha256: row.sha256 }, last)
    }))
}

/// Puts a pack without the bodies of `erased` in the place of pack `number`; without a pack it is removed. Without a number
/// no pack has the bodies of `erased`.
pub async fn replace(
    pool: &PgPool,
    day: Date,
    holder: Uuid,
    number: Option<i32>,
    new: Option<(&str, &Pack)>,
    erased: &[Key],
) -> sqlx::Result<()> {
    let (object, pack) = new.unzip();
    let chunks = Chunks::of(pack);
    let conversations: Vec<_> = erased.iter().map(|key| key.conversation_id).collect();
    let seqs: Vec<_> = erased.iter().map(|key| to_sql(key.seq)).collect();
    sqlx::query!(
        "select replace_cold_pack($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        day,
        holder,
        number,
        object,
        pack.map(|pack| i64::try_from(pack.bytes.len()).unwrap_or(i64::MAX)),
        pack.map(|pack| to_sql(pack.messages)),
        pack.map(|pack| pack.sha256.as_slice()),
        &chunks.conversations,
        &chunks.seqs,
        &chunks.places,
        &chunks.lengths,
        &conversations,
        &seqs
    )
    .fetch_one(pool)
    .await?;
    Ok(())
}

/// All bodies of the day are in packs.
pub async fn finish_packs(pool: &PgPool, day: Date, holder: Uuid) -> sqlx::Result<()> {
    sqlx::query!("select finish_cold_packs($1, $2)", day, holder).fetch_one(pool).await?;
    Ok(())
}

/// Copies the rows without their bodies; how many have none.
pub async fn copy(pool: &PgPool, day: Date, holder: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select copy_cold_day($1, $2) as "left_out!""#, day, holder).fetch_one(pool).await
}

/// Puts the copy in the partition's place.
pub async fn swap(pool: &PgPool, day: Date, holder: Uuid) -> sqlx::Result<()> {
    sqlx::query!("select swap_cold_day($1, $2)", day, holder).fetch_one(pool).await?;
    Ok(())
}

/// Drops the rows with bodies.
pub async fn drop_warm(pool: &PgPool, day: Date, holder: Uuid) -> sqlx::Result<()> {
    sqlx::query!("select drop_warm_day($1, $2)", day, holder).fetch_one(pool).await?;
    Ok(())
}

/// The packs of a day.
pub async fn packs(pool: &PgPool, day: Date) -> sqlx::Result<Vec<PackRow>> {
    sqlx::query_as!(
        PackRow,
        "select number, object, messages, sha256 from cold_packs where day = $1 order by number",
        day
    )
    .fetch_all(pool)
    .await
}

/// The chunks of a pack: their first bytes and their lengths.
pub async fn chunks(pool: &PgPool, day: Date, number: i32) -> sqlx::Result<Vec<(u32, u32)>> {
    let rows = sqlx::query!(
        "select place, length from cold_chunks where day = $1 and number = $2 order by place",
        day,
        number
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.place.unsigned_abs(), row.length.unsigned_abs())).collect())
}

/// The names of all packs.
pub async fn objects(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("select object from cold_packs").fetch_all(pool).await
}

/// Puts bodies back into rows that have none; how many.
pub async fn warm(pool: &PgPool, day: Date, bodies: &[(Key, &[u8])]) -> sqlx::Result<i64> {
    let ids: Vec<_> = bodies.iter().map(|(key, _)| key.conversation_id).collect();
    let seqs: Vec<_> = bodies.iter().map(|(key, _)| to_sql(key.seq)).collect();
    let envelopes: Vec<_> = bodies.iter().map(|(_, body)| body.to_vec()).collect();
    sqlx::query_scalar!(r#"select warm_messages($1, $2, $3, $4) as "filled!""#, day, &ids, &seqs, &envelopes)
        .fetch_one(pool)
        .await
}

/// Messages of a day whose rows have no bodies.
pub async fn without_bodies(pool: &PgPool, day: Date) -> sqlx::Result<i64> {
    let (first, last) = span(day);
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from messages
           where sent_at >= $1 and sent_at < $2 and envelope is null and deleted_at is null"#,
        first,
        last
    )
    .fetch_one(pool)
    .await
}

/// The packs of the day are deleted.
pub async fn forget_packs(pool: &PgPool, day: Date) -> sqlx::Result<()> {
    sqlx::query!("select forget_cold_packs($1)", day).fetch_one(pool).await?;
    Ok(())
}

fn span(day: Date) -> (OffsetDateTime, OffsetDateTime) {
    let midnight = day.midnight().assume_utc();
    (midnight, midnight + time::Duration::DAY)
}

fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
