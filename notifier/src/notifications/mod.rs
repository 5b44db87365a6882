//! Notifies users who are away, on their phones and in their browsers.
//!
//! Routing makes jobs, a durable queue keeps them, and any instance works on them. What is true when a job is worked on
//! decides. Live delivery depends on nothing here but the queue.
//!
//! **Invariant:** a notification is claimed before it is sent. If it is not known whether it was sent, it never is again.

mod badge;
mod claimed;
mod clerk;
mod content;
mod decide;
mod ended;
mod facts;
mod held;
mod intake;
mod message;
mod subject;
mod text;
mod waiting;
mod worker;

use std::time::Duration;

use chat_shared::{
    clock::Clock,
    inbox::{InboxError, Inboxes},
    jobs::NotAdded,
    log::Outcome,
    sealing::MasterKeys,
};

use self::facts::OutOfReach;
pub use self::{
    claimed::Claimed,
    clerk::{Clerk, Filing},
    content::Content,
    decide::Conclusion,
    facts::Facts,
    intake::{Intake, Reasons},
    worker::{run, watch},
};
use crate::{occasionally::Occasionally, providers::Providers, reachable::Reachable, telemetry};

/// Works on jobs.
pub struct Office {
    /// Sessions, what devices have confirmed, and claims.
    pub inboxes: Inboxes,
    /// The claims of this process.
    pub claimed: Claimed,
    /// Whether Redis is worth asking.
    pub reachable: Reachable,
    /// Participants and devices.
    pub facts: Facts,
    /// Opens the addresses of devices, and content.
    pub master_keys: MasterKeys,
    /// Shows what was written; none if notifications don't.
    pub content: Option<Content>,
    /// Who brings notifications.
    pub providers: Providers,
    /// For the jobs that a job makes.
    pub intake: Intake,
    /// The time.
    pub clock: Clock,
    /// What is wrong with single devices.
    pub complaints: Occasionally,
}

/// Why a job can't be worked on now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("Redis is out of reach")]
    NoRedis,
    #[error(transparent)]
    Inboxes(#[from] InboxError),
    #[error(transparent)]
    Postgres(#[from] OutOfReach),
    #[error(transparent)]
    Queue(#[from] NotAdded),
}

/// What becomes of a job that failed.
fn failed(rest: Duration) -> Outcome {
    metrics::counter!(telemetry::JOB_RETRIES_TOTAL).increment(1);
    Outcome::RetryAfter(rest)
}

fn count(conclusion: Conclusion) {
    metrics::counter!(telemetry::NOTIFICATIONS_TOTAL, "outcome" => conclusion.as_str()).increment(1);
}
