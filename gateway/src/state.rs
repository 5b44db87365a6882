//! What requests and connections work with.

use std::{ops::Deref, sync::Arc};

use chat_shared::{
    clock::Clock,
    ids::{ConversationId, GatewayId, MessageId, UserId},
    inbox::Inboxes,
    lifecycle::Tasks,
};
use tokio::sync::Notify;

use crate::{
    auth::{Revocations, Tickets, Verifier},
    business::Businesses,
    connection::Registry,
    content::Content,
    conversations::Conversations,
    database::Database,
    devices::Devices,
    edge::Edge,
    history::History,
    presence::{Announcer, Departures, Watches},
    profiles::Profiles,
    quota::Quotas,
    rate::RateLimits,
    receipts::Receipts,
    send::{Acceptance, Sender},
    typing::Typing,
};

/// What requests and connections work with; one pointer, since every connection holds it.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl From<Parts> for AppState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

/// The parts of the gateway.
pub struct Parts {
    pub gateway_id: GatewayId,
    pub namespace: String,
    pub edge: Arc<Edge>,
    pub clock: Clock,
    pub tasks: Tasks,
    pub nats: async_nats::Client,
    pub database: Database,
    pub inboxes: Inboxes,
    pub verifier: Verifier,
    pub revocations: Revocations,
    pub tickets: Tickets,
    pub profiles: Profiles,
    pub rate: RateLimits,
    pub quotas: Quotas,
    pub content: Content,
    pub sender: Sender,
    pub conversations: Conversations,
    pub businesses: Businesses,
    pub history: History,
    pub receipts: Arc<Receipts>,
    pub devices: Devices,
    pub connections: Registry,
    pub announcer: Announcer,
    pub departures: Departures,
    pub watches: Watches,
    pub typing: Typing,
    /// Rung when something may have been lost between notifiers and this gateway.
    pub resync: Arc<Notify>,
}

impl Parts {
    /// What an accepted message means for other rooms than the log's, on the gateway that accepted it.
    pub fn accepted(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        message_id: MessageId,
        acceptance: &Acceptance,
    ) {
        self.receipts.remember(conversation_id, message_id, acceptance.seq);
        self.typing.sent(conversation_id, user_id);
        if let Some(business_id) = acceptance.opens_case {
            self.businesses.wake_for(business_id, conversation_id, acceptance.seq);
        }
    }
}
