//! Read marks: raised together with the others of a batch, never lowered, and of participants only.

use chat_shared::{event::Event, ids::UserId, position::Seq};

use super::place::{Place, Talk, items, message_id, now};

/// A conversation with ten stored messages, of which the second user has read nine.
async fn ten_messages(place: &Place) -> Talk {
    let mut talk = place.talk().await;
    let events: Vec<Event> = (0..10).map(|_| talk.message(now())).collect();
    assert_eq!(place.keeper().keep(&items(1, &events)).await.unwrap(), []);
    assert_eq!(place.reads(&talk).await, [Seq(10), Seq(9)], "who writes has read");
    talk
}

async fn keep(place: &Place, events: &[Event]) {
    assert_eq!(place.keeper().keep(&items(100, events)).await.unwrap(), []);
}

#[tokio::test]
async fn marks_go_only_forward_in_whatever_order_they_come_r8_5_r8_6() {
    let place = Place::new().await;
    let mut talk = ten_messages(&place).await;
    let more: Vec<Event> = (0..4).map(|_| talk.message(now())).collect();
    let reader = talk.users[0];
    assert_eq!(place.last_read(&talk).await, [Some(message_id(&talk.events[9])), Some(message_id(&talk.events[8]))]);
    keep(&place, &[talk.read(reader, 4)]).await;
    assert_eq!(place.reads(&talk).await, [Seq(10), Seq(9)], "it was further");
    // Beyond what is stored: the message comes in a batch of another persister.
    keep(&place, &[talk.read(reader, 13)]).await;
    keep(&place, &[talk.read(reader, 11)]).await;
    keep(&place, &more[..1]).await;
    assert_eq!(place.reads(&talk).await[0], Seq(13));
    assert_eq!(place.last_read(&talk).await[0], Some(message_id(&more[2])), "the message belongs to the number");
    keep(&place, &more).await;
    assert_eq!(place.reads(&talk).await, [Seq(14), Seq(13)], "and to what they wrote since");
    assert_eq!(place.last_read(&talk).await, [Some(message_id(&more[3])), Some(message_id(&more[2]))]);
    place.assert_stored(&talk).await;
}

#[tokio::test]
async fn a_mark_of_somebody_who_has_left_changes_nothing() {
    let place = Place::new().await;
    let talk = ten_messages(&place).await;
    keep(&place, &[talk.read(UserId::random(), 10), Talk::new().read(talk.users[1], 10)]).await;
    assert_eq!(place.reads(&talk).await, [Seq(10), Seq(9)]);
    assert_eq!(place.store().checkpoint(&place.state.name).await.unwrap(), Some(chat_shared::position::StreamSeq(101)));
}

#[tokio::test]
async fn many_marks_are_one_statement_r8_6() {
    let place = Place::new().await;
    let talk = ten_messages(&place).await;
    count_statements(&place).await;
    let marks: Vec<Event> = (1..=400).map(|number| talk.read(talk.users[1], number % 10 + 1)).collect();
    keep(&place, &marks).await;
    assert_eq!(place.reads(&talk).await, [Seq(10), Seq(10)]);
    assert_eq!(statements(&place).await, 1, "of 400 marks, in a batch without a message");
}

#[tokio::test]
async fn marks_in_the_log_are_stored_and_poisoned_ones_buried() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    for _ in 0..4 {
        place.append(&mut talk).await;
    }
    let reader = talk.users[0];
    let marks: Vec<Event> = [1, 3, 0, 4, u64::MAX, 2].map(|seq| talk.read(reader, seq)).into();
    place.log.append_facts(&marks).await.unwrap();
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    persister.stop().await;
    assert_eq!(place.reads(&talk).await, [Seq(4), Seq(3)]);
    assert_eq!(place.store().count_letters().await.unwrap(), 2, "the numbers 0 and one that fits no column");
}

/// Counts the statements that update participants from now on, by a trigger.
async fn count_statements(place: &Place) {
    sqlx::query!("create sequence participants_updates").execute(&place.pool).await.unwrap();
    sqlx::raw_sql("grant usage on sequence participants_updates to public").execute(&place.pool).await.unwrap();
    sqlx::query!(
        "create function count_participants_update() returns trigger language plpgsql as
         $$ begin perform nextval('participants_updates'); return null; end $$"
    )
    .execute(&place.pool)
    .await
    .unwrap();
    sqlx::query!(
        "create trigger count_updates after update on participants
         for each statement execute function count_participants_update()"
    )
    .execute(&place.pool)
    .await
    .unwrap();
}

async fn statements(place: &Place) -> i64 {
    sqlx::query_scalar!(
        r#"select coalesce(last_value, 0) as "count!" from pg_sequences where sequencename = 'participants_updates'"#
    )
    .fetch_one(&place.pool)
    .await
    .unwrap()
}
