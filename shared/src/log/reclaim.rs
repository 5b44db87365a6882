//! What of the log may be removed before its age: how full the stream is, what all its consumers have settled, and the
//! removal from its beginning.

use std::collections::HashMap;

use async_nats::jetstream::consumer;
use futures_util::TryStreamExt;

use super::{Log, LogError};
use crate::position::StreamSeq;

/// Consumers that deliver; each reads its share of the slots.
pub const DELIVERY_PARTS: u8 = 16;
/// The consumer that stores.
pub const STORING_CONSUMER: &str = "persister";

/// The name of a consumer that delivers.
pub fn delivery_consumer(part: u8) -> String {
    format!("notifier-{part:02}")
}

/// How full the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its entries.
    pub bytes: u64,
    /// Bytes that it may have; none without a limit.
    pub bytes_max: Option<u64>,
    /// Entries.
    pub entries: u64,
    /// The first position.
    pub first: StreamSeq,
    /// The last position.
    pub last: StreamSeq,
}

impl Usage {
    /// The position up to which entries have to go for the stream to have no more than `bytes`, if all were of one size.
    pub fn excess_over(&self, bytes: u64) -> Option<StreamSeq> {
        let excess = self.bytes.checked_sub(bytes).filter(|excess| *excess > 0)?;
        let average = (self.bytes / self.entries.max(1)).max(1);
        Some(StreamSeq(self.first.0.saturating_add(excess.div_ceil(average)).saturating_sub(1)))
    }
}

impl Log {
    /// How full the stream is now.
    pub async fn usage(&self) -> Result<Usage, LogError> {
        let info = self.stream.get_info().await.map_err(LogError::from_jetstream)?;
        Ok(Usage {
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).ok().filter(|bytes_max| *bytes_max > 0),
            entries: info.state.messages,
            first: StreamSeq(info.state.first_sequence),
            last: StreamSeq(info.state.last_sequence),
        })
    }

    /// The position up to which every consumer has settled every entry, given a `usage` read before; none while one of the
    /// consumers that store and deliver is missing.
    pub async fn settled(&self, usage: &Usage) -> Result<Option<StreamSeq>, LogError> {
        let consumers: Vec<consumer::Info> =
            self.stream.consumers().try_collect().await.map_err(LogError::from_jetstream)?;
        let floors: HashMap<&str, StreamSeq> =
            consumers.iter().map(|consumer| (consumer.name.as_str(), floor(consumer, usage.last))).collect();
        let delivering = (0..DELIVERY_PARTS).map(delivery_consumer);
        let is_complete =
            delivering.chain([STORING_CONSUMER.to_owned()]).all(|name| floors.contains_key(name.as_str()));
        Ok(floors.into_values().min().filter(|_| is_complete))
    }

    /// Removes the entries up to a position, that one included; how many.
    pub async fn remove_up_to(&self, last: StreamSeq) -> Result<u64, LogError> {
        let removed = self.stream.purge().sequence(last.next().0).await.map_err(LogError::from_jetstream)?;
        Ok(removed.purged)
    }
}

/// Up to where a consumer has settled everything. Its ack floor stands at the last entry that it was given, so one that
/// reads a share of the slots and has nothing left is past whatever the stream held before the question.
fn floor(consumer: &consumer::Info, last: StreamSeq) -> StreamSeq {
    if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
        last
    } else {
        StreamSeq(consumer.ack_floor.stream_sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_is_counted_from_the_first_entry() {
        let usage = Usage { bytes: 1000, bytes_max: None, entries: 100, first: StreamSeq(51), last: StreamSeq(150) };
        assert_eq!(usage.excess_over(1000), None);
        assert_eq!(usage.excess_over(995), Some(StreamSeq(51)));
        assert_eq!(usage.excess_over(700), Some(StreamSeq(80)));
        assert_eq!(Usage { entries: 0, bytes: 0, ..usage }.excess_over(0), None);
    }
}
