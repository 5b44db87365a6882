//! What can't be stored is kept aside with its reason, blocks nobody, and can be tried again.

use chat_shared::{clock::Timestamp, log, position::Seq};

use super::place::{Place, Talk, items, now, until};
use crate::replay::{Replayed, replay};

struct Letter {
    stream_seq: i64,
    payload: Vec<u8>,
    reason: String,
}

async fn letters(place: &Place) -> Vec<Letter> {
    sqlx::query_as!(Letter, "select stream_seq, payload, reason from dead_letters order by stream_seq")
        .fetch_all(&place.pool)
        .await
        .unwrap()
}

/// No partition will ever be made for it by a persister.
fn far_off() -> Timestamp {
    now().day().plus(400).start()
}

#[tokio::test]
async fn poison_ends_in_the_dead_letters_and_does_not_block_the_others() {
    let place = Place::new().await;
    let (mut talk, mut other) = (place.talk().await, place.talk().await);
    place.append(&mut talk).await;
    place.append_poison(&mut other, b"poison").await;
    place.append(&mut talk).await;
    let stray = other.unnumbered(7, far_off());
    place.append_event(&mut other, &stray).await;
    let numberless = other.unnumbered(0, now());
    place.append_event(&mut other, &numberless).await;
    place.append(&mut talk).await;
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    // A refused entry is set aside once another one has been stored after its first refusal.
    while place.store().count_letters().await.unwrap() < 3 {
        place.append(&mut talk).await;
        place.wait_for(&talk).await;
    }
    place.wait_until_settled().await;
    persister.stop().await;
    let letters = letters(&place).await;
    assert_eq!(letters.iter().map(|letter| letter.stream_seq).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(letters[0].payload, b"poison");
    assert_eq!(letters[1].payload, stray.encode());
    for (letter, reason) in letters.iter().zip(["can't be read", "no partition", "the number 0"]) {
        assert!(letter.reason.contains(reason), "{}", letter.reason);
    }
}

#[tokio::test]
async fn an_event_on_a_subject_that_is_not_its_own_is_never_stored_r6_4() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    place.append(&mut talk).await;
    let namespace = place.state.name.strip_suffix("-log").unwrap();
    let (message, mark) = (talk.unnumbered(1 << 40, now()), talk.read(talk.users[0], 1 << 40));
    let elsewhere = [
        (format!("{namespace}.gateway.fact"), &message),
        (format!("{namespace}.gateway.fact"), &mark),
        (log::subject_of(namespace, &mark), &message),
        (log::subject_of(namespace, &message), &mark),
        (place.log.subject(Talk::new().conversation_id), &message),
    ];
    for (subject, event) in &elsewhere {
        place.append_at(subject, &event.encode()).await;
    }
    let persister = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    persister.stop().await;
    let letters = letters(&place).await;
    assert_eq!(letters.iter().map(|letter| letter.stream_seq).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert!(letters.iter().all(|letter| letter.reason.contains("not its own")), "{}", letters[0].reason);
    assert_eq!(replay(&place.keeper()).await.unwrap(), Replayed { stored: 0, kept: 5 });
    place.assert_stored(&talk).await;
    assert_eq!(place.reads(&talk).await, [Seq::ZERO, Seq(1)], "no number of theirs counts");
}

#[tokio::test]
async fn the_offending_entry_is_found_among_hundreds() {
    let place = Place::new().await;
    sqlx::query!("alter table messages add constraint no_thirteen check (seq % 100 <> 13)")
        .execute(&place.pool)
        .await
        .unwrap();
    let mut talk = place.talk().await;
    let events: Vec<_> = (0..300).map(|_| talk.message(now())).collect();
    let refusals = place.keeper().keep(&items(1, &events)).await.unwrap();
    let mut refused: Vec<_> = refusals.iter().map(|refusal| refusal.stream_seq.0).collect();
    refused.sort_unstable();
    assert_eq!(refused, [13, 113, 213]);
    assert!(refusals[0].reason.contains("no_thirteen"), "{}", refusals[0].reason);
    assert_eq!(place.stored(&talk).await.len(), 297);
}

#[tokio::test]
async fn an_entry_is_buried_once_however_often_it_is_delivered() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    place.append_poison(&mut talk, b"poison").await;
    let first = place.persister().await;
    place.wait_until_settled().await;
    first.stop().await;
    let letter = crate::store::DeadLetter {
        stream_seq: chat_shared::position::StreamSeq(1),
        subject: place.log.subject(talk.conversation_id),
        payload: b"poison".to_vec(),
        reason: "again".to_owned(),
    };
    assert!(place.keeper().bury(&place.state.name, &letter).await.unwrap());
    assert_eq!(letters(&place).await.len(), 1);
}

#[tokio::test]
async fn dead_letters_that_can_be_stored_by_now_leave_the_table() {
    let place = Place::new().await;
    let (mut talk, mut other, mut good) = (place.talk().await, place.talk().await, place.talk().await);
    let event = talk.message(far_off());
    place.append_event(&mut talk, &event).await;
    place.append_poison(&mut other, b"poison").await;
    place.append(&mut good).await;
    let persister = place.persister().await;
    place.wait_until_settled().await;
    persister.stop().await;
    assert_eq!(replay(&place.keeper()).await.unwrap(), Replayed { stored: 0, kept: 2 });
    place.make_partition(far_off()).await;
    assert_eq!(replay(&place.keeper()).await.unwrap(), Replayed { stored: 1, kept: 1 });
    place.assert_stored(&talk).await;
    assert_eq!(letters(&place).await[0].payload, b"poison");
}

#[tokio::test]
async fn a_schema_fault_buries_nothing() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    place.alter("alter table messages add column extra int not null").await;
    for _ in 0..60 {
        place.append(&mut talk).await;
    }
    let persister = place.persister().await;
    until("another attempt", async || place.redelivered().await >= 60).await;
    assert_eq!(place.store().count_letters().await.unwrap(), 0, "each message is refused for the same reason");
    place.alter("alter table messages alter column extra drop not null").await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    assert_eq!(place.store().count_letters().await.unwrap(), 0);
    persister.stop().await;
}

#[tokio::test]
async fn a_lone_refused_entry_waits_for_another() {
    let place = Place::new().await;
    let (mut talk, mut other) = (place.talk().await, place.talk().await);
    let stray = talk.unnumbered(1, far_off());
    place.append_event(&mut talk, &stray).await;
    let persister = place.persister().await;
    until("another attempt", async || place.redelivered().await > 0).await;
    assert_eq!(place.store().count_letters().await.unwrap(), 0, "nothing shows that the entry is at fault");
    // Another kind of entry shows nothing either.
    let mark = other.read(other.users[0], 1);
    place.log.append_facts(&[mark]).await.unwrap();
    place.append(&mut other).await;
    place.wait_for(&other).await;
    place.wait_until_settled().await;
    persister.stop().await;
    assert_eq!(letters(&place).await.iter().map(|letter| letter.stream_seq).collect::<Vec<_>>(), [1]);
}
