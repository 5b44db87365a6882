//! Removes bodies of users who are erased from packs: a pack is written anew without them, and the old one is deleted.

use std::collections::BTreeSet;

use chat_cold::pack::{Draft, Key, Pack, chunk_of, entries};
use metrics::counter;
use time::Date;

use super::{Cold, ColdError, read_equal, steps, steps::PackRow};
use crate::metrics::COLD_REWRITTEN_TOTAL;

/// Messages whose bodies go from packs together.
const ERASED_MAX: i64 = 10_000;

impl Cold {
    /// Rewrites every pack of a day that has bodies of erased users. A worker that ends between two steps leaves an object
    /// that no row names, which is swept.
    pub(super) async fn rewrite(&self, day: Date) -> Result<(), ColdError> {
        loop {
            let erased = steps::erasures(&self.pool, day, ERASED_MAX).await?;
            let Some(first) = erased.first() else { return Ok(()) };
            let found = steps::pack_of(&self.pool, day, *first).await?;
            let Some((row, last)) = found else {
                // After the end of the last pack: their bodies were never packed.
                steps::replace(&self.pool, day, self.holder, None, None, &erased).await?;
                continue;
            };
            let erased: BTreeSet<Key> = erased.into_iter().filter(|key| *key <= last).collect();
            self.rewrite_pack(day, &row, &erased).await?;
        }
    }

    async fn rewrite_pack(&self, day: Date, row: &PackRow, erased: &BTreeSet<Key>) -> Result<(), ColdError> {
        let keys: Vec<Key> = erased.iter().copied().collect();
        let (pack, dropped) = self.without(day, row, erased).await?;
        if dropped == 0 {
            // They were deleted before the pack was written, or have stayed in their rows.
            return Ok(steps::replace(&self.pool, day, self.holder, None, None, &keys).await?);
        }
        let object = match &pack {
            Some(pack) => Some(self.put(day, row.number, pack).await?),
            None => None,
        };
        let new = object.as_deref().zip(pack.as_ref());
        steps::replace(&self.pool, day, self.holder, Some(row.number), new, &keys).await?;
        self.store.delete(&row.object).await?;
        counter!(COLD_REWRITTEN_TOTAL).increment(1);
        tracing::info!(%day, number = row.number, bodies = dropped, "texts of erased users are removed from a pack");
        Ok(())
    }

    /// A pack as it is without some bodies, none if it had no others; and how many of them it had.
    pub(super) async fn without(
        &self,
        day: Date,
        row: &PackRow,
        erased: &BTreeSet<Key>,
    ) -> Result<(Option<Pack>, u64), ColdError> {
        let bytes = read_equal(&self.store, &row.object, &row.sha256).await?;
        let (mut draft, mut dropped) = (Draft::default(), 0);
        for (place, length) in steps::chunks(&self.pool, day, row.number).await? {
            for entry in entries(chunk_of(&bytes, place, length)?)? {
                if erased.contains(&entry.key) {
                    dropped += 1;
                } else {
                    draft.push(entry.key, entry.body.to_vec());
                }
            }
        }
        Ok((draft.finish(), dropped))
    }
}
