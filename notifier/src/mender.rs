//! Resets inboxes that can't be used: their users reload, and nobody else notices.

use std::{collections::BTreeMap, sync::Arc};

use chat_shared::{
    delivery::{Delivery, NumberedEvent, Recipient},
    ids::{Epoch, UserId},
    inbox::{InboxError, Inboxes, Routed},
    position::Cursor,
};
use serde_bytes::ByteBuf;

use crate::{deliverer::Delivering, occasionally::Occasionally, plan::Addressed, publisher::Publisher, telemetry};

/// Resets inboxes.
#[derive(Clone)]
pub struct Mender {
    inboxes: Inboxes,
    publisher: Publisher,
    complaints: Arc<Occasionally>,
}

impl Mender {
    /// For these inboxes; gateways are reached by `publisher`.
    pub fn new(inboxes: Inboxes, publisher: Publisher) -> Self {
        Self { inboxes, publisher, complaints: Arc::default() }
    }

    /// Resets the inboxes that routing found broken, and ends the connections of their users, who resume and reload.
    pub async fn mend(&self, events: &[Delivering], routed: &[Routed]) {
        if !routed.contains(&Routed::Broken) {
            return;
        }
        let to = events.iter().flat_map(|Delivering { addressed, .. }| {
            addressed.audience.iter().map(move |user_id| (*user_id, addressed))
        });
        let broken: BTreeMap<UserId, &Addressed> =
            to.zip(routed).filter(|(_, routed)| **routed == Routed::Broken).map(|(to, _)| to).collect();
        for (user_id, addressed) in broken {
            if let Err(error) = self.reset(user_id).await {
                // The next event for the user finds it broken again.
                tracing::warn!(%error, "a broken inbox was not reset");
                return;
            }
            self.end_connections(user_id, addressed).await;
        }
    }

    /// Resets the inbox of a user.
    pub async fn reset(&self, user_id: UserId) -> Result<(), InboxError> {
        self.inboxes.reset(user_id).await?;
        metrics::counter!(telemetry::INBOXES_RESET_TOTAL).increment(1);
        if self.complaints.is_due() {
            tracing::error!(?user_id, "the keys of a user in Redis could not be used: the inbox is reset");
        }
        Ok(())
    }

    /// A delivery of an unknown epoch ends a connection. Its gateway isn't known any more, so all are sent it.
    async fn end_connections(&self, user_id: UserId, addressed: &Addressed) {
        let event = NumberedEvent {
            event: ByteBuf::from(addressed.event.clone()),
            stream_seq: addressed.stream_seq,
            recipients: vec![Recipient { user_id, epoch: Epoch::random(), cursor: Cursor(1) }],
        };
        if let Err(error) = self.publisher.to_all(Delivery::Numbered(vec![event]).encode()).await {
            tracing::warn!(%error, "a connection whose inbox was reset ends with its next confirmation");
        }
    }
}
