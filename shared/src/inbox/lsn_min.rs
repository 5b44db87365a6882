//! Minimum LSNs: what a replica of PostgreSQL must have replayed before lists are read from it.
//!
//! A user has one after an own change and after a push of a change, a business after each change of it.

use std::{sync::LazyLock, time::Duration};

use redis::Script;
use uuid::Uuid;

use super::{InboxError, Inboxes, bounded, millis};
use crate::position::Lsn;

/// How long a minimum counts: longer than a replica that is read from may be behind.
pub const LSN_MIN_AGE_MAX: Duration = Duration::from_mins(1);

static RAISE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/raise_lsn.lua")));

impl Inboxes {
    /// Raises the minimum of users and businesses, given by id; higher ones stay.
    pub async fn raise_lsn_min(&self, of: &[Uuid], lsn: Lsn) -> Result<(), InboxError> {
        let mut redis = self.redis.link().await?;
        let mut pipeline = redis::pipe();
        pipeline.load_script(&RAISE).ignore();
        for id in of {
            pipeline.cmd("EVALSHA").arg(RAISE.get_hash()).arg(1).arg(self.lsn_key(*id));
            pipeline.arg(text(lsn)).arg(millis(LSN_MIN_AGE_MAX)).ignore();
        }
        bounded(pipeline.query_async(&mut redis)).await
    }

    /// The highest minimum of these users and businesses, given by id; none if none has one.
    pub async fn lsn_min(&self, of: &[Uuid]) -> Result<Option<Lsn>, InboxError> {
        let mut redis = self.redis.link().await?;
        let mut pipeline = redis::pipe();
        for id in of {
            pipeline.get(self.lsn_key(*id));
        }
        let found: Vec<Option<String>> = bounded(pipeline.query_async(&mut redis)).await?;
        let mut highest = None;
        for text in found.into_iter().flatten() {
            highest = highest.max(Some(parsed(&text).ok_or_else(super::unexpected_answer)?));
        }
        Ok(highest)
    }

    pub(super) fn lsn_key(&self, id: Uuid) -> String {
        format!("{}:{{{}}}:lsn", self.redis.namespace(), id.simple())
    }
}

/// Hexadecimal, and all of one length, so that scripts compare them as texts.
pub(super) fn text(lsn: Lsn) -> String {
    format!("{:016x}", lsn.0)
}

fn parsed(text: &str) -> Option<Lsn> {
    u64::from_str_radix(text, 16).ok().map(Lsn)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_compare_as_the_numbers_do(one: u64, other: u64) {
            prop_assert_eq!(text(Lsn(one)).cmp(&text(Lsn(other))), one.cmp(&other));
            prop_assert_eq!(parsed(&text(Lsn(one))), Some(Lsn(one)));
        }
    }
}
