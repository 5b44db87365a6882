//! Read marks: raised together with the others of a batch, never lowered, and of participants only.

use chat_shared::{
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::UserId,
    limits::OWN_RUNS_MAX,
    position::Seq,
};

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

/// The talk's next message, sent by a device that had shown the messages up to `seen`.
fn sent(talk: &mut Talk, seen: u64) -> Event {
    let mut event = talk.message(now());
    let Fact::MessageSent(message) = &mut event.fact else { panic!("{event:?}") };
    message.seen_seq = Seq(seen);
    event
}

/// The read mark of the second user, and the runs of own messages after it.
async fn own_runs(place: &Place, talk: &Talk) -> (i64, String, i64) {
    let row = sqlx::query!(
        r#"select read_seq, own_runs::text as "own_runs!",
               unread_count(last_seq, floor_seq, read_seq, own_runs) as "unread!"
           from participants join conversations using (conversation_id) where user_id = $1"#,
        talk.users[1].as_uuid()
    );
    let row = row.fetch_one(&place.pool).await.unwrap();
    (row.read_seq, row.own_runs, row.unread)
}

#[tokio::test]
async fn sending_is_not_reading_and_own_messages_are_not_unread_r5_1() {
    let place = Place::new().await;
    let mut talk = ten_messages(&place).await;
    // The second user sends 11, 13, 15 and 17 and had shown the messages up to 9; the first user sends the others.
    let events: Vec<Event> = (11..=17).map(|_| sent(&mut talk, 9)).collect();
    keep(&place, &events).await;
    assert_eq!(own_runs(&place, &talk).await, (9, "{[11,12),[13,14),[15,16),[17,18)}".to_owned(), 4));
    keep(&place, &events[2..]).await;
    keep(&place, &[talk.read(talk.users[1], 10)]).await;
    assert_eq!(
        own_runs(&place, &talk).await,
        (11, "{[13,14),[15,16),[17,18)}".to_owned(), 3),
        "a run that follows is read"
    );
    keep(&place, &events).await;
    keep(&place, &[talk.read(talk.users[1], 14)]).await;
    assert_eq!(own_runs(&place, &talk).await, (15, "{[17,18)}".to_owned(), 1));
    let (other, own) = (sent(&mut talk, 17), sent(&mut talk, 18));
    keep(&place, &[own]).await;
    assert_eq!(own_runs(&place, &talk).await, (19, "{}".to_owned(), 0), "the device had shown all");
    keep(&place, &[other]).await;
    place.assert_stored(&talk).await;
}

#[tokio::test]
async fn the_last_runs_of_own_messages_are_kept() {
    let place = Place::new().await;
    let mut talk = ten_messages(&place).await;
    let events: Vec<Event> = (11..=110).map(|_| sent(&mut talk, 9)).collect();
    for some in events.chunks(30) {
        keep(&place, some).await;
    }
    let (read_seq, runs, unread) = own_runs(&place, &talk).await;
    let kept = i64::try_from(OWN_RUNS_MAX).unwrap();
    assert_eq!((read_seq, runs.matches('[').count(), unread), (9, OWN_RUNS_MAX, 110 - 9 - kept));
}

#[tokio::test]
async fn own_messages_that_are_stored_after_their_user_left_are_kept_for_the_return() {
    let place = Place::new().await;
    let mut talk = ten_messages(&place).await;
    remove(&place, talk.users[1], 9).await;
    let events: Vec<Event> = (11..=13).map(|_| sent(&mut talk, 9)).collect();
    keep(&place, &events).await;
    let runs = sqlx::query_scalar!(r#"select own_runs::text as "runs!" from former_participants"#);
    assert_eq!(runs.fetch_one(&place.pool).await.unwrap(), "{[11,12),[13,14)}");
}

/// Moves a user to those who take part no more, as a gateway does, with a read mark.
async fn remove(place: &Place, user: UserId, read_seq: i64) {
    let removal = sqlx::query!(
        "with gone as (delete from participants where user_id = $1 returning *)
         insert into former_participants (conversation_id, user_id, read_seq, has_left)
         select conversation_id, user_id, $2, true from gone",
        user.as_uuid(),
        read_seq
    );
    removal.execute(&place.pool).await.unwrap();
}

/// The change by which users join after the messages of a talk.
fn joining(talk: &Talk, added: &[UserId], returned: &[UserId]) -> Event {
    let change =
        ParticipantsChanged { added: added.to_vec(), returned: returned.to_vec(), removed: Vec::new(), lsn: None };
    let event = talk.unnumbered(talk.events.len() as u64, now());
    let participants = Participants { version: 2, ..Participants::default() };
    Event { participants, fact: Fact::ParticipantsChanged(change), ..event }
}

#[tokio::test]
async fn users_who_join_start_at_the_number_of_the_change_however_late_it_is_stored() {
    let place = Place::new().await;
    let mut talk = ten_messages(&place).await;
    let [newcomer, returning] = [UserId::random(), UserId::random()];
    talk.users.extend([newcomer, returning]);
    // The gateway inserted them when two messages of the ten were stored.
    for (user, read_seq) in [(newcomer, 2), (returning, 1)] {
        let joined = sqlx::query!(
            "insert into participants (conversation_id, user_id, role, joined_at, read_seq, since_seq)
             values ($1, $2, 'member', now(), $3, 2)",
            talk.conversation_id.as_uuid(),
            user.as_uuid(),
            read_seq
        );
        joined.execute(&place.pool).await.unwrap();
    }
    let joined = joining(&talk, &talk.users[2..], &[returning]);
    keep(&place, &[joined.clone(), talk.read(returning, 4)]).await;
    assert_eq!(place.reads(&talk).await, [10, 9, 10, 4].map(Seq));
    assert_eq!(place.since(&talk).await, [0, 0, 10, 10].map(Seq));
    keep(&place, &[joined, talk.read(returning, 3)]).await;
    assert_eq!(place.reads(&talk).await, [10, 9, 10, 4].map(Seq), "a repetition changes nothing");
}

#[tokio::test]
async fn the_first_participants_take_part_from_the_first_message_on() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    keep(&place, &[talk.message(now()), talk.message(now())]).await;
    let mut made = joining(&talk, &talk.users, &[]);
    made.participants.version = 1;
    keep(&place, &[made]).await;
    assert_eq!((place.reads(&talk).await, place.since(&talk).await), (vec![Seq(2), Seq(1)], vec![Seq::ZERO; 2]));
}

#[tokio::test]
async fn a_mark_that_is_stored_after_its_user_was_removed_is_kept_for_the_return() {
    let place = Place::new().await;
    let talk = ten_messages(&place).await;
    let leaver = talk.users[1];
    remove(&place, leaver, 3).await;
    for (seq, kept) in [(5, 5), (4, 5), (7, 7)] {
        keep(&place, &[talk.read(leaver, seq)]).await;
        let mark = sqlx::query!("select read_seq, last_read_message_id from former_participants")
            .fetch_one(&place.pool)
            .await
            .unwrap();
        let last = message_id(&talk.events[kept - 1]);
        assert_eq!((usize::try_from(mark.read_seq), mark.last_read_message_id), (Ok(kept), Some(last)));
    }
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
