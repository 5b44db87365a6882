//! Exchanges the master key: wraps content keys and seals addresses of devices with the current one.
//!
//! Runs as the owner of the tables: no service may change a stored content key.
//!
//! **Invariant:** a row is replaced only if it is as it was read, and only by the same key or address under the current master
//! key. Each batch is committed by itself, so a run after a killed one does the rest.

mod devices;
mod keys;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::ensure;
use chat_shared::{
    clock::Day,
    command_line::say,
    sealing::{MasterKeys, SealingError},
};
use sqlx::PgPool;
use time::Date;

pub use devices::DEVICES_MAX;

/// Days named of content keys that don't open; of more there is only the number.
const DAYS_NAMED: usize = 20;
/// PostgreSQL's code for a right that is missing.
const NOT_ALLOWED: &str = "42501";

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RewrapFailed {
    /// The user in the address may not change keys and devices.
    #[error("run this as the user who owns the tables, as `chat-retention migrate`: {0}")]
    NotAllowed(#[source] sqlx::Error),
    /// A statement failed.
    #[error("PostgreSQL failed; run this again, it does the rest: {0}")]
    Database(#[source] sqlx::Error),
    /// Nothing can be sealed.
    #[error("nothing can be sealed; run this again, it does the rest: {0}")]
    Sealing(#[from] SealingError),
}

impl From<sqlx::Error> for RewrapFailed {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.is_some_and(|code| code == NOT_ALLOWED) { Self::NotAllowed(error) } else { Self::Database(error) }
    }
}

/// Rows of one kind, by their result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Under the current master key since now.
    pub anew: u64,
    /// Under it already.
    pub there: u64,
}

/// The result of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Content keys.
    pub keys: Tally,
    /// Days whose content keys don't open, each with the id of the master key that wrapped it.
    pub keys_unopened: BTreeMap<Day, String>,
    /// Addresses of devices.
    pub devices: Tally,
    /// Addresses that open with neither master key.
    pub devices_unopened: u64,
    /// Earlier registrations of an address that another device has by now.
    pub devices_removed: u64,
}

/// Goes through all content keys and through all devices, `devices_max` at a time.
pub async fn rewrap(pool: &PgPool, master_keys: &MasterKeys, devices_max: i64) -> Result<Rewrapped, RewrapFailed> {
    let mut rewrapped = Rewrapped::default();
    keys::rewrap(pool, master_keys, &mut rewrapped).await?;
    devices::reseal(pool, master_keys, devices_max, &mut rewrapped).await?;
    Ok(rewrapped)
}

impl Rewrapped {
    /// Prints the numbers, and whether the old master key can be removed; an error if a key or an address doesn't open.
    pub fn conclude(&self, master_keys: &MasterKeys) -> anyhow::Result<()> {
        let Self { keys, keys_unopened, devices, devices_unopened, devices_removed } = self;
        say(format_args!(
            "content keys: {} wrapped anew, {} were already, {} don't open",
            keys.anew,
            keys.there,
            keys_unopened.len()
        ));
        for (day, wrapped_by) in keys_unopened.iter().take(DAYS_NAMED) {
            let why = if master_keys.has(wrapped_by) {
                "the row is damaged: restore it from a backup of content_keys"
            } else {
                "give that one as CHAT_MASTER_KEY_OLD_FILE and run this again"
            };
            say(format_args!(
                "the content key of {} doesn't open; master key {wrapped_by} wrapped it: {why}",
                Date::from(*day)
            ));
        }
        say(format_args!(
            "addresses of devices: {} sealed anew, {} were already, {devices_unopened} don't open, {devices_removed} had moved \
             to another device and are removed",
            devices.anew, devices.there
        ));
        let current = master_keys.current().id();
        ensure!(
            keys_unopened.is_empty() && *devices_unopened == 0,
            "{} content keys and {devices_unopened} addresses of devices open with no master key that was given; all others \
             are under master key {current}. Read \"Exchanging the master key\" in docs/operations.md before you remove the old one",
            keys_unopened.len()
        );
        let old = master_keys.old().map_or_else(|| "any other".to_owned(), |old| format!("the old one, {},", old.id()));
        say(format_args!(
            "everything opens with master key {current} alone: {old} can be removed from all settings if every gateway, notifier \
             and retention was started with {current} before this run"
        ));
        Ok(())
    }
}
