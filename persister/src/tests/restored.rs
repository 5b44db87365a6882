//! PostgreSQL comes back older than what was acknowledged, and everything is there again after a while.

use chat_shared::{
    event::{BlocksChanged, Event, Fact, Participants, ParticipantsChanged},
    ids::{ConversationId, UserId},
    position::{Seq, StreamSeq},
    wire::{ConversationKind, Participant, Role},
};

use super::{
    outage::private,
    place::{Place, Talk, items, now, until},
};
use crate::{
    accept_loss::accept_loss,
    checkpoint::Verified,
    gaps::{self, GapEntries},
    rebuild::{Roster, rebuild},
};

/// The database as it was when everything up to `acked` had been acknowledged, and something up to `stored` stored.
async fn go_back(place: &Place, acked: i64, stored: i64) {
    sqlx::query!(
        "update log_checkpoints set incarnation = 'earlier', acked_stream_seq = $1, last_stream_seq = $2",
        acked,
        stored
    )
    .execute(&place.pool)
    .await
    .unwrap();
}

async fn gap_entries(place: &Place) -> GapEntries {
    gaps::count(&place.pool, &place.state.name).await.unwrap()
}

/// The members of a conversation in order, and its version; none without the conversation.
async fn members(place: &Place, conversation_id: ConversationId) -> Option<(i64, Vec<uuid::Uuid>)> {
    let row = sqlx::query!(
        r#"select version, array(
               select user_id from participants p where p.conversation_id = c.conversation_id order by position
           ) as "members!" from conversations c where conversation_id = $1"#,
        conversation_id.as_uuid()
    )
    .fetch_optional(&place.pool)
    .await
    .unwrap();
    row.map(|row| (row.version, row.members))
}

/// The participants as of a version.
fn participants(version: u64, users: &[UserId], blocked_by: &[UserId]) -> Participants {
    let list = users.iter().map(|user_id| Participant { user_id: *user_id, role: Role::Member }).collect();
    Participants { version, list, blocked_by: blocked_by.to_vec(), business: None }
}

/// A change of who takes part.
fn change(talk: &Talk, kind: ConversationKind, participants: Participants) -> Event {
    let fact = Fact::ParticipantsChanged(ParticipantsChanged::default());
    Event { kind, participants, fact, ..talk.unnumbered(talk.events.len() as u64, now()) }
}

#[tokio::test]
async fn promise_1_a_restored_database_gets_everything_again() {
    let (_directory, servers, place) = private().await;
    let mut talk = place.talk().await;
    let persister = place.persister().await;
    for _ in 0..20 {
        place.append(&mut talk).await;
    }
    place.wait_for(&talk).await;
    let backup = servers.postgres.back_up().await.unwrap();
    for _ in 0..30 {
        place.append(&mut talk).await;
    }
    place.log.append_facts(&[talk.read(talk.users[1], 50)]).await.unwrap();
    // A conversation that is younger than the backup.
    let mut young = Talk::new();
    let made = change(&young, ConversationKind::Group, participants(1, &young.users, &[]));
    place.append_event(&mut young, &made).await;
    place.insert(&young).await;
    place.append(&mut young).await;
    place.wait_for(&talk).await;
    place.wait_for(&young).await;
    place.wait_until_settled().await;

    servers.postgres.kill().await.unwrap();
    servers.postgres.restore(&backup).await.unwrap();
    servers.postgres.start().await.unwrap();
    // Nothing more is appended: the look at the acknowledgements alone finds it.
    place.wait_for(&talk).await;
    until("rebuilding", async || members(&place, young.conversation_id).await.is_some()).await;
    place.wait_for(&young).await;
    until("the end of the gap", async || gap_entries(&place).await == GapEntries::default()).await;
    assert_eq!(place.reads(&talk).await, [Seq(50), Seq(50)]);
    assert_eq!(
        members(&place, young.conversation_id).await.unwrap().1,
        young.users.iter().map(|user_id| user_id.as_uuid()).collect::<Vec<_>>()
    );
    persister.stop().await;
}

