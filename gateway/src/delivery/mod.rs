//! What notifiers deliver to this gateway, and how it reaches the connections.
//!
//! A live push that is next goes straight out. Where one is missing the inbox is read, so a client never sees a
//! gap; a message lost between notifier and gateway costs a read, not a message.

mod catch_up;
mod events;
mod gateways;
mod lease;
mod listen;

pub use catch_up::{catch_up, made_up_for, resync};
#[cfg(test)]
pub use events::PANICS_AT;
pub use events::{DirectMessage, Shown};
pub use gateways::Gateways;
pub use lease::keep;
pub use listen::listen;

use chat_shared::{
    delivery::Delivery,
    event::{Event, Fact},
    lifecycle::{Panicked, isolated},
};

use crate::{state::AppState, telemetry};

/// How long a publication may wait for the connection to NATS.
const PUBLISH_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// Publishes to gateways. Lost if NATS is out of reach, as everything on core NATS may be; false if that is known.
pub async fn publish(state: &AppState, subject: String, delivery: &Delivery) -> bool {
    publish_on(&state.nats, subject, delivery).await
}

/// As `publish`, for rooms that have no more than a connection.
pub async fn publish_on(nats: &async_nats::Client, subject: String, delivery: &Delivery) -> bool {
    let published = nats.publish(subject, delivery.encode().into());
    let is_published = matches!(tokio::time::timeout(PUBLISH_WAIT_MAX, published).await, Ok(Ok(())));
    if !is_published {
        tracing::debug!("a message to a gateway could not be published");
    }
    is_published
}

/// Works on one delivery or event. A panic over its content is counted and skips no others.
fn one<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    isolated("delivery", work).inspect_err(|_| metrics::counter!(telemetry::PANICS_TOTAL).increment(1))
}

/// The event, if it is one.
fn decoded(event: &[u8]) -> Option<Event> {
    one(|| Event::decode(event)).ok()?.ok()
}

/// Forgets who takes part in a conversation whose participants, or their blocks, have changed. Only an event that comes with
/// its position in the log says where the conversation stands since.
fn forget_changed(state: &AppState, event: &Event) {
    if matches!(event.fact, Fact::ParticipantsChanged(_) | Fact::BlocksChanged(_)) {
        state.sender.forget(event.conversation_id);
    }
}
