//! Changes that are committed reach the log, whoever brings them there and however often.

use chat_shared::{
    clock::Clock,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::{ConversationId, UserId},
    position::{Seq, StreamSeq},
    wire::{Participant, Role},
};
use time::OffsetDateTime;

use super::place::{Place, users};
use crate::outbox::{Outbox, Sweeper};

/// Commits a change whose maker dies before it is published: a user joins.
async fn leave_behind(place: &Place, conversation_id: ConversationId, version: u64, list: &[UserId]) {
    let list: Vec<_> = list.iter().map(|&user_id| Participant { user_id, role: Role::Member }).collect();
    let event = Event {
        conversation_id,
        kind: chat_shared::wire::ConversationKind::Group,
        seq: Seq::ZERO,
        sent_at: Clock::System.now(),
        previous: StreamSeq::ZERO,
        participants: Participants { version, list, ..Participants::default() },
        fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
    };
    sqlx::query!(
        "insert into outbox (conversation_id, version, event, created_at) values ($1, $2, $3, $4)",
        conversation_id.as_uuid(),
        version.cast_signed(),
        event.encode(),
        OffsetDateTime::UNIX_EPOCH
    )
    .execute(&place.pool)
    .await
    .unwrap();
}

async fn sweep(place: &Place) {
    Sweeper::new(place.database.clone(), place.sender.clone()).sweep(Clock::System.now()).await.unwrap();
}

async fn pending(place: &Place) -> i64 {
    sqlx::query_scalar!(r#"select count(*) as "rows!" from outbox"#).fetch_one(&place.pool).await.unwrap()
}

/// The versions that the log has heard of, in its order.
async fn heard(place: &Place, conversation_id: ConversationId) -> Vec<u64> {
    let (_, mut event) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let mut versions = Vec::new();
    loop {
        versions.insert(0, event.participants.version);
        match place.log.get(event.previous).await {
            Ok(Some(previous)) if event.previous > StreamSeq::ZERO => event = previous,
            _ => return versions,
        }
    }
}

#[tokio::test]
async fn what_is_left_behind_is_swept_in_order_once_though_many_sweep() {
    let (place, [ana, ben, eve, fay]) = (Place::new().await, users());
    let conversation_id = place.group(ana, &[ben]).await.conversation_id;
    assert_eq!(pending(&place).await, 0, "who makes a change publishes it");
    leave_behind(&place, conversation_id, 2, &[ana, ben, eve]).await;
    leave_behind(&place, conversation_id, 3, &[ana, ben, eve, fay]).await;
    let (now, outbox) = (Clock::System.now(), Outbox::new(place.database.clone(), place.sender.clone()));
    let sweeping = async || Sweeper::new(place.database.clone(), place.sender.clone()).sweep(now).await;
    let (first, second, third, ()) = tokio::join!(sweeping(), sweeping(), sweeping(), outbox.publish(conversation_id));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(pending(&place).await, 0);
    assert_eq!(heard(&place, conversation_id).await, [1, 2, 3]);
    assert_eq!(place.send(fay, conversation_id, "I am in").await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn publishing_a_change_again_does_no_harm() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let conversation_id = place.group(ana, &[ben]).await.conversation_id;
    let outbox = Outbox::new(place.database.clone(), place.sender.clone());
    for _ in 0..2 {
        leave_behind(&place, conversation_id, 2, &[ana, ben, eve]).await;
        outbox.publish(conversation_id).await;
    }
    assert_eq!(heard(&place, conversation_id).await, [1, 2]);
    leave_behind(&place, conversation_id, 1, &[ana, ben]).await;
    outbox.publish(conversation_id).await;
    assert_eq!(heard(&place, conversation_id).await, [1, 2], "the log knows it");
    assert_eq!(pending(&place).await, 0);
}

#[tokio::test]
async fn a_change_that_cannot_be_read_holds_up_only_those_after_it() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let (broken, whole) =
        (place.group(ana, &[ben]).await.conversation_id, place.group(ana, &[ben]).await.conversation_id);
    sqlx::query!(
        "insert into outbox (conversation_id, version, event, created_at) values ($1, 3, 'nonsense', $2)",
        broken.as_uuid(),
        OffsetDateTime::UNIX_EPOCH
    )
    .execute(&place.pool)
    .await
    .unwrap();
    for conversation_id in [broken, whole] {
        leave_behind(&place, conversation_id, 2, &[ana, ben, eve]).await;
    }
    sweep(&place).await;
    assert_eq!(heard(&place, whole).await, [1, 2]);
    assert_eq!(heard(&place, broken).await, [1, 2], "the change before it is published");
    assert_eq!(pending(&place).await, 1, "and not published again");
}

/// Puts bytes that are no event in a conversation's place in the log, so that nothing can be appended after them.
async fn spoil(place: &Place, conversation_id: ConversationId) {
    let subject = place.log.subject(conversation_id);
    async_nats::jetstream::new(place.operator.clone())
        .publish(subject, "nonsense".into())
        .await
        .unwrap()
        .await
        .unwrap();
    place.sender.forget(conversation_id);
}

#[tokio::test]
async fn a_conversation_that_fails_holds_up_no_other() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let mut groups = Vec::new();
    for _ in 0..3 {
        groups.push(place.group(ana, &[ben]).await.conversation_id);
    }
    for &group in &groups {
        leave_behind(&place, group, 2, &[ana, ben, eve]).await;
    }
    spoil(&place, groups[0]).await;
    sweep(&place).await;
    assert_eq!(heard(&place, groups[1]).await, [1, 2]);
    assert_eq!(heard(&place, groups[2]).await, [1, 2]);
    assert_eq!(pending(&place).await, 1, "the one that fails is tried again");
}

#[tokio::test]
async fn sweeps_reach_rows_behind_many_that_fail() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let whole = place.group(ana, &[ben]).await.conversation_id;
    // More than one sweep takes.
    for _ in 0..70 {
        let nonsense = sqlx::query!(
            "insert into outbox (conversation_id, version, event, created_at) values ($1, 3, 'nonsense', $2)",
            ConversationId::random().as_uuid(),
            OffsetDateTime::UNIX_EPOCH
        );
        nonsense.execute(&place.pool).await.unwrap();
    }
    leave_behind(&place, whole, 2, &[ana, ben, eve]).await;
    let mut sweeper = Sweeper::new(place.database.clone(), place.sender.clone());
    for _ in 0..2 {
        sweeper.sweep(Clock::System.now()).await.unwrap();
    }
    assert_eq!(heard(&place, whole).await, [1, 2]);
    assert_eq!(pending(&place).await, 70);
}
