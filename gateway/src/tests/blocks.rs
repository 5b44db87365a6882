//! Two of whom one has blocked the other: nothing passes between them directly, either way, and groups go on. Who connects
//! has no socket.

use std::time::Duration;

use chat_shared::{
    event::{Event, Fact},
    ids::{ConversationId, MessageId, UserId},
    position::StreamSeq,
    wire::{
        BlockList, Command, Confirm, CreateConversation, ErrorCode, MarkRead, Presence, Push, ReceiptKind, Reply,
        SetTyping,
    },
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{
    gateway::{self, Gateway},
    place::{Place, users},
    presence::{is_online, presence_of, start, watch},
    receipts::notify,
    removal::events,
};
use crate::{
    connection::simulated::Client,
    delivery,
    presence::{Parting, presence_of as ask_presence, start as presence_tasks},
    receipts,
    refusal::Refusal,
    send::Sender,
};

/// Who has blocked whom, by the last event of the conversation.
async fn blocked_by(place: &Place, conversation_id: ConversationId) -> Vec<UserId> {
    let (_, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();
    newest.participants.blocked_by
}

const fn away(user_id: UserId) -> Presence {
    Presence { user_id, is_online: false, last_seen_at: None }
}

#[tokio::test]
async fn nothing_is_sent_either_way_on_any_gateway_until_the_block_ends_and_groups_go_on_r6_4() {
    let (mut place, [ana, ben]) = (Place::new().await, users());
    let direct = place.direct(ana, ben).await.conversation_id;
    let group = place.group(ana, &[ben]).await.conversation_id;
    // Another gateway, which remembers how it was before.
    place.sender = another_sender(&place);
    place.send(ben, direct, "before").await.unwrap();
    place.conversations.block(ana, ben).await.unwrap();
    for user_id in [ben, ana] {
        assert_eq!(place.send(user_id, direct, "hello?").await, Err(Refusal::blocked()), "in the same words");
        assert!(place.send(user_id, group, "hello").await.is_ok());
    }
    place.conversations.block(ben, ana).await.unwrap();
    place.conversations.unblock(ana, ben).await.unwrap();
    assert_eq!(blocked_by(&place, direct).await, [ben]);
    assert_eq!(place.send(ana, direct, "hello?").await, Err(Refusal::blocked()), "now the other way round");
    place.conversations.unblock(ben, ana).await.unwrap();
    for user_id in [ben, ana] {
        assert!(place.send(user_id, direct, "hello again").await.is_ok());
    }
}

fn another_sender(place: &Place) -> Sender {
    let (tail, database, content) = (place.tail.clone(), place.database.clone(), place.content.clone());
    Sender::new(tail, database, content, chat_shared::clock::Clock::System, place.quotas.clone(), &place.tasks)
}

#[tokio::test]
async fn what_was_accepted_before_a_block_keeps_its_answer_and_reading_goes_on_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    let command = chat_shared::wire::SendMessage {
        conversation_id: id,
        message_id: MessageId::random(),
        text: "before".to_owned(),
        is_repeat: false,
        seen_seq: None,
    };
    let first = place.sender.send(ben, command.clone()).await.unwrap();
    place.conversations.block(ana, ben).await.unwrap();
    let repeat = chat_shared::wire::SendMessage { is_repeat: true, ..command.clone() };
    let repeated = place.sender.send(ben, repeat).await.unwrap();
    assert_eq!((repeated.seq, repeated.is_repeat), (first.seq, true));
    let receipts = place.receipts();
    receipts
        .mark_read(ana, MarkRead { conversation_id: id, message_id: command.message_id, seq: None })
        .unwrap()
        .await
        .unwrap();
    assert!(place.conversations.get(ben, id).await.is_ok());
}

#[tokio::test]
async fn a_direct_conversation_is_not_made_against_a_block_and_the_one_that_exists_is_found_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let existing = place.direct(ana, eve).await.conversation_id;
    for other in [ben, eve] {
        place.conversations.block(ana, other).await.unwrap();
    }
    for (creator, user_id) in [(ana, ben), (ben, ana)] {
        let refused = place.conversations.create(creator, &CreateConversation::Direct { user_id }).await;
        assert_eq!(refused, Err(Refusal::blocked()));
    }
    assert_eq!(place.direct(eve, ana).await.conversation_id, existing);
    place.conversations.unblock(ana, ben).await.unwrap();
    assert_eq!(blocked_by(&place, place.direct(ben, ana).await.conversation_id).await, []);
}

