//! The loop: takes a batch from the log, stores it, and only then settles its entries.
//!
//! **Invariant:** an entry is settled after the transaction that stored it, or buried it, has been committed.

use std::{collections::HashMap, time::Duration};

use chat_shared::{
    log::{Consumer, ConsumerSpec, Entry, Outcome, STORING_CONSUMER},
    position::StreamSeq,
};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::keep::{Fate, GaveUp, Keeper};

/// Entries of one transaction.
const BATCH_MAX: usize = 500;
/// How long a small batch waits for more entries. Nobody waits for the persister, since history takes from the log what
/// isn't stored yet, and a transaction costs the same for one message and for many: so there are ten in a second, however
/// little comes (R11.5). A batch that is full waits for nothing.
const GATHER_MAX: Duration = Duration::from_millis(100);
/// Unsettled entries of all instances together.
const ACK_PENDING_MAX: i64 = 20_000;
/// Entries of an instance that died are delivered to another one after this long.
const ACK_WAIT: Duration = Duration::from_secs(15);
/// How often entries in hand ask for more time; a few times within `ACK_WAIT`.
const EXTEND_INTERVAL: Duration = Duration::from_secs(5);
/// After so many extensions another instance gets the entries too: it may reach the database when this one can't.
const EXTENSIONS_MAX: u32 = 12;
/// When an entry is tried again that could neither be stored nor set aside; doubles with each delivery.
const STUCK_DELAY_MIN: Duration = Duration::from_secs(1);
const STUCK_DELAY_MAX: Duration = Duration::from_mins(1);

/// The name of the durable consumer that all instances share.
pub const CONSUMER: &str = STORING_CONSUMER;

/// The durable consumer that all instances share.
pub fn consumer_spec() -> ConsumerSpec {
    ConsumerSpec {
        name: CONSUMER.to_owned(),
        slots: Vec::new(),
        is_pinned: false,
        batch_max: BATCH_MAX,
        gather_max: GATHER_MAX,
        ack_pending_max: ACK_PENDING_MAX,
        ack_wait: ACK_WAIT,
    }
}

/// Moves entries from the log to the database.
pub struct Worker {
    /// Where they come from.
    pub consumer: Consumer,
    /// The stream's name, which tells dead letters of different streams apart.
    pub stream_name: String,
    /// Where they go.
    pub keeper: Keeper,
}

impl Worker {
    /// Works until `draining`, and finishes the batch in hand if the database lets it.
    pub async fn run(mut self, draining: CancellationToken) {
        // Cancel safe: what was delivered but not returned is delivered again.
        while let Some(entries) = draining.run_until_cancelled(self.consumer.batch()).await {
            match while_extending(&entries, Box::pin(self.store(&entries))).await {
                Ok(outcomes) => settle(&entries, &outcomes).await,
                Err(error) => {
                    tracing::warn!(%error, entries = entries.len(), "stopping with a batch in hand; it is delivered again");
                    break;
                }
            }
        }
        self.consumer.release().await;
    }

    /// Stores `entries`; those that aren't simply done, with what becomes of them.
    async fn store(&self, entries: &[Entry]) -> Result<HashMap<StreamSeq, Outcome>, GaveUp> {
        let raw: Vec<_> = entries.iter().map(|it| (it.stream_seq, it.subject(), &it.payload()[..])).collect();
        let fates = self.keeper.settle(&self.stream_name, &raw).await?;
        let outcome = |entry: &Entry| match fates.get(&entry.stream_seq)? {
            Fate::Buried => Some((entry.stream_seq, Outcome::Discard)),
            Fate::Held => Some((entry.stream_seq, Outcome::RetryAfter(stuck_delay(entry.deliveries)))),
        };
        Ok(entries.iter().filter_map(outcome).collect())
    }
}

fn stuck_delay(deliveries: u64) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    STUCK_DELAY_MIN.saturating_mul(1 << doublings).min(STUCK_DELAY_MAX)
}

async fn settle(entries: &[Entry], outcomes: &HashMap<StreamSeq, Outcome>) {
    for entry in entries {
        entry.settle(outcomes.get(&entry.stream_seq).cloned().unwrap_or(Outcome::Done)).await;
    }
}

/// Does `work`, and keeps `entries` from being delivered to somebody else meanwhile.
async fn while_extending<T>(entries: &[Entry], mut work: impl Future<Output = T> + Unpin) -> T {
    let mut ticks = interval_at(tokio::time::Instant::now() + EXTEND_INTERVAL, EXTEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..EXTENSIONS_MAX {
        // Cancel safe: the work is kept across turns, and a tick is lost with nothing but its time.
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {}
        }
        let extending = async {
            for entry in entries {
                entry.extend().await;
            }
        };
        tokio::select! {
            done = &mut work => return done,
            () = extending => {}
        }
    }
    work.await
}
