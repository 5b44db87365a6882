//! What has reached a device: told to the other side of direct conversations, by Redis and core NATS alone.
//!
//! Nothing waits for it and nothing keeps it but the sender's inbox. What is lost with Redis, PostgreSQL or the gateway is
//! made up for by the next message that is delivered or read. Between two of whom one has blocked the other nothing is told.
//! That costs no look into PostgreSQL while messages are delivered soon: nothing is accepted between such two, and of a block
//! that is new every gateway hears.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::Arc,
    time::Duration,
};

use chat_shared::{
    clock::Clock,
    delivery::{Delivery, NumberedEvent, Recipient, gateway_subject},
    event::{DeliveredAdvanced, Event, Fact},
    ids::{ConversationId, GatewayId, UserId},
    inbox::{InboxError, Routed, Routing},
    limits,
    position::StreamSeq,
    wire::ConversationKind,
};
use moka::sync::Cache;
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::sync::Notify;

use super::Receipts;
use crate::{
    conversations::blocked_among,
    database::DatabaseError,
    delivery::{self, DirectMessage},
    state::AppState,
    telemetry,
};

/// Users and conversations that wait to be told of. One more is left out, until the next message there.
const GATHERED_MAX: usize = 10_000;
/// Events of one question to Redis, and at the most of one message to a gateway.
const LOT_MAX: usize = 256;

/// A message that was accepted so lately was accepted in a conversation that nobody had blocked by then.
const RECENT: Duration = Duration::from_mins(1);
/// How long it is remembered that somebody has blocked the other one or ceased to: longer than a message is recent.
const BLOCKS_KEPT: Duration = Duration::from_mins(2);
/// Such conversations. Over it the oldest is forgotten.
const BLOCKS_MAX: u64 = 100_000;

/// The furthest message of each conversation that has reached somebody.
pub(super) struct Deliveries {
    gathered: Mutex<HashMap<(UserId, ConversationId), Arc<DirectMessage>>>,
    /// Conversations in which blocks have changed lately.
    blocks: Cache<ConversationId, ()>,
    rung: Notify,
}

impl Default for Deliveries {
    fn default() -> Self {
        let blocks = Cache::builder().max_capacity(BLOCKS_MAX).time_to_live(BLOCKS_KEPT).build();
        Self { gathered: Mutex::default(), blocks, rung: Notify::new() }
    }
}

impl Deliveries {
    fn add(&self, user_id: UserId, messages: Vec<Arc<DirectMessage>>) {
        let mut gathered = self.gathered.lock();
        for message in messages {
            let place = (user_id, message.conversation_id);
            let is_full = gathered.len() >= GATHERED_MAX;
            match gathered.entry(place) {
                Entry::Occupied(mut before) if before.get().seq < message.seq => {
                    before.insert(message);
                }
                Entry::Vacant(place) if !is_full => {
                    place.insert(message);
                }
                Entry::Occupied(_) | Entry::Vacant(_) => {}
            }
        }
        drop(gathered);
        self.rung.notify_one();
    }
}

impl Receipts {
    /// Takes in that somebody has blocked the other one of a conversation, or no longer does.
    pub fn blocks_changed(&self, conversation_id: ConversationId) {
        self.deliveries.blocks.insert(conversation_id, ());
    }

    /// Takes messages that a device of the user has confirmed.
    pub fn delivered(&self, user_id: UserId, messages: Vec<Arc<DirectMessage>>) {
        if !messages.is_empty() {
            self.deliveries.add(user_id, messages);
        }
    }
}

/// Tells what has gathered, one lot after the other.
pub(super) async fn tell(state: &AppState) {
    let deliveries = &state.receipts.deliveries;
    loop {
        deliveries.rung.notified().await;
        tokio::time::sleep(limits::RECEIPTS_GATHER).await;
        let gathered = mem::take(&mut *deliveries.gathered.lock());
        let gathered: Vec<_> = gathered.into_iter().map(|((user_id, _), message)| (user_id, message)).collect();
        for lot in gathered.chunks(LOT_MAX) {
            if let Err(error) = tell_lot(state, lot).await {
                tracing::debug!(%error, "deliveries can't be told; the next ones will");
                break;
            }
        }
    }
}

