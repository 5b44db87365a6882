//! Bodies of old messages, in an object store instead of PostgreSQL.
//!
//! The bodies stay sealed: neither this crate nor the store has a key that opens them.

pub mod pack;
pub mod store;