#[tokio::test]
async fn a_block_and_a_conversation_that_are_made_at_the_same_time_see_each_other_r6_4() {
    let place = Place::new().await;
    let race = async || {
        let [ana, ben] = users();
        let direct = CreateConversation::Direct { user_id: ana };
        let (blocked, made) =
            tokio::join!(place.conversations.block(ana, ben), place.conversations.create(ben, &direct));
        blocked.unwrap();
        match made {
            Ok(made) => {
                let id = made.conversation.conversation_id;
                assert_eq!(blocked_by(&place, id).await, [ana]);
                assert_eq!(place.send(ben, id, "hello?").await, Err(Refusal::blocked()));
            }
            Err(refusal) => assert_eq!(refusal, Refusal::blocked()),
        }
    };
    for _ in 0..8 {
        join_all((0..3).map(|_| race())).await;
    }
}

#[tokio::test]
async fn blocks_that_change_quickly_reach_the_log_in_order_and_it_ends_as_the_table_does_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    let flicker = async |by, user_id| {
        for _ in 0..4 {
            place.conversations.block(by, user_id).await.unwrap();
            place.conversations.unblock(by, user_id).await.unwrap();
        }
    };
    tokio::join!(flicker(ana, ben), flicker(ben, ana), flicker(ana, ben));
    place.conversations.block(ben, ana).await.unwrap();
    let events = events(&place, id).await;
    let versions: Vec<_> = events.iter().map(|event| event.participants.version).collect();
    assert!(versions.is_sorted_by(|earlier, later| earlier < later), "{versions:?}");
    assert!(events.iter().all(|event| matches!(event.fact, Fact::BlocksChanged(_))));
    assert_eq!(blocked_by(&place, id).await, [ben]);
    let conversation = place.conversations.get(ana, id).await.unwrap();
    assert_eq!(Some(&conversation.version), versions.last());
}

#[tokio::test]
async fn messages_in_flight_stand_before_the_block_or_are_refused_r6_4() {
    let (mut place, [ana, ben]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    place.sender = another_sender(&place);
    let flood = async || {
        let mut accepted = 0;
        while place.send(ben, id, "hello").await.is_ok() {
            accepted += 1;
        }
        accepted
    };
    let block = async {
        tokio::time::timeout(Duration::from_secs(30), async {
            while place.log.newest(id).await.unwrap().unwrap().1.seq.0 < 20 {}
        })
        .await
        .unwrap();
        place.conversations.block(ana, ben).await.unwrap();
        place.log.newest(id).await.unwrap().unwrap().1
    };
    let (one, other, newest) = tokio::join!(flood(), flood(), block);
    assert!(matches!(newest.fact, Fact::BlocksChanged(_)), "nothing follows the block");
    assert_eq!(newest.seq.0, one + other);
    let (_, last) = place.log.newest(id).await.unwrap().unwrap();
    assert_eq!(last, newest);
}

#[tokio::test]
async fn who_blocks_sees_it_on_their_devices_and_in_lists_and_the_other_one_nothing_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let id = place.direct(ana, ben).await.conversation_id;
    place.group(ana, &[ben]).await;
    let (mut blocker, mut other) = (Client::connect(&here, ana).await, Client::connect(&here, ben).await);
    let is_blocked = async |user_id| {
        let page = place.conversations.list(user_id, 9, None).await.unwrap();
        let found: Vec<_> = page.conversations.iter().filter(|conversation| conversation.is_blocked).collect();
        let one = place.conversations.get(user_id, id).await.unwrap();
        assert!(found.iter().all(|conversation| **conversation == one));
        assert_eq!(one.is_blocked, found.len() == 1);
        one.is_blocked
    };
    for (is_now, version) in [(true, 2), (false, 3)] {
        if is_now {
            place.conversations.block(ana, ben).await.unwrap();
        } else {
            place.conversations.unblock(ana, ben).await.unwrap();
        }
        assert_eq!((is_blocked(ana).await, is_blocked(ben).await), (is_now, false));
        let change = events(&place, id).await.pop().unwrap();
        notify(&place, StreamSeq::ZERO, &change).await;
        let Push::Conversation { conversation, .. } = blocker.push().await else { panic!() };
        assert_eq!((conversation.is_blocked, conversation.version), (is_now, version));
    }
    // What comes next to the other one is something else.
    place.send_many(ana, id, 1).await;
    notify(&place, StreamSeq::ZERO, &events(&place, id).await.pop().unwrap()).await;
    assert!(matches!(other.push().await, Push::Message { .. }));
}