#[tokio::test]
async fn nothing_is_stored_before_the_gap_is_recorded() {
    let place = Place::new().await;
    place.source().look(&place.store()).await.unwrap();
    let mut talk = place.talk().await;
    for _ in 0..6 {
        place.append(&mut talk).await;
    }
    place.keeper().keep(&items(1, &talk.events)).await.unwrap();
    // Entries 3 and 4 had been stored by another instance after the backup: its checkpoint says 5.
    go_back(&place, 2, 5).await;
    let refused = place.store().store(&crate::batch::Batch::of(&items(6, &talk.events[5..])), Some(&place.state)).await;
    assert_eq!(refused.unwrap(), None);
    place.keeper().keep(&items(6, &talk.events[5..])).await.unwrap();
    assert_eq!(gap_entries(&place).await, GapEntries { pending: 4, lost: 0 }, "3 to 6");
    let verified = place.store().verify(&place.state, StreamSeq(6), StreamSeq(6)).await.unwrap();
    assert_eq!(verified, Verified::Known, "once for all instances");
}

#[tokio::test]
async fn a_checkpoint_below_the_acknowledged_is_noticed() {
    let place = Place::new().await;
    let mut talk = place.talk().await;
    for _ in 0..4 {
        place.append(&mut talk).await;
    }
    place.keeper().keep(&items(1, &talk.events)).await.unwrap();
    assert!(place.store().note_acked(&place.state, StreamSeq(4)).await.unwrap());
    // As after a dump was loaded into the tables of a running server.
    place.alter("update log_checkpoints set last_stream_seq = 3, acked_stream_seq = 2").await;
    assert!(!place.store().note_acked(&place.state, StreamSeq(4)).await.unwrap());
    let verified = place.store().verify(&place.state, StreamSeq(4), StreamSeq(4)).await.unwrap();
    assert_eq!(verified, Verified::Recorded { first: StreamSeq(3), last: StreamSeq(4), is_older: true });
    assert!(place.store().note_acked(&place.state, StreamSeq(4)).await.unwrap());
}

#[tokio::test]
async fn a_gap_outlives_the_persister_that_works_on_it() {
    let place = Place::new().await;
    place.source().look(&place.store()).await.unwrap();
    let mut talk = place.talk().await;
    let marks: Vec<_> = (0..600).map(|_| talk.read(talk.users[1], 1)).collect();
    place.append(&mut talk).await;
    place.log.append_facts(&marks).await.unwrap();
    place.append(&mut talk).await;
    place.keeper().keep(&items(1, &talk.events)).await.unwrap();
    place.alter("delete from messages").await;
    go_back(&place, 0, 0).await;
    place.source().look(&place.store()).await.unwrap();
    assert_eq!(gap_entries(&place).await.pending, 602);
    assert!(place.repair().step().await.unwrap());
    assert_eq!(gap_entries(&place).await.pending, 102, "what is left to the next");
    assert!(place.repair().step().await.unwrap());
    assert!(!place.repair().step().await.unwrap());
    place.assert_stored(&talk).await;
}

#[tokio::test]
async fn entries_that_the_log_lost_too_are_named() {
    let place = Place::new().await;
    place.source().look(&place.store()).await.unwrap();
    let mut talk = place.talk().await;
    for _ in 0..5 {
        place.append(&mut talk).await;
    }
    place.keeper().keep(&items(1, &talk.events)).await.unwrap();
    place.alter("delete from messages").await;
    go_back(&place, 0, 0).await;
    place.source().look(&place.store()).await.unwrap();
    place.age_out(StreamSeq(3)).await;
    assert!(place.repair().step().await.unwrap());
    assert_eq!(gap_entries(&place).await, GapEntries { pending: 3, lost: 2 });
    assert!(place.repair().step().await.unwrap());
    assert!(!place.repair().step().await.unwrap());
    assert_eq!(place.stored(&talk).await.len(), 3);
    let error = accept_loss(&place.own_pool, &place.state.name, false).await.unwrap_err();
    assert!(error.to_string().contains("--yes"), "{error}");
    accept_loss(&place.own_pool, &place.state.name, true).await.unwrap();
    assert_eq!(gap_entries(&place).await, GapEntries::default());
}

