//! PostgreSQL or NATS goes away: what the other has is still served, the rest is refused with a time to come back.

use chat_dev::{
    ports::Ports,
    servers::{Durability, NatsServers, Servers, postgres},
    test_servers::TestServers,
};
use chat_shared::{
    clock::Clock,
    event::Event,
    ids::MessageId,
    log::AppendError,
    position::Seq,
    wire::{ErrorCode, MarkRead, SendMessage},
};

use super::place::{Place, until, users};
use crate::{history::Place as PageOf, refusal::Refusal, send::Sender};

pub async fn private() -> (tempfile::TempDir, Servers, Place) {
    let servers = TestServers::from_env().unwrap();
    let directory = tempfile::tempdir_in(&servers.scratch).unwrap();
    let private =
        Servers::start(&servers.binaries, directory.path(), Durability::ThrowAway, NatsServers::One, &Ports::fresh())
            .await;
    let private = private.unwrap();
    let urls = private.urls("postgres");
    postgres::migrate(&urls.postgres).await.unwrap();
    let place = Place::on(&urls).await;
    (directory, private, place)
}

#[tokio::test]
async fn without_postgres_the_log_serves_history_and_knows_the_participants_promise_10() {
    let (_directory, servers, place) = private().await;
    let [ana, ben, stranger] = users();
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 5).await;
    place.store(id, 3, &[]).await;
    let newest = place.history.page(ben, id, PageOf::Newest, 1).await.unwrap().messages[0].message_id;
    for is_paused in [true, false] {
        if is_paused {
            servers.postgres.pause().unwrap();
        } else {
            servers.postgres.kill().await.unwrap();
        }
        assert_eq!(place.page(ben, id, PageOf::Newest, 10).await, Ok((vec![1, 2, 3, 4, 5], false)));
        assert_eq!(place.page(ben, id, PageOf::Before(Seq(4)), 2).await, Ok((vec![2, 3], true)));
        assert_eq!(place.page(ben, id, PageOf::After(Seq(1)), 2).await, Ok((vec![2, 3], true)));
        let refused = place.page(stranger, id, PageOf::Newest, 10).await;
        assert_eq!(refused, Err(Refusal::no_such_conversation()));
        let receipts = place.receipts();
        let mark = async |message_id, seq| {
            receipts.mark_read(ben, MarkRead { conversation_id: id, message_id, seq }).unwrap().await
        };
        assert_eq!(mark(newest, None).await, Ok(()));
        let unknown = mark(MessageId::random(), None).await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::Unavailable, "it may be an old one");
        assert_eq!(mark(MessageId::random(), Some(Seq(1))).await, Ok(()), "of a number it isn't looked for");
        assert_eq!(place.conversations.get(ana, id).await.unwrap_err().code, ErrorCode::Unavailable);
        if is_paused {
            servers.postgres.resume().unwrap();
        } else {
            servers.postgres.start().await.unwrap();
        }
        until("coming back", async || place.conversations.get(ana, id).await.is_ok()).await;
    }
}

