//! Decides what is sent to which gateway. Pure.
//!
//! **Invariant:** each recipient of a routed event is in exactly one delivery, and the events of a gateway stand in
//! the order they were given.

use std::collections::BTreeMap;

use bytes::Bytes;
use chat_shared::{
    delivery::{Delivery, NumberedEvent, Recipient},
    ids::{GatewayId, UserId},
    inbox::Routed,
};
use serde_bytes::ByteBuf;

/// Bytes of one delivery. What doesn't fit goes into the next; well below what NATS takes in one message.
pub const DELIVERY_BYTES_MAX: usize = 256 * 1024;

/// What a recipient takes up at the most.
const RECIPIENT_BYTES_MAX: usize = 80;
/// What stands around an event's bytes at the most.
const EVENT_FRAME_BYTES_MAX: usize = 48;
/// What stands around the events at the most.
const DELIVERY_FRAME_BYTES_MAX: usize = 32;

/// An event with those it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The event's bytes.
    pub event: Bytes,
    /// The users, each once.
    pub audience: Vec<UserId>,
}

/// The deliveries for each gateway, from the inboxes' answers: one for each user of each event, in order.
pub fn numbered(events: &[Addressed], routed: Vec<Routed>) -> BTreeMap<GatewayId, Vec<Delivery>> {
    let mut routed = routed.into_iter();
    let mut batches: BTreeMap<GatewayId, Parts<NumberedEvent>> = BTreeMap::new();
    for addressed in events {
        let mut recipients: BTreeMap<GatewayId, Vec<Recipient>> = BTreeMap::new();
        for (user_id, answer) in addressed.audience.iter().zip(&mut routed) {
            let Routed::At { epoch, cursor, gateways } = answer else { continue };
            for gateway_id in gateways {
                recipients.entry(gateway_id).or_default().push(Recipient { user_id: *user_id, epoch, cursor });
            }
        }
        for (gateway_id, recipients) in recipients {
            let bytes = addressed.event.len() + EVENT_FRAME_BYTES_MAX + recipients.len() * RECIPIENT_BYTES_MAX;
            let event = NumberedEvent { event: ByteBuf::from(addressed.event.clone()), recipients };
            batches.entry(gateway_id).or_default().push(event, bytes);
        }
    }
    batches.into_iter().map(|(gateway_id, parts)| (gateway_id, parts.deliveries(Delivery::Numbered))).collect()
}

/// The deliveries for all gateways of events that are in no inbox.
pub fn unnumbered<'a>(events: impl IntoIterator<Item = &'a Bytes>) -> Vec<Delivery> {
    let mut parts = Parts::default();
    for event in events {
        parts.push(ByteBuf::from(event.clone()), event.len() + EVENT_FRAME_BYTES_MAX);
    }
    parts.deliveries(Delivery::Unnumbered)
}

/// Things in order, cut where a delivery would pass its bound.
struct Parts<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
    last_bytes: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { full: Vec::new(), last: Vec::new(), last_bytes: DELIVERY_FRAME_BYTES_MAX }
    }
}

impl<T> Parts<T> {
    fn push(&mut self, part: T, bytes: usize) {
        if !self.last.is_empty() && self.last_bytes + bytes > DELIVERY_BYTES_MAX {
            self.full.push(std::mem::take(&mut self.last));
            self.last_bytes = DELIVERY_FRAME_BYTES_MAX;
        }
        self.last.push(part);
        self.last_bytes += bytes;
    }

    fn deliveries(self, delivery: impl Fn(Vec<T>) -> Delivery) -> Vec<Delivery> {
        let last = Some(self.last).filter(|last| !last.is_empty());
        self.full.into_iter().chain(last).map(delivery).collect()
    }
}
