//! What is removed from a log that fills up, and what is not.

use std::time::Duration;

use chat_shared::{
    log::{Consumer, ConsumerSpec, DELIVERY_PARTS, Log, Outcome, Slot, delivery_consumer},
    position::StreamSeq,
};

use super::place::{Place, until};
use crate::reclaim::{Reclaimer, Rules};

/// Removes whatever may be removed.
fn greedy() -> Reclaimer {
    Reclaimer::new(Rules { begin_percent: 0, end_percent: 0, age_min: Duration::ZERO })
}

async fn removed(reclaimer: &mut Reclaimer, place: &Place) -> u64 {
    reclaimer.look(&place.own_log, &place.store(), &place.own_pool).await.unwrap()
}

/// The consumers of a notifier.
async fn deliverers(log: &Log) -> Vec<Consumer> {
    let mut consumers = Vec::new();
    for part in 0..DELIVERY_PARTS {
        let spec = ConsumerSpec {
            name: delivery_consumer(part),
            slots: Slot::part(part, DELIVERY_PARTS).collect(),
            is_pinned: false,
            batch_max: 100,
            gather_max: Duration::ZERO,
            ack_pending_max: 1000,
            ack_wait: Duration::from_secs(30),
        };
        consumers.push(log.consumer(spec).await.unwrap());
    }
    consumers
}

async fn deliver(consumer: &mut Consumer, mut entries: usize) {
    while entries > 0 {
        for entry in consumer.batch().await {
            entry.settle(Outcome::Done).await;
            entries -= 1;
        }
    }
}

#[tokio::test]
async fn only_stored_and_delivered_entries_are_removed() {
    let place = Place::new().await;
    let (mut talk, mut reclaimer) = (place.talk().await, greedy());
    for _ in 0..10 {
        place.append(&mut talk).await;
    }
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    assert_eq!(
        removed(&mut reclaimer, &place).await,
        0,
        "no consumer delivers yet: one may come and begin at the first"
    );
    let mut deliverers = deliverers(&place.log).await;
    assert_eq!(removed(&mut reclaimer, &place).await, 0, "it is not delivered");
    let part = (0..DELIVERY_PARTS)
        .find(|part| Slot::part(*part, DELIVERY_PARTS).any(|slot| slot == Slot::of(talk.conversation_id)))
        .unwrap();
    let deliverer = &mut deliverers[usize::from(part)];
    deliver(deliverer, 10).await;
    let mut sum = 0;
    while sum < 10 {
        // Settling has no answer.
        sum += removed(&mut reclaimer, &place).await;
        tokio::task::yield_now().await;
    }
    let usage = place.log.usage().await.unwrap();
    assert_eq!((usage.entries, usage.first, usage.last), (0, StreamSeq(11), StreamSeq(10)));

    persister.stop().await;
    talk.forget_log();
    place.append(&mut talk).await;
    deliver(deliverer, 1).await;
    assert_eq!(removed(&mut reclaimer, &place).await, 0, "it is not stored");

    let poison = place.append_at(&place.log.subject(talk.conversation_id), b"poison").await;
    deliver(deliverer, 1).await;
    let persister = place.persister().await;
    until("the dead letter", async || place.store().count_letters().await.is_ok_and(|count| count == 1)).await;
    place.wait_until_settled().await;
    assert_eq!(removed(&mut reclaimer, &place).await, 0, "a dead letter may have a number that only the log has");
    assert_eq!(place.log.usage().await.unwrap().last, poison);
    persister.stop().await;
}

#[tokio::test]
async fn a_log_with_room_keeps_everything() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    place.append(&mut talk).await;
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    let _deliverers = deliverers(&place.log).await;
    let mut reclaimer = Reclaimer::new(Rules { age_min: Duration::ZERO, ..Rules::default() });
    assert_eq!(removed(&mut reclaimer, &place).await, 0);
    let mut young = Reclaimer::new(Rules { age_min: Duration::from_hours(1), begin_percent: 0, end_percent: 0 });
    assert_eq!(removed(&mut young, &place).await, 0, "repeats are recognised by it");
    persister.stop().await;
}
