//! A conversation's messages: what PostgreSQL has, the tail that only the log has yet, and old texts from the object store.
//!
//! **Invariant:** what was accepted is in the newest page at once, whatever PostgreSQL has stored so far.

mod backwards;
mod cold;
mod export;
mod number;
mod page;
mod range;
mod stored;
mod tail;
mod times;

pub use cold::ColdBodies;
pub use export::ExportedMessage;
#[cfg(test)]
pub use export::Unreadable;
pub use number::number_of;
pub use page::History;
pub use range::Place;
pub use stored::{StoredMessage, find_stored, last_messages};
pub use tail::Tail;
