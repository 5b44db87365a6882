//! The content keys.

use chat_shared::sealing::{MasterKeys, SealingError, WrappedKey};
use sqlx::PgPool;
use time::Date;

use super::{RewrapFailed, Rewrapped};

/// Content keys of one statement.
const KEYS_MAX: i64 = 100;

/// Wraps all content keys with the current master key.
pub(super) async fn rewrap(
    pool: &PgPool,
    master_keys: &MasterKeys,
    rewrapped: &mut Rewrapped,
) -> Result<(), RewrapFailed> {
    let mut after: Option<Date> = None;
    loop {
        let rows = sqlx::query!(
            "select day, master_key_id, wrapped from content_keys where $1::date is null or day > $1 order by day limit $2",
            after,
            KEYS_MAX,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.day);
        let (mut days, mut before, mut anew) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let stored = WrappedKey { day: row.day.into(), master_key_id: row.master_key_id, bytes: row.wrapped };
            match master_keys.rewrap(&stored) {
                Ok(None) => rewrapped.keys.there += 1,
                Ok(Some(key)) => {
                    days.push(row.day);
                    before.push(stored.bytes);
                    anew.push(key.bytes);
                }
                Err(SealingError::NoRandomness) => return Err(SealingError::NoRandomness.into()),
                Err(SealingError::Refused | SealingError::Malformed) => {
                    rewrapped.keys_unopened.insert(stored.day, stored.master_key_id);
                }
            }
        }
        // Only rows that are as they were read: another run may have replaced them.
        let stored = sqlx::query!(
            "update content_keys set master_key_id = $1, wrapped = anew.wrapped
             from unnest($2::date[], $3::bytea[], $4::bytea[]) as anew (day, before, wrapped)
             where content_keys.day = anew.day and content_keys.wrapped = anew.before",
            master_keys.current().id(),
            &days,
            &before,
            &anew,
        )
        .execute(pool)
        .await?;
        rewrapped.keys.anew += stored.rows_affected();
    }
}
