//! What is stored is there once, in order, and nothing is ever lowered.

use chat_shared::{
    event::{Event, Fact, ParticipantsChanged},
    position::{Seq, StreamSeq},
};

use super::place::{Place, items, now};

#[tokio::test]
async fn a_batch_that_is_delivered_twice_is_stored_once() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let events: Vec<Event> = (0..10).map(|_| talk.message(now())).collect();
    // Twice: the process died after the commit and before the ack.
    for _ in 0..2 {
        assert_eq!(place.keeper().keep(&items(1, &events)).await.unwrap(), []);
        place.assert_stored(&talk).await;
    }
    assert_eq!(place.reads(&talk).await, [Seq(10), Seq(9)], "who writes has read");
    assert_eq!(place.store().checkpoint(&place.state.name).await.unwrap(), Some(StreamSeq(10)));
}

#[tokio::test]
async fn batches_out_of_order_lower_nothing() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let events: Vec<Event> = (0..9).map(|_| talk.message(now())).collect();
    for first in [6, 0, 3] {
        let part = items(first + 1, &events[usize::try_from(first).unwrap()..][..3]);
        assert_eq!(place.keeper().keep(&part).await.unwrap(), []);
    }
    place.assert_stored(&talk).await;
    assert_eq!(place.reads(&talk).await, [Seq(8), Seq(9)]);
    assert_eq!(place.store().checkpoint(&place.state.name).await.unwrap(), Some(StreamSeq(9)));
}

#[tokio::test]
async fn a_change_of_participants_moves_only_the_checkpoint() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    place.append(&mut talk).await;
    let change = Fact::ParticipantsChanged(ParticipantsChanged::default());
    let event = Event { fact: change, ..talk.unnumbered(1, now()) };
    place.append_event(&mut talk, &event).await;
    place.append(&mut talk).await;
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    assert_eq!(place.store().checkpoint(&place.state.name).await.unwrap(), Some(StreamSeq(3)));
    assert_eq!(place.store().count_letters().await.unwrap(), 0);
    persister.stop().await;
}

#[tokio::test]
async fn a_missing_partition_heals() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let today = now();
    // Nothing made the partitions of these days: retention was down, or the log is older than the database.
    let days = [-7, -1, 2, 7];
    let events: Vec<Event> = days.map(|days| talk.message(today.day().plus(days).start())).into();
    assert_eq!(place.keeper().keep(&items(1, &events)).await.unwrap(), []);
    place.assert_stored(&talk).await;
}

/// Of all instances that miss a partition one makes it; the others find it made.
#[tokio::test]
async fn a_partition_made_by_another_instance_is_used() {
    let place = Place::new().await;
    for days in [-7, -5, -3, 2, 4, 6] {
        let at = now().day().plus(days).start();
        let (mut one, mut two) = (place.talk().await, place.talk().await);
        let (one, two) = ([one.message(at)], [two.message(at)]);
        let keepers = [0, 1].map(|_| crate::keep::Keeper { attempts_max: None, ..place.keeper() });
        let (one, two) = (items(1, &one), items(2, &two));
        let refusals = tokio::join!(keepers[0].keep(&one), keepers[1].keep(&two));
        let refusals = [refusals.0.unwrap(), refusals.1.unwrap()];
        assert!(refusals.iter().all(Vec::is_empty), "{days} days from today: {refusals:?}");
    }
}
