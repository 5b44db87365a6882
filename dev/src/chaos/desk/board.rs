//! The state that the tasks of a desk share, and the requests of agents.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chat_client::{
    RestError,
    ids::{BusinessId, ConversationId, UserId},
    positions::Seq,
    wire::ErrorCode,
};
use tokio::sync::{Notify, watch};

use super::{Business, Place};
use crate::{
    audit::Resolved,
    chaos::{
        crowd::Device,
        load::{Samples, is_for_good},
    },
};

/// A conversation, as the tasks know it.
#[derive(Debug)]
struct Known {
    customer_id: UserId,
    business_id: BusinessId,
    /// Told at the moment at which an agent resolves.
    resolving: Arc<Notify>,
    resolved: watch::Sender<Resolved>,
}

/// Shared by all tasks.
#[derive(Debug, Default)]
pub struct Board {
    known: BTreeMap<ConversationId, Known>,
    agents: BTreeMap<BusinessId, Vec<UserId>>,
    raced: AtomicUsize,
    samples: Arc<Samples>,
}

impl Board {
    pub fn of(places: &[Place], businesses: &[Business], customers: &[Device], samples: &Arc<Samples>) -> Self {
        let known = places.iter().map(|place| {
            let known = Known {
                customer_id: customers[place.customer].person.user_id,
                business_id: place.business_id,
                resolving: Arc::default(),
                resolved: watch::Sender::new(Resolved { answered: Seq::ZERO, tried: Seq::ZERO }),
            };
            (place.room.id, known)
        });
        Self {
            known: known.collect(),
            agents: businesses.iter().map(|business| (business.id, business.agents.clone())).collect(),
            samples: Arc::clone(samples),
            ..Self::default()
        }
    }

    /// The customer of a conversation.
    pub fn customer(&self, conversation_id: ConversationId) -> Option<UserId> {
        Some(self.known.get(&conversation_id)?.customer_id)
    }

    /// The businesses that a user works for.
    pub fn employers(&self, user_id: UserId) -> impl Iterator<Item = BusinessId> {
        self.agents.iter().filter(move |(_, agents)| agents.contains(&user_id)).map(|(id, _)| *id)
    }

    /// Other agents who may have a case.
    pub fn colleagues(&self, conversation_id: ConversationId, user_id: UserId) -> impl Iterator<Item = UserId> {
        let business_id = self.known.get(&conversation_id).map(|known| known.business_id);
        let agents = business_id.and_then(|id| self.agents.get(&id)).into_iter().flatten();
        agents.copied().filter(move |other| *other != user_id)
    }

    /// Told at the moment at which an agent resolves.
    pub fn resolving(&self, conversation_id: ConversationId) -> Arc<Notify> {
        self.known.get(&conversation_id).map(|known| Arc::clone(&known.resolving)).unwrap_or_default()
    }

    /// Waits until an agent resolves up to a message.
    pub async fn until_resolved(&self, conversation_id: ConversationId, seq: Seq) {
        match self.known.get(&conversation_id) {
            // It never fails: the board has the sender.
            Some(known) => _ = known.resolved.subscribe().wait_for(|resolved| resolved.tried >= seq).await,
            None => std::future::pending().await,
        }
    }

    /// Notes a resolve before it is asked for, or that it was answered.
    pub fn note_resolve(&self, conversation_id: ConversationId, seq: Seq, is_answered: bool) {
        if let Some(known) = self.known.get(&conversation_id) {
            known.resolved.send_modify(|resolved| {
                let furthest = if is_answered { &mut resolved.answered } else { &mut resolved.tried };
                *furthest = seq.max(*furthest);
            });
        }
    }

    /// How far each conversation was resolved.
    pub fn resolved(&self) -> BTreeMap<ConversationId, Resolved> {
        self.known.iter().map(|(id, known)| (*id, *known.resolved.borrow())).collect()
    }

    /// Notes a message that was accepted while an agent was resolving its case.
    pub fn note_race(&self) {
        self.raced.fetch_add(1, Ordering::Relaxed);
    }

    pub fn raced(&self) -> usize {
        self.raced.load(Ordering::Relaxed)
    }

    /// Whether a request of an agent was carried out. The case may be another agent's by now; every other refusal for good is a
    /// fault.
    pub fn is_done<T>(&self, outcome: Result<T, RestError>) -> bool {
        match outcome {
            Ok(_) => return true,
            Err(error) if is_for_good(&error) => {
                if !matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Conflict)) {
                    self.samples.refused(format!("an agent: {error}"));
                }
            }
            Err(_) => {}
        }
        false
    }
}
