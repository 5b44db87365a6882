//! The table of content keys, as its owner reads and fills it for days of the past.

use anyhow::Result;
use chat_shared::{
    clock::{Clock, Day},
    sealing::WrappedKey,
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use crate::copy::{Rows, copy};

/// All keys.
pub async fn stored(database: &mut PgConnection) -> Result<Vec<WrappedKey>> {
    let question = "select day - date '1970-01-01', master_key_id, wrapped from content_keys";
    let key = |row: &PgRow| {
        Ok(WrappedKey { day: Day(row.try_get(0)?), master_key_id: row.try_get(1)?, bytes: row.try_get(2)? })
    };
    sqlx::raw_sql(question).fetch_all(database).await?.iter().map(key).collect()
}

/// Adds keys of days that have none.
pub async fn store(database: &mut PgConnection, keys: impl Iterator<Item = &WrappedKey>) -> Result<()> {
    let (mut rows, now) = (Rows::new(), Clock::System.now());
    for WrappedKey { day, master_key_id, bytes } in keys {
        rows.row(4).date(*day).bytes(master_key_id.as_bytes()).bytes(bytes).time(now);
    }
    copy(database, "content_keys (day, master_key_id, wrapped, created_at)", rows).await
}