/// Why a lot can't be told.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Inboxes(#[from] InboxError),
    #[error(transparent)]
    Blocks(#[from] DatabaseError),
}

fn event(clock: &Clock, user_id: UserId, message: &DirectMessage) -> Event {
    Event {
        conversation_id: message.conversation_id,
        kind: ConversationKind::Direct,
        seq: message.seq,
        sent_at: clock.now(),
        previous: StreamSeq::ZERO,
        participants: message.participants.clone(),
        fact: Fact::DeliveredAdvanced(DeliveredAdvanced { user_id, delivered_seq: message.seq }),
    }
}

/// Puts each in the sender's inbox, and sends it to the gateways where they are connected; but for those that were blocked
/// since the message was accepted.
async fn tell_lot(state: &AppState, lot: &[(UserId, Arc<DirectMessage>)]) -> Result<(), NotTold> {
    let recent_since = state.clock.now().before(RECENT);
    let blocks = &state.receipts.deliveries.blocks;
    let is_open =
        |message: &DirectMessage| message.sent_at > recent_since && !blocks.contains_key(&message.conversation_id);
    let (open, doubtful): (Vec<_>, Vec<_>) = lot.iter().partition(|(_, message)| is_open(message));
    let of = |all: Vec<&(UserId, Arc<DirectMessage>)>| -> Vec<Event> {
        all.into_iter().map(|(user_id, message)| event(&state.clock, *user_id, message)).collect()
    };
    tell_events(state, &of(open)).await?;
    if doubtful.is_empty() {
        return Ok(());
    }
    let between = |(user_id, message): &&(UserId, Arc<DirectMessage>)| [*user_id, message.sender_id];
    let pairs: Vec<_> = doubtful.iter().map(between).collect();
    let blocked = blocked_among(&state.database, &pairs).await?;
    let open = doubtful.into_iter().filter(|delivered| !blocked.contains(&between(delivered)));
    tell_events(state, &of(open.collect())).await
}

async fn tell_events(state: &AppState, events: &[Event]) -> Result<(), NotTold> {
    if events.is_empty() {
        return Ok(());
    }
    let encoded: Vec<_> = events.iter().map(|event| (event, event.encode())).collect();
    let routings: Vec<_> = encoded
        .iter()
        .flat_map(|(event, bytes)| {
            let delivered = Some((event.conversation_id, event.seq));
            event.audience().map(move |user_id| Routing { user_id, event: bytes, delivered, lsn: None })
        })
        .collect();
    let routed = state.inboxes.route(&routings).await?;
    metrics::counter!(telemetry::RECEIPTS_TOTAL, "kind" => "delivered").increment(events.len() as u64);
    let mut numbered: HashMap<GatewayId, Vec<NumberedEvent>> = HashMap::new();
    for (routing, routed) in routings.iter().zip(routed) {
        let Routed::At { epoch, cursor, gateways, .. } = routed else { continue };
        for gateway_id in gateways {
            numbered.entry(gateway_id).or_default().push(NumberedEvent {
                event: ByteBuf::from(routing.event),
                stream_seq: StreamSeq::ZERO,
                recipients: vec![Recipient { user_id: routing.user_id, epoch, cursor }],
            });
        }
    }
    for (gateway_id, events) in numbered {
        let subject = gateway_subject(&state.namespace, gateway_id);
        delivery::publish(state, subject, &Delivery::Numbered(events)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chat_shared::{event::Participants, position::Seq};

    use super::*;

    fn message(conversation_id: ConversationId, seq: u64) -> Arc<DirectMessage> {
        let participants = Participants::default();
        Arc::new(DirectMessage {
            conversation_id,
            participants,
            sender_id: UserId::random(),
            seq: Seq(seq),
            sent_at: chat_shared::clock::Timestamp(0),
        })
    }

    #[test]
    fn the_furthest_message_of_a_conversation_is_told_r8_6() {
        let (deliveries, user_id, id) = (Deliveries::default(), UserId::random(), ConversationId::random());
        deliveries.add(user_id, vec![message(id, 2), message(id, 5)]);
        deliveries.add(user_id, vec![message(id, 4), message(ConversationId::random(), 1)]);
        let gathered = deliveries.gathered.lock();
        assert_eq!((gathered.len(), gathered[&(user_id, id)].seq), (2, Seq(5)));
    }
}
