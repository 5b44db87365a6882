//! Any number of instances work at once.

use chat_shared::event::Event;

use super::place::{Place, Talk, items, now};

#[tokio::test]
async fn two_instances_at_once_store_everything_once() {
    let place = Place::new().await;
    let mut talks = Vec::new();
    for _ in 0..20 {
        talks.push(place.talk().await);
    }
    let (one, two) = (place.persister().await, place.persister().await);
    for _ in 0..50 {
        for talk in &mut talks {
            place.append(talk).await;
        }
    }
    for talk in &talks {
        place.wait_for(talk).await;
    }
    place.wait_until_settled().await;
    one.stop().await;
    two.stop().await;
    assert_eq!(place.store().count_letters().await.unwrap(), 0);
}

#[tokio::test]
async fn another_instance_takes_over_when_one_is_killed() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    let killed = place.persister().await;
    for _ in 0..20 {
        place.append(&mut talk).await;
    }
    drop(killed);
    for _ in 0..20 {
        place.append(&mut talk).await;
    }
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    persister.stop().await;
}

/// The keeper gives up at the first failure, so a single deadlock fails the test.
#[tokio::test]
async fn the_same_rows_at_once_never_deadlock() {
    let place = Place::new().await;
    let mut talks = Vec::new();
    for _ in 0..10 {
        talks.push(place.talk().await);
    }
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..60 {
        events.extend(talks.iter_mut().map(|talk: &mut Talk| talk.message(now())));
    }
    let items = items(1, &events);
    for batch in items.chunks(100) {
        let mut backwards = batch.to_vec();
        backwards.reverse();
        let (one, two, three, four) = (place.keeper(), place.keeper(), place.keeper(), place.keeper());
        let stored =
            tokio::try_join!(one.keep(batch), two.keep(&backwards), three.keep(&batch[50..]), four.keep(&items));
        stored.unwrap();
    }
    for talk in &talks {
        place.assert_stored(talk).await;
    }
}
