//! The content keys: one a day, wrapped by the master key, stored before the day begins.
//!
//! **Invariant:** a key that is stored is never overwritten, because what it sealed would be lost.

use chat_shared::{
    clock::{Clock, Day},
    sealing::{MasterKey, SealingError, WrappedKey},
};
use sqlx::PgPool;
use time::{Date, OffsetDateTime};

/// Why the content keys can't be made.
#[derive(Debug, thiserror::Error)]
pub enum KeysFailed {
    /// A statement failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No key can be generated.
    #[error("a content key can't be generated: {0}")]
    Generating(#[source] SealingError),
    /// The stored keys belong to another master key.
    #[error(
        "the content key of {day} is wrapped by master key {stored}, but this service was given {given}. \
         Give it the one that made them (CHAT_MASTER_KEY or CHAT_MASTER_KEY_FILE), the same as the gateways'; nothing was \
         changed"
    )]
    OtherMasterKey {
        /// The day of the key.
        day: Date,
        /// Which master key wrapped it.
        stored: String,
        /// Which master key this process has.
        given: String,
    },
}

/// The keys after they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Keys that were missing.
    pub made: usize,
    /// Stored keys that name this master key and don't open with it.
    pub damaged: usize,
}

/// Makes the missing keys of `from` to `to`. Stored ones that don't open are told of, and cost their own days only.
pub async fn make(
    pool: &PgPool,
    clock: &Clock,
    master_key: &MasterKey,
    (from, to): (Day, Day),
) -> Result<Keys, KeysFailed> {
    // Before anything is made: keys of two master keys must not stand side by side.
    verify(master_key, &stored(pool, from).await?)?;
    let mut made = 0;
    for day in (from.0..=to.0).map(Day) {
        made += usize::from(make_one(pool, clock, master_key, day).await?);
    }
    // Afterwards again: another instance may have been first.
    let damaged = verify(master_key, &stored(pool, from).await?)?;
    for day in &damaged {
        tracing::error!(
            day = %Date::from(*day),
            "a content key is damaged: it names this master key, but doesn't open with it. Restore its row of content_keys \
             from a backup; content of that day can't be read without it, and on that day nothing be sent"
        );
    }
    Ok(Keys { made, damaged: damaged.len() })
}

async fn make_one(pool: &PgPool, clock: &Clock, master_key: &MasterKey, day: Day) -> Result<bool, KeysFailed> {
    let key = master_key.generate(day).map_err(KeysFailed::Generating)?;
    let made = sqlx::query!(
        "insert into content_keys (day, master_key_id, wrapped, created_at) values ($1, $2, $3, $4)
         on conflict do nothing",
        Date::from(day),
        key.master_key_id,
        key.bytes,
        OffsetDateTime::from(clock.now()),
    )
    .execute(pool)
    .await?;
    Ok(made.rows_affected() > 0)
}

/// The keys from `from` on, or at least the latest one there is.
async fn stored(pool: &PgPool, from: Day) -> sqlx::Result<Vec<WrappedKey>> {
    let rows = sqlx::query!(
        "select day, master_key_id, wrapped from content_keys
         where day >= least($1, (select max(day) from content_keys))
         order by day",
        Date::from(from),
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| WrappedKey { day: row.day.into(), master_key_id: row.master_key_id, bytes: row.wrapped })
        .collect())
}

/// The days of damaged keys; an error if another master key has wrapped any.
fn verify(master_key: &MasterKey, keys: &[WrappedKey]) -> Result<Vec<Day>, KeysFailed> {
    let unopened = || keys.iter().filter(|key| master_key.unwrap(key).is_err());
    if let Some(key) = unopened().find(|key| key.master_key_id != master_key.id()) {
        let (stored, given) = (key.master_key_id.clone(), master_key.id().to_owned());
        return Err(KeysFailed::OtherMasterKey { day: key.day.into(), stored, given });
    }
    Ok(unopened().map(|key| key.day).collect())
}
