//! Closes gaps: stores entries again that a restored database may lack, and rebuilds their conversations.
//!
//! **Invariant:** a gap is shortened after its entries have been committed, so the death of a persister costs nothing but a
//! repetition. Storing what is there already changes nothing.

use std::time::Duration;

use anyhow::Context;
use chat_shared::{
    log::{Log, StoredEntry, read},
    position::StreamSeq,
};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::{
    gaps::{self, Gap},
    keep::{Fate, Keeper},
    metrics as names,
    rebuild::{Roster, rebuild},
};

/// Between two looks for gaps; also after a failure.
const INTERVAL: Duration = Duration::from_secs(2);
/// Entries of one step.
const STEP_ENTRIES: usize = 500;

/// Works on the gaps of one log.
pub struct Repair {
    /// The log.
    pub log: Log,
    /// Stores entries without moving the checkpoint.
    pub keeper: Keeper,
}

impl Repair {
    /// Works until `draining`.
    pub async fn run(mut self, draining: CancellationToken) -> anyhow::Result<()> {
        loop {
            // Cancel safe: a step that is cut off is repeated.
            match draining.run_until_cancelled(self.step()).await {
                None => return Ok(()),
                Some(Ok(true)) => continue,
                Some(Ok(false)) => {}
                Some(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "a gap can't be closed now, trying again");
                }
            }
            if draining.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Stores the next entries of a gap; whether there was one.
    pub async fn step(&mut self) -> anyhow::Result<bool> {
        // The gap stays locked while its entries are stored over other connections.
        let mut transaction = self.keeper.store.pool.begin().await?;
        let Some(mut gap) = gaps::take(&mut transaction, self.log.name()).await? else { return Ok(false) };
        let mut entries = self.log.entries(gap.next, STEP_ENTRIES).await?;
        entries.retain(|entry| entry.stream_seq <= gap.last);
        let Some(last) = entries.last() else {
            let lost = self.lost_from(gap).await?;
            gaps::give_up(&mut transaction, gap, lost).await?;
            transaction.commit().await?;
            tracing::error!(
                first = gap.next.0,
                last = lost.0,
                "the log lacks entries that PostgreSQL lacks too: they are lost, see `chat-persister accept-loss`"
            );
            return Ok(true);
        };
        let done = last.stream_seq;
        self.keeper.rows_metric = if gap.was_acked { names::REPAIRED_TOTAL } else { names::ROWS_TOTAL };
        if Box::pin(self.store(&entries)).await? > 0 {
            // Messages that were being stored meanwhile found no conversation whose head they could raise.
            gap = gaps::extend(&mut transaction, gap, self.log.state().await?.last).await?;
        }
        gaps::advance(&mut transaction, gap, done).await?;
        transaction.commit().await?;
        if done >= gap.last {
            tracing::info!(last = gap.last.0, "everything up to here that PostgreSQL lacked is stored again");
        }
        Ok(true)
    }

    /// The last position of the entries that the log lacks at the start of a gap.
    async fn lost_from(&self, gap: Gap) -> anyhow::Result<StreamSeq> {
        let next = self.log.next_position(gap.next).await?.context("the log ends before the gap")?;
        anyhow::ensure!(next > gap.next, "the replica of the log that answered lacks entries of the gap");
        Ok(gap.last.min(StreamSeq(next.0 - 1)))
    }

    /// Stores entries; how many conversations it rebuilt.
    async fn store(&self, entries: &[StoredEntry]) -> anyhow::Result<u64> {
        let events = entries.iter().filter_map(|entry| read(&entry.subject, &entry.payload).ok());
        let (rebuilt, refused) = rebuild(&self.keeper.store.pool, &Roster::newest(events)).await?;
        counter!(names::REBUILT_TOTAL).increment(rebuilt);
        counter!(names::NOT_REBUILT_TOTAL).increment(refused);
        let raw: Vec<_> = entries.iter().map(|it| (it.stream_seq, it.subject.as_str(), &it.payload[..])).collect();
        let fates = self.keeper.settle(self.log.name(), &raw).await?;
        anyhow::ensure!(!fates.values().any(|fate| *fate == Fate::Held), "entries of the gap are refused, and wait");
        Ok(rebuilt)
    }
}
