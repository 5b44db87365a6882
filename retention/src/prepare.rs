//! One preparation: every partition and key that the coming days need is there afterwards.

use chat_shared::{
    clock::{Clock, Day},
    sealing::MasterKeys,
};
use sqlx::PgPool;

use crate::{
    keys::{self, KeysFailed},
    partitions,
};

/// Yesterday is prepared too: a message accepted before midnight is stored after it.
const DAYS_BACK: i32 = 1;
/// Retention may be down for this long before a day begins without its partition.
pub const PARTITION_DAYS_AHEAD: i32 = 14;
/// Retention may be down for this long before nothing can be sent, because no key seals it. No shorter than for
/// partitions, which persisters can make themselves.
pub const KEY_DAYS_AHEAD: i32 = PARTITION_DAYS_AHEAD;

/// What one preparation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// The day it was made on.
    pub today: Day,
    /// Partitions that were missing.
    pub partitions_made: usize,
    /// Keys that were missing.
    pub keys_made: usize,
    /// Keys that don't open, each of which costs its day.
    pub keys_unopened: usize,
}

/// Why a preparation failed.
#[derive(Debug, thiserror::Error)]
pub enum PreparationFailed {
    /// A partition can't be made.
    #[error("a partition of messages can't be made: {0}")]
    Partitions(#[from] sqlx::Error),
    /// A key can't be made.
    #[error(transparent)]
    Keys(#[from] KeysFailed),
}

impl PreparationFailed {
    /// Whether trying again may help, without anybody doing something about it.
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::Keys(KeysFailed::OtherMasterKey { .. }))
    }
}

impl Prepared {
    /// The last day that has its partition.
    pub const fn partitions_until(self) -> Day {
        self.today.plus(PARTITION_DAYS_AHEAD)
    }

    /// The last day that has its key.
    pub const fn keys_until(self) -> Day {
        self.today.plus(KEY_DAYS_AHEAD)
    }
}

/// Makes what is missing. Harmless when repeated or run twice at once.
pub async fn prepare(pool: &PgPool, clock: &Clock, master_keys: &MasterKeys) -> Result<Prepared, PreparationFailed> {
    let today = clock.now().day();
    let days = (today.plus(-DAYS_BACK).0..=today.plus(PARTITION_DAYS_AHEAD).0).map(Day);
    let partitions_made = partitions::make(pool, days).await?;
    let keys = keys::make(pool, clock, master_keys, (today.plus(-DAYS_BACK), today.plus(KEY_DAYS_AHEAD))).await?;
    Ok(Prepared { today, partitions_made, keys_made: keys.made, keys_unopened: keys.unopened })
}
