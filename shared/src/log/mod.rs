//! The log: one JetStream stream that holds every accepted event. Only this room and `jobs` speak JetStream.
//!
//! **Invariant:** nothing rewrites an event, and nothing deletes one but the stream's age limit and `remove_up_to`.

mod append;
mod check;
mod connect;
mod consume;
mod faults;
mod range;
mod reclaim;
mod rounds;
mod stall;
mod subjects;
mod suspects;
mod together;
mod topology;

pub use append::{AppendError, Appended, Head};
pub use check::{Examined, examine};
pub use connect::{NotConnected, connect};
pub use consume::{ConsumeError, Consumer, ConsumerSpec, Entry, Outcome};
pub(crate) use faults::refuse_faults;
pub use faults::{Fault, Faults};
pub use range::StoredEntry;
pub use reclaim::{DELIVERY_PARTS, STORING_CONSUMER, Usage, delivery_consumer};
pub use rounds::{Appender, Newest};
pub use subjects::{NotAnEntry, read, subject_of};
pub(crate) use together::{Part, publish_together};
pub(crate) use topology::find_or_make;
pub use topology::{LogError, Replicas, SLOTS, Slot, stream_name};

use async_nats::jetstream::{self, stream::Stream};

use crate::clock::Timestamp;

/// The stream, opened.
#[derive(Debug, Clone)]
pub struct Log {
    namespace: String,
    name: String,
    client: async_nats::Client,
    context: jetstream::Context,
    stream: Stream<()>,
    /// Whether several events can be appended in one write.
    takes_batches: bool,
    stall: stall::Stall,
}

/// Which stream this is and how far it goes; compared with the checkpoint in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The stream's name.
    pub name: String,
    /// When the stream was created.
    pub created_at: Timestamp,
    /// The position of its first event; after the last one if it holds none.
    pub first: crate::position::StreamSeq,
    /// The position of its last event.
    pub last: crate::position::StreamSeq,
}

impl Log {
    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}