#[tokio::test]
async fn there_is_no_presence_between_the_two_wherever_else_they_meet_until_the_block_ends_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    place.direct(ana, ben).await;
    place.group(ana, &[ben, eve]).await;
    let (mut one, mut other) = (Client::connect(&here, ana).await, Client::connect(&there, ben).await);
    assert_eq!(is_online(&watch(&mut one, &[ben, eve]).await.unwrap()), [(ben, true), (eve, false)]);
    assert_eq!(is_online(&watch(&mut other, &[ana]).await.unwrap()), [(ana, true)]);

    place.conversations.block(ana, ben).await.unwrap();
    assert_eq!(presence_of(one.push().await), [away(ben)]);
    assert_eq!(presence_of(other.push().await), [away(ana)], "either way");
    for (state, user_id, whom) in [(&there, ana, ben), (&here, ben, ana)] {
        assert_eq!(ask_presence(state, user_id, vec![whom]).await, Ok(vec![away(whom)]));
    }
    other.leave(Parting::Final).await;
    let mut back = Client::connect(&here, ben).await;
    assert_eq!(watch(&mut back, &[ana]).await.unwrap(), [away(ana)], "a list that is made now is as blind");
    let _eve = Client::connect(&there, eve).await;
    assert_eq!(is_online(&presence_of(one.push().await)), [(eve, true)], "nothing was said of ben");

    place.conversations.unblock(ana, ben).await.unwrap();
    assert_eq!(is_online(&presence_of(one.push().await)), [(ben, true)]);
    assert_eq!(is_online(&presence_of(back.push().await)), [(ana, true)]);
}

#[tokio::test]
async fn a_gateway_that_heard_nothing_of_a_block_hides_presence_once_it_hears_again_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    // Nothing reaches it over NATS.
    let deaf = gateway::state(&place).await;
    presence_tasks(&deaf);
    deaf.tasks.best_effort("resync", delivery::resync(deaf.clone()));
    place.direct(ana, ben).await;
    let (_ana, mut other) = (Client::connect(&here, ana).await, Client::connect(&deaf, ben).await);
    assert_eq!(is_online(&watch(&mut other, &[ana]).await.unwrap()), [(ana, true)]);
    place.conversations.block(ana, ben).await.unwrap();
    deaf.resync.notify_one();
    assert_eq!(presence_of(other.push().await), [away(ana)]);
}

/// The next push but those of typing, which ends by itself after some seconds.
async fn past_typing(client: &mut Client) -> Push {
    loop {
        let push = client.push().await;
        if !matches!(push, Push::Typing { .. }) {
            return push;
        }
    }
}

