//! The content keys: one a day, wrapped by the master key, stored before the day begins.
//!
//! **Invariant:** a key that is stored is never overwritten, because what it sealed would be lost. Only [`crate::rewrap`]
//! replaces a row, by the same key under another master key.

use chat_shared::{
    clock::{Clock, Day},
    sealing::{MasterKeys, SealingError, WrappedKey},
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
        "no content key opens: that of {day} is wrapped by master key {stored}, but this service was given {given}. \
         Give it the one that made them (CHAT_MASTER_KEY or CHAT_MASTER_KEY_FILE, or CHAT_MASTER_KEY_OLD_FILE while it is \
         exchanged), the same as the gateways'; nothing was changed"
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
    /// Stored keys that don't open.
    pub unopened: usize,
}

/// Makes the missing keys of `from` to `to`. Stored ones that don't open are told of, and cost their own days only.
pub async fn make(
    pool: &PgPool,
    clock: &Clock,
    master_keys: &MasterKeys,
    (from, to): (Day, Day),
) -> Result<Keys, KeysFailed> {
    // Before anything is made: an instance with a wrong master key must make no key.
    verify(master_keys, &stored(pool, from).await?)?;
    let mut made = 0;
    for day in (from.0..=to.0).map(Day) {
        made += usize::from(make_one(pool, clock, master_keys, day).await?);
    }
    // Afterwards again: another instance may have been first.
    let keys = stored(pool, from).await?;
    let unopened = verify(master_keys, &keys)?;
    for key in &unopened {
        let remedy = if master_keys.has(&key.master_key_id) {
            "it is damaged: restore its row of content_keys from a backup"
        } else {
            "another master key wrapped it: run `chat-retention rewrap` with that one as CHAT_MASTER_KEY_OLD_FILE"
        };
        tracing::error!(
            day = %Date::from(key.day),
            wrapped_by = key.master_key_id,
            remedy,
            "a content key doesn't open; content of that day can't be read without it, and on that day nothing be sent"
        );
    }
    Ok(Keys { made, unopened: unopened.len() })
}

async fn make_one(pool: &PgPool, clock: &Clock, master_keys: &MasterKeys, day: Day) -> Result<bool, KeysFailed> {
    let key = master_keys.current().generate(day).map_err(KeysFailed::Generating)?;
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

/// The keys that don't open; an error if none does and another master key has wrapped any.
fn verify<'a>(master_keys: &MasterKeys, keys: &'a [WrappedKey]) -> Result<Vec<&'a WrappedKey>, KeysFailed> {
    let unopened: Vec<_> = keys.iter().filter(|key| master_keys.unwrap(key).is_err()).collect();
    let other = unopened.iter().find(|key| !master_keys.has(&key.master_key_id));
    match other {
        Some(key) if unopened.len() == keys.len() => {
            let (stored, given) = (key.master_key_id.clone(), master_keys.current().id().to_owned());
            Err(KeysFailed::OtherMasterKey { day: key.day.into(), stored, given })
        }
        _ => Ok(unopened),
    }
}
