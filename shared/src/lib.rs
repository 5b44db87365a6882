//! What two processes of the chat backend must agree on, and nothing else.
//!
//! Without the `services` feature it is the client wire alone: ids, positions, time, frames, limits.

pub mod clock;
pub mod ids;
pub mod limits;
pub mod mask;
pub mod position;
pub mod runs;
pub mod wire;

#[cfg(feature = "services")]
pub mod breaker;
#[cfg(feature = "services")]
pub mod command_line;
#[cfg(feature = "services")]
pub mod config_check;
#[cfg(feature = "services")]
pub mod customer_view;
#[cfg(feature = "services")]
pub mod delivery;
#[cfg(feature = "services")]
pub mod event;
#[cfg(feature = "services")]
pub mod inbox;
#[cfg(feature = "services")]
pub mod jobs;
#[cfg(feature = "services")]
pub mod lifecycle;
#[cfg(feature = "services")]
pub mod log;
#[cfg(feature = "services")]
pub mod outbound;
#[cfg(feature = "services")]
pub mod packed;
#[cfg(feature = "services")]
pub mod postgres;
#[cfg(feature = "services")]
pub mod redis;
#[cfg(feature = "services")]
pub mod sealing;
#[cfg(feature = "services")]
pub mod secret;
#[cfg(feature = "services")]
pub mod settings;
#[cfg(feature = "services")]
pub mod telemetry;