#[tokio::test]
async fn neither_typing_nor_deliveries_are_told_and_only_readers_hear_of_reading_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let here = start(&place).await;
    receipts::start(&here);
    let direct = place.direct(ana, ben).await.conversation_id;
    let group = place.group(ana, &[ben]).await.conversation_id;
    let aside = place.direct(eve, ben).await.conversation_id;
    let (mut one, mut other) = (Client::connect(&here, ana).await, Client::connect(&here, ben).await);
    let mut third = Client::connect(&here, eve).await;
    place.send_many(ana, direct, 1).await;
    let message: Event = events(&place, direct).await.pop().unwrap();
    notify(&place, StreamSeq::ZERO, &message).await;
    let Push::Message { cursor: Some(cursor), .. } = other.push().await else { panic!() };
    assert!(matches!(one.push().await, Push::Message { .. }));

    place.conversations.block(ben, ana).await.unwrap();
    let typing = |conversation_id| Command::SetTyping(SetTyping { conversation_id, is_typing: true });
    assert_eq!(other.ask(Command::Confirm(Confirm { cursor })).await, Reply::Done { reference: 7 });
    // Deliveries are told in lots, one after the other: after the second receipt the lot with the blocked one is done.
    for _ in 0..2 {
        place.send_many(eve, aside, 1).await;
        notify(&place, StreamSeq::ZERO, &events(&place, aside).await.pop().unwrap()).await;
        assert!(matches!(third.push().await, Push::Message { .. }));
        let Push::Message { cursor: Some(cursor), .. } = other.push().await else { panic!() };
        assert_eq!(other.ask(Command::Confirm(Confirm { cursor })).await, Reply::Done { reference: 7 });
        assert!(matches!(third.push().await, Push::Receipt { .. }));
    }
    assert_eq!(other.ask(typing(direct)).await, Reply::Done { reference: 7 }, "nobody learns that it is of no use");
    assert_eq!(one.ask(typing(direct)).await, Reply::Done { reference: 7 });
    assert_eq!(other.ask(typing(group)).await, Reply::Done { reference: 7 });
    assert!(matches!(one.push().await, Push::Typing { typing } if typing.conversation_id == group));

    place.conversations.unblock(ben, ana).await.unwrap();
    place.send_many(ana, direct, 1).await;
    notify(&place, StreamSeq::ZERO, &events(&place, direct).await.pop().unwrap()).await;
    let Push::Message { cursor: Some(cursor), .. } = other.push().await else { panic!() };
    assert!(matches!(past_typing(&mut one).await, Push::Message { .. }), "and no delivery of the first");
    assert_eq!(other.ask(Command::Confirm(Confirm { cursor })).await, Reply::Done { reference: 7 });
    let Push::Receipt { receipt: delivered, .. } = past_typing(&mut one).await else { panic!("a receipt is pushed") };
    assert_eq!((delivered.kind, delivered.seq.0), (ReceiptKind::Delivered, 2));
}

#[tokio::test]
async fn blocks_are_made_listed_and_ended_by_rest_r6_4() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let path = |user_id: UserId| format!("/v1/blocks/{}", user_id.as_uuid());
    for user_id in [ben, eve, ben] {
        assert_eq!(gateway.ask(ana, Method::PUT, &path(user_id), None).await, (StatusCode::NO_CONTENT, Value::Null));
    }
    let list = async |user_id| {
        let (status, body) = gateway.ask(user_id, Method::GET, "/v1/blocks", None).await;
        assert_eq!(status, StatusCode::OK);
        let list: BlockList = serde_json::from_value(body).unwrap();
        list.blocks.iter().map(|block| block.user_id).collect::<Vec<_>>()
    };
    assert_eq!((list(ana).await, list(ben).await), (vec![eve, ben], vec![]), "nobody learns by whom they are blocked");
    for _ in 0..2 {
        assert_eq!(gateway.ask(ana, Method::DELETE, &path(eve), None).await.0, StatusCode::NO_CONTENT);
    }
    assert_eq!(list(ana).await, [ben]);
    assert_eq!(gateway.refused(gateway.request(ana, Method::PUT, &path(ana))).await, (400, ErrorCode::Invalid));
    assert_eq!(gateway.refused(gateway.request(ana, Method::PUT, "/v1/blocks/me")).await, (400, ErrorCode::Invalid));

    let filling = sqlx::query!(
        "insert into blocks (blocker_id, blocked_id, created_at) select $1, gen_random_uuid(), now() from generate_series(1, 999)",
        ana.as_uuid()
    );
    filling.execute(&gateway.place.pool).await.unwrap();
    assert_eq!(gateway.refused(gateway.request(ana, Method::PUT, &path(eve))).await, (409, ErrorCode::Conflict));
    assert_eq!(gateway.ask(ana, Method::PUT, &path(ben), None).await.0, StatusCode::NO_CONTENT, "that is no other one");
}
