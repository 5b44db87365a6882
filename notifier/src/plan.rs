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
    position::{Lsn, StreamSeq},
};
use serde_bytes::ByteBuf;

/// Bytes of one delivery. What doesn't fit goes into the next. A gateway's subscriptions hold a number of messages, so this
/// bounds their bytes too.
pub const DELIVERY_BYTES_MAX: usize = 64 * 1024;

/// What a recipient takes up at the most.
const RECIPIENT_BYTES_MAX: usize = 80;
/// What stands around an event's bytes at the most.
const EVENT_FRAME_BYTES_MAX: usize = 72;
/// What stands around the events at the most.
const DELIVERY_FRAME_BYTES_MAX: usize = 32;

/// An event with those it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The event's bytes.
    pub event: Bytes,
    /// Its position in the log.
    pub stream_seq: StreamSeq,
    /// The users, each once.
    pub audience: Vec<UserId>,
    /// Of a change: up to where PostgreSQL's log has it.
    pub lsn: Option<Lsn>,
}

/// The deliveries for each gateway, from the inboxes' answers: one for each user of each event, in order.
pub fn numbered<'a>(
    events: impl IntoIterator<Item = &'a Addressed>,
    routed: Vec<Routed>,
) -> BTreeMap<GatewayId, Vec<Delivery>> {
    let mut routed = routed.into_iter();
    let mut batches: BTreeMap<GatewayId, Parts<NumberedEvent>> = BTreeMap::new();
    for addressed in events {
        let mut recipients: BTreeMap<GatewayId, Vec<Recipient>> = BTreeMap::new();
        for (user_id, answer) in addressed.audience.iter().zip(&mut routed) {
            let Routed::At { epoch, cursor, gateways, .. } = answer else { continue };
            for gateway_id in gateways {
                recipients.entry(gateway_id).or_default().push(Recipient { user_id: *user_id, epoch, cursor });
            }
        }
        for (gateway_id, recipients) in recipients {
            let bytes = addressed.event.len() + EVENT_FRAME_BYTES_MAX + recipients.len() * RECIPIENT_BYTES_MAX;
            let event = NumberedEvent {
                event: ByteBuf::from(addressed.event.clone()),
                stream_seq: addressed.stream_seq,
                recipients,
            };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chat_shared::{ids::Epoch, position::Cursor};
    use proptest::prelude::*;

    use super::*;

    /// Who gets what at one gateway: the event's index, the user's, the cursor.
    type Pushed = BTreeMap<usize, Vec<(u8, usize, Cursor)>>;

    /// An event of a size, and for each of its audience the gateways (by index) that hold them, or no inbox.
    fn events() -> impl Strategy<Value = Vec<(usize, Vec<Option<BTreeSet<usize>>>)>> {
        let held = proptest::option::of(proptest::collection::btree_set(0..3_usize, 0..3));
        let audience = proptest::collection::vec(held, 0..9);
        let size = prop_oneof![0..2_000_usize, 0..DELIVERY_BYTES_MAX - 2_000];
        proptest::collection::vec((size, audience), 0..12)
    }

    fn decoded(delivery: &Delivery) -> Vec<NumberedEvent> {
        match Delivery::decode(&delivery.encode()) {
            Ok(Delivery::Numbered(events)) => events,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn each_recipient_gets_each_event_once_in_order_and_no_delivery_is_too_large(events in events()) {
            let gateways = [(); 3].map(|()| GatewayId::random());
            let users = [(); 9].map(|()| UserId::random());
            let epoch = Epoch::random();
            let (mut addressed, mut routed, mut expected) = (Vec::new(), Vec::new(), Pushed::new());
            for (index, (size, audience)) in (0_u8..).zip(&events) {
                let event = Bytes::from(vec![index; size + 1]);
                addressed.push(Addressed { event, stream_seq: StreamSeq(u64::MAX), audience: users[..audience.len()].to_vec(), lsn: None });
                for (user, held) in audience.iter().enumerate() {
                    let cursor = Cursor(routed.len() as u64);
                    for gateway in held.iter().flatten() {
                        expected.entry(*gateway).or_default().push((index, user, cursor));
                    }
                    routed.push(held.as_ref().map_or(Routed::NoInbox, |held| {
                        Routed::At { epoch, cursor, gateways: held.iter().map(|gateway| gateways[*gateway]).collect(), may_notify: true }
                    }));
                }
            }

            let mut found = Pushed::new();
            for (gateway_id, deliveries) in numbered(&addressed, routed) {
                let gateway = gateways.iter().position(|id| *id == gateway_id).unwrap();
                for delivery in deliveries {
                    prop_assert!(delivery.encode().len() <= DELIVERY_BYTES_MAX);
                    for numbered in decoded(&delivery) {
                        for recipient in numbered.recipients {
                            prop_assert_eq!(recipient.epoch, epoch);
                            let user = users.iter().position(|id| *id == recipient.user_id).unwrap();
                            found.entry(gateway).or_default().push((numbered.event[0], user, recipient.cursor));
                        }
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn unnumbered_events_all_go_out_in_order_and_no_delivery_is_too_large(
            sizes in proptest::collection::vec(0..DELIVERY_BYTES_MAX - 100, 0..12),
        ) {
            let events: Vec<_> = (0_u8..).zip(&sizes).map(|(index, size)| Bytes::from(vec![index; size + 1])).collect();
            let mut found = Vec::new();
            for delivery in unnumbered(&events) {
                let bytes = delivery.encode();
                prop_assert!(bytes.len() <= DELIVERY_BYTES_MAX);
                match Delivery::decode(&bytes) {
                    Ok(Delivery::Unnumbered(events)) => found.extend(events.into_iter().map(ByteBuf::into_vec)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(found, events);
        }
    }

    #[test]
    fn small_events_share_one_delivery_and_an_event_for_nobody_makes_none() {
        let (user_id, gateway_id, epoch) = (UserId::random(), GatewayId::random(), Epoch::random());
        let addressed = Addressed {
            event: Bytes::from_static(b"event"),
            stream_seq: StreamSeq(7),
            audience: vec![user_id],
            lsn: None,
        };
        let at = |cursor| Routed::At { epoch, cursor: Cursor(cursor), gateways: vec![gateway_id], may_notify: true };
        let planned = numbered(&vec![addressed.clone(); 100], (1..=100).map(at).collect());
        assert_eq!(planned[&gateway_id].len(), 1);
        assert_eq!(numbered(std::slice::from_ref(&addressed), vec![Routed::NoInbox]), BTreeMap::new());
        assert_eq!(numbered([], Vec::new()), BTreeMap::new());
        assert_eq!(unnumbered([]), []);
    }

    #[test]
    fn an_event_larger_than_a_delivery_goes_alone() {
        let (small, large) = (Bytes::from_static(b"small"), Bytes::from(vec![0; DELIVERY_BYTES_MAX]));
        let sizes: Vec<_> = unnumbered([&small, &large, &small]).iter().map(|part| part.encode().len()).collect();
        assert_eq!(sizes.len(), 3);
        assert!(sizes[1] < 1024 * 1024, "NATS takes it all the same");
    }
}