#[tokio::test]
async fn without_nats_postgres_serves_history_and_changes_wait_for_the_sweeper_promise_10() {
    let (_directory, servers, place) = private().await;
    let [ana, ben, eve] = users();
    let id = place.group(ana, &[ben]).await.conversation_id;
    place.send_many(ana, id, 5).await;
    place.store(id, 5, &[]).await;
    let newest = place.history.page(ben, id, PageOf::Newest, 1).await.unwrap().messages[0].message_id;
    let receipts = place.receipts();
    receipts.remember(id, newest, Seq(5));
    servers.nats.kill().await.unwrap();
    let mark = receipts.mark_read(ben, MarkRead { conversation_id: id, message_id: newest, seq: None }).unwrap();
    assert_eq!(mark.await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(place.page(ben, id, PageOf::Newest, 3).await, Ok((vec![3, 4, 5], true)));
    assert_eq!(place.page(eve, id, PageOf::Newest, 3).await, Err(Refusal::no_such_conversation()));
    let group = place.conversations.add(ana, id, &[eve]).await.unwrap();
    assert_eq!((group.version, group.participants.len()), (2, 3));
    assert_eq!(place.page(eve, id, PageOf::Newest, 3).await, Ok((vec![3, 4, 5], true)));
    // More makers than connections: they wait for the log one after another, and reading goes on meanwhile.
    let making = (0..12).map(|_| place.direct(ana, chat_shared::ids::UserId::random()));
    let mut making = std::pin::pin!(futures_util::future::join_all(making));
    loop {
        // A page that is cut short by the end of the making is no loss.
        tokio::select! {
            made = &mut making => break assert_eq!(made.len(), 12),
            read = place.page(ben, id, PageOf::Newest, 3) => assert_eq!(read, Ok((vec![3, 4, 5], true))),
        }
    }
    servers.nats.start().await.unwrap();
    let now = chat_shared::clock::Clock::System.now().after(std::time::Duration::from_mins(1));
    until("sweeping", async || {
        crate::outbox::Sweeper::new(place.database.clone(), place.sender.clone()).sweep(now).await.is_ok()
            && matches!(place.log.newest(id).await, Ok(Some((_, newest))) if newest.participants.version == 2)
    })
    .await;
    assert_eq!(place.send(eve, id, "6").await.unwrap().seq, Seq(6));
}

#[tokio::test]
async fn a_conversation_that_the_log_holds_nothing_of_any_more_is_written_to_again_promise_3() {
    let place = Place::new().await;
    let [ana, ben] = users();
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 5).await;
    place.store(id, 5, &[]).await;
    // The gateway has delivered the last event, so it knows of it; then its time in the log is over.
    let (at, event) = place.log.newest(id).await.unwrap().unwrap();
    place.sender.learn(&event, at);
    let stream = async_nats::jetstream::new(place.operator.clone()).get_stream(place.log.name()).await.unwrap();
    stream.purge().await.unwrap();
    assert_eq!(place.send(ben, id, "after a week").await.unwrap().seq, Seq(6));
}

#[tokio::test]
async fn numbers_do_not_repeat_after_a_purge_promise_3() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    let another = || {
        let (tail, database, content) = (place.tail.clone(), place.database.clone(), place.content.clone());
        Sender::new(tail, database, content, Clock::System, place.quotas.clone(), &place.tasks)
    };
    let send = async |sender: &Sender, from| {
        let (message_id, text) = (MessageId::random(), "hello".to_owned());
        let command = SendMessage { conversation_id: id, message_id, text, is_repeat: false, seen_seq: None };
        sender.send(from, command).await.unwrap().seq
    };
    let purge = async || {
        let stream = async_nats::jetstream::new(place.operator.clone()).get_stream(place.log.name()).await.unwrap();
        stream.purge().await.unwrap();
    };
    let [warm, from_postgres] = [another(), another()];
    assert_eq!([send(&warm, ana).await, send(&place.sender, ben).await], [Seq(1), Seq(2)]);
    place.store(id, 2, &[]).await;
    purge().await;
    assert_eq!(
        from_postgres.participants_with(ana, id).await.unwrap().list.len(),
        2,
        "it knows the head that PostgreSQL has"
    );
    assert_eq!([send(&warm, ana).await, send(&place.sender, ben).await], [Seq(3), Seq(4)], "both knew older heads");
    place.store(id, 4, &[]).await;
    purge().await;
    assert_eq!(send(&from_postgres, ana).await, Seq(5), "the log holds nothing, as when it looked");
}

#[tokio::test]
async fn appends_are_refused_at_once_while_none_is_answered() {
    let (_directory, servers, place) = private().await;
    let [ana, ben] = users();
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 1).await;
    let (at, newest) = place.log.newest(id).await.unwrap().unwrap();
    let event = Event { previous: at, seq: Seq(2), ..newest };
    servers.nats.pause().unwrap();
    let refused = async || matches!(place.log.append(&event, "next").await, Err(AppendError::Refused(_)));
    assert!(!refused().await, "the first one waits and learns nothing");
    until("a refusal", refused).await;
    servers.nats.resume().unwrap();
    // What was sent while it was frozen is appended then, at the latest by the next attempt.
    let is_there = async || matches!(place.log.append(&event, "next").await, Ok(_) | Err(AppendError::HeadMoved));
    until("an answer", is_there).await;
    assert_eq!(place.send(ben, id, "3").await.unwrap().seq, Seq(3));
}
