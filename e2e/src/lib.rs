//! The harness of the end-to-end tests: fleets of real processes, people with tokens, sockets that may say anything.
//!
//! The tests themselves stand in `tests/`, one for each promise or criterion, which they carry in their names.

pub mod api;
pub mod business;
pub mod database;
pub mod fleet;
pub mod http;
pub mod online;
pub mod realtime;
pub mod socket;
pub mod suite;
pub mod traces;

pub use api::{Answer, Api, Person};
pub use fleet::{Setup, TestFleet};
pub use online::Online;
pub use socket::{Incoming, Socket};
pub use suite::{on_own_fleet, on_shared_fleet};

use std::time::Duration;

use anyhow::{Context, Result};

/// How long anything may take that is waited for. Generous: what a test waits for is that it happens, not when.
pub const DEADLINE: Duration = Duration::from_secs(45);

/// Stands in every text that a test sends, so that no log and no file at rest can hide one.
pub const MARK: &str = "Buttertee-unter-vier-Augen";

/// A text to send.
pub fn said(what: impl std::fmt::Display) -> String {
    format!("{MARK}: {what}")
}

/// Asks again and again until there is an answer.
pub async fn eventually<T, F, Fut>(what: &str, check: F) -> Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    chat_dev::wait::until(what, DEADLINE, check).await
}

/// Waits for something that must come.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, future).await.with_context(|| format!("{what} did not come within {DEADLINE:?}"))
}
