//! The scenarios of `cargo dev load`, a file each: what is done to a subject, and what is said about it.

pub mod backlog;
pub mod dm;
pub mod history;
pub mod hostile;
pub mod idle;
pub mod jitter;
pub mod outage;
pub mod storm;

/// Handshakes that a gateway lets in where connecting is not what is measured: all.
const HANDSHAKES_PER_SECOND: u32 = 100_000;
