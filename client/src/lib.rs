//! The Rust client of the chat backend: connects, resumes, repeats sends, keeps order.
#![warn(missing_docs)]

mod backoff;
mod book;
mod client;
mod connection;
mod error;
mod events;
mod expiry;
pub mod limits;
mod line;
mod load;
mod notices;
mod options;
mod order;
mod position;
mod progress;
mod rest;
mod session;
mod state;
mod token;
mod verdict;

pub use chat_shared::{clock, ids, position as positions, wire};

pub use client::{Client, Outgoing};
pub use error::{ConnectError, RestError, SendError, TokenError};
pub use events::{Event, Events};
pub use options::{ClientOptions, Start};
pub use position::Position;
pub use rest::{HistoryRange, Rest};
pub use state::{ConnectionState, StopReason};
pub use token::TokenSource;
