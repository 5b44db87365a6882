//! Looks at the master key, and whether it is the one that this database's content keys are wrapped by.

use std::time::Duration;

use sqlx::PgPool;
use time::Date;
use tokio::time::timeout;

use super::Report;
use crate::{
    clock::{Clock, Day},
    sealing::{MasterKeys, WrappedKey},
    settings::MasterKeySettings,
};

/// How long PostgreSQL may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Reads the master key, and the old one if it is given.
pub fn master_key(report: &mut Report, settings: &MasterKeySettings) -> Option<MasterKeys> {
    match settings.read() {
        Ok(keys) => {
            report.ok(format_args!("master key {}", keys.current().id()));
            if let Some(old) = keys.old() {
                report.note(format_args!(
                    "master key {} is the old one, which only opens: remove it when `chat-retention rewrap` reports that it is not needed",
                    old.id()
                ));
            }
            Some(keys)
        }
        Err(error) => {
            report.wrong(format_args!("master key: {error}"));
            None
        }
    }
}

/// Opens the content keys, and says whether there is one for today.
pub async fn content_keys(report: &mut Report, pool: Option<&PgPool>, master_keys: Option<&MasterKeys>, clock: &Clock) {
    let (Some(pool), Some(master_keys)) = (pool, master_keys) else { return };
    let asking = sqlx::query!("select day, master_key_id, wrapped from content_keys").fetch_all(pool);
    let rows = match timeout(ANSWER_MAX, asking).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return report.wrong(format_args!("content keys: {error}")),
        Err(_) => return report.wrong("content keys: PostgreSQL doesn't answer"),
    };
    let Some(last) = rows.iter().map(|row| Day::from(row.day)).max() else {
        return report.note("content keys: there are none yet, so nothing can be sent: run `chat-retention prepare`");
    };
    let keys = rows.into_iter().map(|row| WrappedKey {
        day: row.day.into(),
        master_key_id: row.master_key_id,
        bytes: row.wrapped,
    });
    let unopened: Vec<_> = keys.filter(|key| master_keys.unwrap(key).is_err()).collect();
    if let Some(other) = unopened.iter().find(|key| !master_keys.has(&key.master_key_id)) {
        return report.wrong(format_args!(
            "content keys: they are wrapped by master key {}, and this one is {}: {} don't open, such as that of {}; give the \
             one that they were made with",
            other.master_key_id,
            master_keys.current().id(),
            unopened.len(),
            Date::from(other.day)
        ));
    }
    if let Some(damaged) = unopened.first() {
        return report.wrong(format_args!(
            "content keys: {} are damaged, such as that of {}: restore those rows of content_keys from a backup; messages of \
             their days can't be read without",
            unopened.len(),
            Date::from(damaged.day)
        ));
    }
    if last < clock.now().day() {
        report.note(format_args!(
            "content keys: the last is of {}, so nothing can be sent: run `chat-retention prepare`",
            Date::from(last)
        ));
    } else {
        report.ok(format_args!("content keys open with this master key, and reach to {}", Date::from(last)));
    }
}
