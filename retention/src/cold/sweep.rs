//! Compares the store with what is recorded: deletes objects that no row names, and reports packs that are missing.

use std::collections::HashSet;

use chat_cold::store::Store;
use chat_shared::clock::Clock;
use futures_util::TryStreamExt;
use metrics::{counter, gauge};
use sqlx::PgPool;
use time::{Date, OffsetDateTime};

use super::{ColdError, prefix, steps};
use crate::metrics::{COLD_OBJECTS_MISSING, COLD_ORPHANS_TOTAL};

/// Objects that are younger may be about to be recorded.
const ORPHAN_AGE_MIN: time::Duration = time::Duration::DAY;

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Objects that no row named, deleted.
    pub orphans: u64,
    /// Packs that the store does not have.
    pub missing: u64,
}

/// Goes through the whole store.
pub async fn sweep(pool: &PgPool, store: &Store) -> Result<Swept, ColdError> {
    sweep_at(pool, store, Clock::System.now().into()).await
}

pub(super) async fn sweep_at(pool: &PgPool, store: &Store, now: OffsetDateTime) -> Result<Swept, ColdError> {
    let before: HashSet<String> = steps::objects(pool).await?.into_iter().collect();
    let objects: Vec<_> = store.list("").try_collect().await?;
    // Recorded, or deleted with their day, since the first question.
    let after: HashSet<String> = steps::objects(pool).await?.into_iter().collect();
    let deadline = now - ORPHAN_AGE_MIN;
    let mut swept = Swept::default();
    for orphan in objects.iter().filter(|object| object.modified_at < deadline && !after.contains(&object.name)) {
        store.delete(&orphan.name).await?;
        swept.orphans += 1;
    }
    let stored: HashSet<_> = objects.iter().map(|object| &object.name).collect();
    swept.missing = before.iter().filter(|name| after.contains(*name) && !stored.contains(name)).map(|_| 1).sum();
    counter!(COLD_ORPHANS_TOTAL).increment(swept.orphans);
    gauge!(COLD_OBJECTS_MISSING).set(u32::try_from(swept.missing).unwrap_or(u32::MAX));
    if swept.orphans > 0 {
        tracing::info!(objects = swept.orphans, "objects of the store that no row named are deleted");
    }
    if swept.missing > 0 {
        tracing::error!(
            packs = swept.missing,
            "packs are missing in the object store: restore them from a copy or a version of the bucket; their messages can't be read"
        );
    }
    Ok(swept)
}

/// Deletes all objects of a day, recorded or not.
pub async fn delete_day(store: &Store, day: Date) -> Result<(), ColdError> {
    let objects: Vec<_> = store.list(&prefix(day)).try_collect().await?;
    for object in objects {
        store.delete(&object.name).await?;
    }
    Ok(())
}
