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
    /// The right master key, but the row doesn't open.
    #[error(
        "the content key of {day} is damaged: it names this master key, but does not open with it. \
         Restore its row of content_keys from a backup; content of that day can't be read without it"
    )]
    Damaged {
        /// The day of the key.
        day: Date,
    },
}

/// Makes the missing keys of `from` to `to`, and makes sure that all of them open; how many were missing.
pub async fn make(
    pool: &PgPool,
    clock: &Clock,
    master_key: &MasterKey,
    (from, to): (Day, Day),
) -> Result<usize, KeysFailed> {
    // Before anything is made: keys of two master keys must not stand side by side.
    verify(master_key, &stored(pool, from).await?)?;
    let mut made = 0;
    for day in (from.0..=to.0).map(Day) {
        made += usize::from(make_one(pool, clock, master_key, day).await?);
    }
    // Afterwards again: another instance may have been first.
    verify(master_key, &stored(pool, from).await?)?;
    Ok(made)
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

fn verify(master_key: &MasterKey, keys: &[WrappedKey]) -> Result<(), KeysFailed> {
    for key in keys {
        if master_key.unwrap(key).is_err() {
            let day = Date::from(key.day);
            return Err(if key.master_key_id == master_key.id() {
                KeysFailed::Damaged { day }
            } else {
                KeysFailed::OtherMasterKey { day, stored: key.master_key_id.clone(), given: master_key.id().to_owned() }
            });
        }
    }
    Ok(())
}
