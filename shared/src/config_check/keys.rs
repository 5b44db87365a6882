//! Looks at the master key, and whether it is the one that this database's content keys are wrapped by.

use std::time::Duration;

use sqlx::PgPool;
use time::Date;
use tokio::time::timeout;

use super::Report;
use crate::{
    clock::Clock,
    sealing::{MasterKey, WrappedKey},
    settings::MasterKeySettings,
};

/// How long PostgreSQL may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Reads the master key.
pub fn master_key(report: &mut Report, settings: &MasterKeySettings) -> Option<MasterKey> {
    match settings.read() {
        Ok(key) => {
            report.ok(format_args!("master key {}", key.id()));
            Some(key)
        }
        Err(error) => {
            report.wrong(format_args!("master key: {error}"));
            None
        }
    }
}

/// Opens the latest content key, and says whether there is one for today.
pub async fn content_keys(report: &mut Report, pool: Option<&PgPool>, master_key: Option<&MasterKey>, clock: &Clock) {
    let (Some(pool), Some(master_key)) = (pool, master_key) else { return };
    let asking = sqlx::query!("select day, master_key_id, wrapped from content_keys order by day desc limit 1")
        .fetch_optional(pool);
    let row = match timeout(ANSWER_MAX, asking).await {
        Ok(Ok(row)) => row,
        Ok(Err(error)) => return report.wrong(format_args!("content keys: {error}")),
        Err(_) => return report.wrong("content keys: PostgreSQL doesn't answer"),
    };
    let Some(row) = row else {
        return report.note("content keys: there are none yet, so nothing can be sent: run `chat-retention prepare`");
    };
    let stored = row.master_key_id.clone();
    let wrapped = WrappedKey { day: row.day.into(), master_key_id: row.master_key_id, bytes: row.wrapped };
    if master_key.unwrap(&wrapped).is_err() {
        return report.wrong(format_args!(
            "content keys: they are wrapped by master key {stored}, and this one is {}; give the one that they were made with",
            master_key.id()
        ));
    }
    let last = Date::from(wrapped.day);
    if wrapped.day < clock.now().day() {
        report.note(format_args!(
            "content keys: the last is of {last}, so nothing can be sent: run `chat-retention prepare`"
        ));
    } else {
        report.ok(format_args!("content keys open with this master key, and reach to {last}"));
    }
}