#[tokio::test]
async fn an_entry_that_the_log_lacks_in_its_middle_keeps_no_gap_open() {
    let place = Place::new().await;
    place.source().look(&place.store()).await.unwrap();
    let (mut talk, mut removed) = (place.talk().await, place.talk().await);
    for turn in 0..5 {
        place.append(if turn == 2 { &mut removed } else { &mut talk }).await;
    }
    go_back(&place, 0, 0).await;
    place.source().look(&place.store()).await.unwrap();
    assert_eq!(gap_entries(&place).await, GapEntries { pending: 5, lost: 0 });
    place.remove_entries(&removed).await;
    while place.repair().step().await.unwrap() {}
    assert_eq!(gap_entries(&place).await, GapEntries { pending: 0, lost: 1 });
    place.assert_stored(&talk).await;
}

#[tokio::test]
async fn a_message_that_is_stored_while_its_conversation_is_rebuilt_raises_the_head() {
    let place = Place::new().await;
    place.source().look(&place.store()).await.unwrap();
    let mut young = Talk::new();
    let made = change(&young, ConversationKind::Group, participants(1, &young.users, &[]));
    place.append_event(&mut young, &made).await;
    place.append(&mut young).await;
    go_back(&place, 0, 0).await;
    place.source().look(&place.store()).await.unwrap();
    place.append(&mut young).await;
    place.keeper().keep(&items(3, &young.events[1..])).await.unwrap();
    assert!(place.repair().step().await.unwrap());
    // As the transaction that stored the second message leaves it, if it began before the row was there.
    place.alter("update conversations set last_seq = 1").await;
    while place.repair().step().await.unwrap() {}
    place.assert_stored(&young).await;
}

#[tokio::test]
async fn conversations_are_rebuilt_as_the_log_has_them() {
    let place = Place::new().await;
    let (stays, leaves, joins) = (UserId::random(), UserId::random(), UserId::random());
    let mut group = Talk::new();
    let old = change(&group, ConversationKind::Group, participants(2, &[stays, leaves], &[]));
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([old.clone()])).await.unwrap(), (1, 0));
    place.alter("update participants set read_seq = 7").await;
    let new = change(&group, ConversationKind::Group, participants(3, &[stays, joins], &[]));
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([new])).await.unwrap(), (1, 0));
    let expected = Some((3, vec![stays.as_uuid(), joins.as_uuid()]));
    assert_eq!(members(&place, group.conversation_id).await, expected);
    group.users = vec![stays, joins];
    assert_eq!(place.reads(&group).await, [Seq(7), Seq(0)], "what had been read stays");
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([old])).await.unwrap(), (0, 0), "no version goes back");
}

#[tokio::test]
async fn a_rebuilt_pair_stays_unique_and_keeps_its_blocks() {
    let place = Place::new().await;
    let (one, other) = (UserId::random(), UserId::random());
    let (direct, second) = (Talk::new(), Talk::new());
    let blocked = Event {
        fact: Fact::BlocksChanged(BlocksChanged { user_id: one, lsn: None }),
        ..change(&direct, ConversationKind::Direct, participants(2, &[one, other], &[one]))
    };
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([blocked])).await.unwrap(), (1, 0));
    let blocks =
        async || sqlx::query!("select blocker_id, blocked_id from blocks").fetch_all(&place.pool).await.unwrap();
    assert_eq!(
        blocks().await.iter().map(|row| (row.blocker_id, row.blocked_id)).collect::<Vec<_>>(),
        [(one.as_uuid(), other.as_uuid())]
    );
    let again = change(&second, ConversationKind::Direct, participants(1, &[other, one], &[]));
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([again])).await.unwrap(), (0, 1));
    assert_eq!(members(&place, second.conversation_id).await, None);
    let unblocked = change(&direct, ConversationKind::Direct, participants(3, &[one, other], &[]));
    assert_eq!(rebuild(&place.own_pool, &Roster::newest([unblocked])).await.unwrap(), (1, 0));
    assert!(blocks().await.is_empty());
}
