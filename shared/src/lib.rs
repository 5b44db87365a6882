//! What two processes of the chat backend must agree on, and nothing else.
//!
//! Without the `services` feature it is the client wire alone: ids, positions, time, frames, limits.

pub mod clock;
pub mod ids;
pub mod limits;
pub mod mask;
pub mod position;
pub mod wire;
