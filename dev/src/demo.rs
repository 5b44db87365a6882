//! The story that `cargo dev demo` plays: people who talk while one part of
//! the backend after the other is killed, and audits from outside at the end.
//!
//! It knows the backend only as its users and its operators do: through the
//! client, the fleet's processes, and the files that they leave.

mod accidents;
mod audit;
mod cases;
mod narrator;
mod outages;
mod rules;
mod scenes;
mod stage;
mod story;
mod words;

pub use self::story::{Outcome, play};
