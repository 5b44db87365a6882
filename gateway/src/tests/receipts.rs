//! Receipts, unread counts and mutes against real servers. The persister's part is played by the tests.

use std::sync::Arc;

use chat_shared::{
    clock::Clock,
    delivery::{Delivery, NumberedEvent, Recipient, gateway_subject},
    event::{DeliveredAdvanced, Event, Fact, ReadAdvanced},
    ids::{ConversationId, DeviceId, MessageId, SessionId, UserId},
    inbox::{Page, Routed, Routing, Session},
    position::{Cursor, Seq, StreamSeq},
    wire::{
        Command, Confirm, Conversation, ErrorCode, Heartbeat, Hello, MarkRead, Mute, Progress, Push, Receipt,
        ReceiptKind, Rejected, Reply, Resume, SendMessage, UnreadTotal,
    },
};
use futures_util::{StreamExt, future::join_all};
use reqwest::{Method, StatusCode};
use serde_json::json;
use time::OffsetDateTime;

use super::{
    gateway::Gateway,
    place::{Place, until, users},
    presence,
};
use crate::{
    connection::simulated::Client,
    delivery::DirectMessage,
    history::Place as PageOf,
    presence::Parting,
    receipts::{self, Receipts},
    refusal::Refusal,
    send::Sender,
};

/// The ids of a conversation's messages, by number from 1.
async fn ids(place: &Place, conversation_id: ConversationId) -> Vec<MessageId> {
    let events = place.events(conversation_id).await;
    let ids = events.into_iter().filter_map(|event| match event.fact {
        Fact::MessageSent(message) => Some(message.message_id),
        _ => None,
    });
    ids.collect()
}

/// What the log has of receipts, oldest first.
async fn facts(place: &Place) -> Vec<Event> {
    let stream = async_nats::jetstream::new(place.nats.clone()).get_stream(place.log.name()).await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut facts = Vec::new();
    for at in 1..=last {
        let entry = stream.get_raw_message(at).await.unwrap();
        if entry.subject.ends_with(".fact") {
            facts.push(Event::decode(&entry.payload).unwrap());
        }
    }
    facts
}

async fn mark(
    receipts: &Arc<Receipts>,
    user_id: UserId,
    conversation_id: ConversationId,
    message_id: MessageId,
) -> Result<(), Refusal> {
    receipts.mark_read(user_id, MarkRead { conversation_id, message_id, seq: None })?.await
}

#[tokio::test]
async fn a_burst_of_marks_becomes_one_event_and_a_mark_that_is_behind_none_r8_5() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let (place, receipts) = (&gateway.place, &gateway.state.receipts);
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 9).await;
    let messages = ids(place, id).await;
    // All are known before, so that no search spreads them over time.
    place.page(ben, id, PageOf::Newest, 10).await.unwrap();
    for (message_id, seq) in messages.iter().zip(1..) {
        receipts.remember(id, *message_id, Seq(seq));
    }
    let burst = [3, 9, 4, 9, 1].map(|seq: usize| mark(receipts, ben, id, messages[seq - 1]));
    assert!(join_all(burst).await.into_iter().all(|outcome| outcome.is_ok()));
    let written = facts(place).await;
    let read = ReadAdvanced { user_id: ben, message_id: messages[8], read_seq: Seq(9) };
    assert_eq!(written.iter().map(|event| &event.fact).collect::<Vec<_>>(), [&Fact::ReadAdvanced(read)]);
    let (_, newest) = place.log.newest(id).await.unwrap().unwrap();
    assert_eq!((written[0].seq, written[0].previous), (newest.seq, StreamSeq::ZERO));
    assert_eq!(written[0].participants, newest.participants, "whoever is told stands in it");
    assert!(written[0].sent_at >= newest.sent_at);

    assert_eq!(mark(receipts, ben, id, messages[4]).await, Ok(()), "going backwards is no fault");
    assert_eq!(mark(receipts, ben, id, messages[8]).await, Ok(()));
    assert_eq!(facts(place).await.len(), 1, "and changes nothing");
    assert_eq!(place.send(ana, id, "10").await.unwrap().seq, Seq(10), "no event follows a receipt");
    assert_eq!(place.page(ben, id, PageOf::Newest, 2).await, Ok((vec![9, 10], true)));
}

#[tokio::test]
async fn a_stranger_is_refused_before_marks_are_gathered_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    // Nothing writes what it gathers, so an answer comes from before.
    let receipts =
        Arc::new(Receipts::new(place.tail.clone(), place.sender.clone(), place.database.clone(), Clock::System));
    let message_id = MessageId::random();
    receipts.remember(id, message_id, Seq(1));
    let mark = MarkRead { conversation_id: id, message_id, seq: None };
    let refusal = receipts.mark_read(eve, mark).unwrap().await.unwrap_err();
    assert_eq!(refusal, Refusal::no_such_conversation());
}

#[tokio::test]
async fn a_mark_that_was_written_elsewhere_and_delivered_here_is_not_written_again_r8_5() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 2).await;
    let messages = ids(place, id).await;
    mark(&gateway.state.receipts, ben, id, messages[1]).await.unwrap();
    let other = place.receipts();
    other.learn(&facts(place).await[0]);
    mark(&other, ben, id, messages[0]).await.unwrap();
    assert_eq!(facts(place).await.len(), 1);
}

#[tokio::test]
async fn what_is_not_the_conversations_and_whoever_is_not_in_it_is_refused_alike_r8_5() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let (place, known) = (&gateway.place, &gateway.state.receipts);
    let id = place.group(ana, &[ben, eve]).await.conversation_id;
    let other = place.direct(ana, eve).await.conversation_id;
    place.send_many(ana, id, 2).await;
    place.send_many(ana, other, 1).await;
    let (messages, elsewhere) = (ids(place, id).await, ids(place, other).await[0]);
    mark(known, ana, id, messages[0]).await.unwrap();
    mark(known, ana, other, elsewhere).await.unwrap();
    place.conversations.remove(ana, id, eve).await.unwrap();
    // Whether the gateway has to look for the message or not.
    for receipts in [known, &place.receipts()] {
        for message_id in [elsewhere, MessageId::random()] {
            assert_eq!(mark(receipts, ana, id, message_id).await, Err(Refusal::no_such_message()));
        }
        let removed = mark(receipts, eve, id, messages[0]).await;
        assert_eq!(removed, Err(Refusal::no_such_conversation()), "who was removed reads no more");
        for (conversation_id, message_id) in [(other, elsewhere), (ConversationId::random(), elsewhere)] {
            let stranger = mark(receipts, ben, conversation_id, message_id).await;
            assert_eq!(stranger, Err(Refusal::no_such_conversation()));
        }
    }
    assert_eq!(facts(place).await.len(), 2, "nothing that was refused stands in the log");
}

#[tokio::test]
async fn a_number_beside_the_id_counts_and_is_compared_with_what_is_known_at_once_r8_5() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let (place, known) = (&gateway.place, &gateway.state.receipts);
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 3).await;
    let messages = ids(place, id).await;
    let mark = async |receipts: &Arc<Receipts>, user_id, message_id, seq| {
        let seq = Some(Seq(seq));
        receipts.mark_read(user_id, MarkRead { conversation_id: id, message_id, seq })?.await
    };
    for seq in [0, 4, u64::MAX] {
        assert_eq!(mark(known, ben, messages[2], seq).await, Err(Refusal::no_such_message()), "{seq}");
        assert_eq!(mark(known, eve, messages[2], seq).await, Err(Refusal::no_such_conversation()), "{seq}");
    }
    assert_eq!(mark(known, eve, messages[2], 3).await, Err(Refusal::no_such_conversation()));
    known.remember(id, messages[2], Seq(3));
    assert_eq!(mark(known, ben, messages[2], 2).await, Err(Refusal::no_such_message()), "it is another message's");
    assert!(facts(place).await.is_empty());
    assert_eq!(mark(known, ben, messages[1], 2).await, Ok(()));

    // An id that a gateway doesn't know is taken as it is, and teaches it nothing.
    let other = place.receipts();
    assert_eq!(mark(&other, ben, messages[0], 3).await, Ok(()));
    assert_eq!(mark(&other, ana, messages[0], 1).await, Ok(()));
    let read = |user_id, message_id, seq| Fact::ReadAdvanced(ReadAdvanced { user_id, message_id, read_seq: Seq(seq) });
    let written: Vec<_> = facts(place).await.into_iter().map(|event| event.fact).collect();
    assert_eq!(written, [read(ben, messages[1], 2), read(ben, messages[0], 3), read(ana, messages[0], 1)]);
}

#[tokio::test]
async fn a_number_that_a_remembered_head_lacks_is_looked_for_in_the_newest_r8_5() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 1).await;
    let (clock, quotas) = (Clock::System, place.quotas.clone());
    let elsewhere =
        Sender::new(place.tail.clone(), place.database.clone(), place.content.clone(), clock, quotas, &place.tasks);
    let message_id = MessageId::random();
    let (text, is_repeat, seen_seq) = ("2".to_owned(), false, None);
    let message = SendMessage { conversation_id: id, message_id, text, is_repeat, seen_seq };
    let seq = elsewhere.send(ana, message).await.unwrap().seq;
    assert_eq!(seq, Seq(2));
    let mark = MarkRead { conversation_id: id, message_id, seq: Some(seq) };
    assert_eq!(gateway.state.receipts.mark_read(ben, mark).unwrap().await, Ok(()));
}

#[tokio::test]
async fn a_message_is_found_wherever_it_is_kept_r8_5() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let conversation = place.direct(ana, ben).await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(gateway.state.clock.now());
    for (seq, days) in [(1, 90), (2, 30), (3, 1)] {
        place.store_old(ana, &conversation, seq, now - time::Duration::days(days)).await;
    }
    place.send_many(ana, id, 6).await;
    let messages = ids(place, id).await;
    // One is stored, one is missing before it, the last ones only the log has.
    place.store(id, 5, &[4]).await;
    let stored = place.history.page(ben, id, PageOf::Newest, 10).await.unwrap().messages;
    let receipts = place.receipts();
    for message in &stored {
        assert_eq!(mark(&receipts, ben, id, message.message_id).await, Ok(()), "{}", message.seq.0);
    }
    assert!(messages.iter().all(|message_id| stored.iter().any(|message| message.message_id == *message_id)));
    let read: Vec<_> = facts(place).await.into_iter().map(|event| event.fact).collect();
    let furthest = stored.last().unwrap();
    assert_eq!(
        read.last(),
        Some(&Fact::ReadAdvanced(ReadAdvanced {
            user_id: ben,
            message_id: furthest.message_id,
            read_seq: furthest.seq
        }))
    );
}

#[tokio::test]
async fn what_has_reached_a_device_is_told_to_the_sender_alone_r8_6() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let (place, state) = (&gateway.place, &gateway.state);
    let conversation = place.direct(ana, ben).await;
    let id = conversation.conversation_id;
    let subject = gateway_subject(&state.namespace, state.gateway_id);
    let mut deliveries = state.nats.subscribe(subject).await.unwrap();
    let session =
        Session { session_id: SessionId::random(), gateway_id: state.gateway_id, device_id: DeviceId::random() };
    let epoch = place.inboxes.register(ana, session, None).await.unwrap().epoch;
    let (_, newest) = place.log.newest(id).await.unwrap().unwrap();
    let message = |seq| {
        let participants = newest.participants.clone();
        Arc::new(DirectMessage {
            conversation_id: id,
            participants,
            sender_id: ana,
            seq: Seq(seq),
            sent_at: Clock::System.now(),
        })
    };
    state.receipts.delivered(ben, vec![message(1), message(3), message(2)]);
    let delivery = Delivery::decode(&deliveries.next().await.unwrap().payload).unwrap();
    let Delivery::Numbered(events) = delivery else { panic!("{delivery:?}") };
    let told = Event::decode(&events[0].event).unwrap();
    assert_eq!((events.len(), events[0].stream_seq), (1, StreamSeq::ZERO));
    assert_eq!(told.fact, Fact::DeliveredAdvanced(DeliveredAdvanced { user_id: ben, delivered_seq: Seq(3) }));
    assert_eq!(events[0].recipients.iter().map(|recipient| recipient.user_id).collect::<Vec<_>>(), [ana]);

    // What is behind is passed over; the list shows the furthest, and never less than what was read.
    state.receipts.delivered(ben, vec![message(2)]);
    state.receipts.delivered(ben, vec![message(4)]);
    until("both being told", async || place.inboxes.delivered(ana, &[id]).await.unwrap() == [Some(Seq(4))]).await;
    let Page::Entries(entries) = place.inboxes.read(ana, epoch, Cursor::ZERO, 10).await.unwrap() else { panic!() };
    assert_eq!(entries.len(), 2);
    let shown = place.conversations.get(ana, id).await.unwrap().progress;
    let delivered_seq = Some(Seq(4));
    let (since_seq, read_seq, last_read_message_id) = (Seq::ZERO, Seq::ZERO, None);
    assert_eq!(shown, [Progress { user_id: ben, since_seq, read_seq, last_read_message_id, delivered_seq }]);
    set_read(place, ben, 7, None).await;
    let listed = place.conversations.list(ana, 1, None).await.unwrap().conversations.remove(0);
    assert_eq!(listed.progress[0].delivered_seq, Some(Seq(7)));
    assert!(facts(place).await.is_empty(), "the log hears nothing of it");
}

async fn set_read(place: &Place, user_id: UserId, seq: i64, message_id: Option<MessageId>) {
    sqlx::query!(
        "update participants set read_seq = $2, last_read_message_id = $3 where user_id = $1",
        user_id.as_uuid(),
        seq,
        message_id.map(MessageId::as_uuid)
    )
    .execute(&place.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn lists_show_what_everybody_has_read_and_the_total_is_their_sum_r5_1_r5_2_r8_5() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let group = place.group(ana, &[ben, eve]).await.conversation_id;
    let direct = place.direct(ben, ana).await.conversation_id;
    place.direct(eve, ben).await;
    for (id, count) in [(group, 5), (direct, 3)] {
        place.send_many(ana, id, count).await;
        place.store(id, count, &[]).await;
    }
    let last = ids(place, group).await[3];
    set_read(place, eve, 4, Some(last)).await;
    let page = place.conversations.list(ben, 10, None).await.unwrap().conversations;
    let of = |id| page.iter().find(|conversation| conversation.conversation_id == id).unwrap();
    let progress = |user_id, read_seq, last_read_message_id, delivered_seq| Progress {
        user_id,
        since_seq: Seq::ZERO,
        read_seq: Seq(read_seq),
        last_read_message_id,
        delivered_seq,
    };
    assert_eq!(of(group).progress, [progress(ana, 0, None, None), progress(eve, 4, Some(last), None)]);
    assert_eq!(of(direct).progress, [progress(ana, 0, None, Some(Seq(0)))]);
    let eves = place.conversations.get(eve, group).await.unwrap();
    assert_eq!((eves.read_seq, eves.last_read_message_id, eves.unread), (Seq(4), Some(last), 1));

    let total = async |user_id| {
        let (status, total) = gateway.ask(user_id, Method::GET, "/v1/unread", None).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_value::<UnreadTotal>(total).unwrap()
    };
    assert_eq!(total(ben).await, UnreadTotal { messages: 8, conversations: 2 });
    assert_eq!(total(eve).await, UnreadTotal { messages: 1, conversations: 1 });
    assert_eq!(total(UserId::random()).await, UnreadTotal { messages: 0, conversations: 0 });
    // A mark that was stored before its message hides nothing elsewhere.
    set_read(place, ben, 9, None).await;
    assert_eq!(total(ben).await, UnreadTotal { messages: 0, conversations: 0 });
}

#[tokio::test]
async fn a_conversation_is_muted_for_one_of_its_participants_and_unread_still_counts_r5_3() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let conversation = place.direct(ana, ben).await;
    let id = conversation.conversation_id;
    place.send_many(ana, id, 2).await;
    place.store(id, 2, &[]).await;
    let path = format!("/v1/conversations/{}/mute", id.as_uuid());
    let put = async |user_id, body| gateway.ask(user_id, Method::PUT, &path, Some(body)).await.0;
    let shown = async |user_id| -> Conversation { place.conversations.get(user_id, id).await.unwrap() };
    let until = gateway.state.clock.now().after(std::time::Duration::from_hours(1));
    for (body, mute) in [
        (json!({ "for_good": true }), Mute::ForGood),
        (json!({ "until": until, "for_good": false }), Mute::Until(until)),
        (json!({ "until": null, "for_good": true }), Mute::ForGood),
        (json!({ "until": until, "for_good": null }), Mute::Until(until)),
    ] {
        for _ in 0..2 {
            assert_eq!(put(ben, body.clone()).await, StatusCode::NO_CONTENT);
            assert_eq!((shown(ben).await.mute, shown(ben).await.unread), (Some(mute), 2));
        }
        let listed = place.conversations.list(ben, 1, None).await.unwrap().conversations.remove(0);
        assert_eq!(listed, shown(ben).await);
        assert_eq!(shown(ana).await.mute, None, "it is nobody else's");
    }
    let put = |body| gateway.request(ben, Method::PUT, &path).json(&body);
    for wrong in [
        json!({ "until": 1 }),
        json!({ "until": "soon" }),
        json!({ "until": i64::MAX }),
        json!({}),
        json!({ "untill": until }),
        json!({ "until": null }),
        json!({ "for_good": false }),
        json!({ "until": until, "for_good": true }),
        json!(7),
    ] {
        assert_eq!(gateway.refused(put(wrong)).await, (400, ErrorCode::Invalid));
    }
    for _ in 0..2 {
        assert_eq!(gateway.ask(ben, Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
        assert_eq!(shown(ben).await.mute, None);
    }
    for method in [Method::PUT, Method::DELETE] {
        let stranger = gateway.request(eve, method, &path).json(&json!({ "for_good": true }));
        assert_eq!(gateway.refused(stranger).await, (404, ErrorCode::NotFound));
    }
    sqlx::query!("update participants set muted_until = now() - interval '1 second'")
        .execute(&place.pool)
        .await
        .unwrap();
    assert_eq!(shown(ben).await.mute, None, "it lasts no longer than it was asked for");
}

#[tokio::test]
async fn marking_by_rest_answers_once_it_is_written_r8_5() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let place = &gateway.place;
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 2).await;
    let message_id = ids(place, id).await[1].as_uuid();
    let path = format!("/v1/conversations/{}/read", id.as_uuid());
    let body = json!({ "message_id": message_id });
    let (status, answer) = gateway.ask(ben, Method::POST, &path, Some(body.clone())).await;
    assert_eq!((status, answer), (StatusCode::NO_CONTENT, serde_json::Value::Null));
    assert_eq!(facts(place).await.len(), 1);
    let post = |user_id, body| gateway.request(user_id, Method::POST, &path).json(&body);
    assert_eq!(gateway.refused(post(eve, body)).await, (404, ErrorCode::NotFound));
    let unknown = json!({ "message_id": MessageId::random().as_uuid() });
    assert_eq!(gateway.refused(post(ben, unknown)).await, (404, ErrorCode::NotFound));
    assert_eq!(gateway.refused(post(ben, json!({}))).await, (400, ErrorCode::Invalid));
    for (seq, refusal) in [(json!(3), (404, ErrorCode::NotFound)), (json!("2"), (400, ErrorCode::Invalid))] {
        let body = json!({ "message_id": message_id, "seq": seq });
        assert_eq!(gateway.refused(post(ben, body)).await, refusal);
    }
    for seq in [json!(2), json!(null)] {
        let body = json!({ "message_id": message_id, "seq": seq });
        assert_eq!(gateway.ask(ana, Method::POST, &path, Some(body)).await.0, StatusCode::NO_CONTENT);
    }
}

/// Does the notifier's work: puts an event in the inboxes of its audience, and sends it to where they are connected.
pub async fn notify(place: &Place, at: StreamSeq, event: &Event) {
    let bytes = event.encode();
    let audience: Vec<_> = event.audience().collect();
    let routings: Vec<_> = audience
        .iter()
        .map(|user_id| Routing { user_id: *user_id, event: &bytes, delivered: None, lsn: None })
        .collect();
    let routed = place.inboxes.route(&routings).await.unwrap();
    for (user_id, routed) in audience.into_iter().zip(routed) {
        let Routed::At { epoch, cursor, gateways, .. } = routed else { continue };
        for gateway_id in gateways {
            let recipients = vec![Recipient { user_id, epoch, cursor }];
            let event = NumberedEvent { event: bytes.clone().into(), stream_seq: at, recipients };
            let subject = gateway_subject(&place.namespace, gateway_id);
            place.nats.publish(subject, Delivery::Numbered(vec![event]).encode().into()).await.unwrap();
        }
    }
}

async fn receipt(client: &mut Client) -> Receipt {
    match client.push().await {
        Push::Receipt { cursor: Some(_), receipt } => receipt,
        other => panic!("{other:?} is no receipt"),
    }
}

#[tokio::test]
async fn a_message_gets_its_ticks_through_two_gateways_and_each_user_sees_their_own_r8_5_r8_6() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let (here, there) = (presence::start(&place).await, presence::start(&place).await);
    receipts::start(&here);
    receipts::start(&there);
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, id, 3).await;
    let mut sender = Client::connect(&here, ana).await;
    let (mut phone, mut tablet) = (Client::connect(&there, ben).await, Client::connect(&here, ben).await);
    let (at, _) = place.log.newest(id).await.unwrap().unwrap();
    for event in place.events(id).await {
        if matches!(event.fact, Fact::MessageSent(_)) {
            notify(&place, at, &event).await;
        }
    }
    let (mut cursors, mut shown) = (Vec::new(), Vec::new());
    for client in [&mut sender, &mut phone, &mut tablet] {
        for _ in 0..3 {
            let Push::Message { cursor: Some(cursor), message, .. } = client.push().await else { panic!() };
            cursors.push(cursor);
            shown.push(message);
        }
    }

    // Two ticks: the first device that confirms is enough, and what the second confirms is no news.
    let confirm = Command::Confirm(Confirm { cursor: cursors[4] });
    assert_eq!(phone.ask(confirm).await, Reply::Done { reference: 7 });
    let delivered = receipt(&mut sender).await;
    assert_eq!((delivered.kind, delivered.user_id, delivered.seq), (ReceiptKind::Delivered, ben, Seq(2)));
    assert_eq!((delivered.message_id, delivered.unread), (None, None));
    let heartbeat = Command::Heartbeat(Heartbeat { cursor: Some(cursors[7]) });
    assert_eq!(tablet.ask(heartbeat).await, Reply::Done { reference: 7 });

    // Coloured: the others see it, and the reader's devices what is left.
    let message_id = shown[1].message_id;
    let mark = || Command::MarkRead(MarkRead { conversation_id: id, message_id, seq: None });
    assert_eq!(phone.ask(mark()).await, Reply::Done { reference: 7 });
    assert_eq!(tablet.ask(mark()).await, Reply::Done { reference: 7 });
    let read = facts(&place).await;
    notify(&place, StreamSeq(at.0 + 1), &read[0]).await;
    for (client, unread) in [(&mut sender, None), (&mut phone, Some(1)), (&mut tablet, Some(1))] {
        let receipt = receipt(client).await;
        assert_eq!((receipt.kind, receipt.user_id, receipt.seq), (ReceiptKind::Read, ben, Seq(2)));
        assert_eq!((receipt.message_id, receipt.unread), (Some(message_id), unread));
    }
    let wrong = MarkRead { conversation_id: id, message_id: MessageId::random(), seq: None };
    let wrong = Command::MarkRead(wrong);
    assert!(matches!(phone.ask(wrong).await, Reply::Rejected(Rejected { code: ErrorCode::NotFound, .. })));
    assert_eq!(place.send(ana, id, "4").await.unwrap().seq, Seq(4), "no message follows a receipt");
}

#[tokio::test]
async fn what_a_device_had_no_time_to_confirm_counts_as_delivered_once_it_resumes_past_it_r8_6() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let gateway = presence::start(&place).await;
    receipts::start(&gateway);
    let id = place.direct(ana, ben).await.conversation_id;
    let hello = Hello { device_id: DeviceId::random(), resume: None };
    let (phone, ready) = Client::hello(&gateway, ben, hello.clone()).await;
    let mut sender = Client::connect(&gateway, ana).await;
    place.send_many(ana, id, 2).await;
    let (at, _) = place.log.newest(id).await.unwrap().unwrap();
    for event in place.events(id).await {
        if matches!(event.fact, Fact::MessageSent(_)) {
            notify(&place, at, &event).await;
            assert!(matches!(sender.push().await, Push::Message { .. }));
        }
    }
    phone.leave(Parting::Broken).await;
    let resume = Resume { epoch: ready.epoch.unwrap(), cursor: ready.cursor.next().next() };
    let (_phone, ready) = Client::hello(&gateway, ben, Hello { resume: Some(resume), ..hello }).await;
    assert!(ready.resumed);
    let delivered = receipt(&mut sender).await;
    assert_eq!((delivered.kind, delivered.user_id, delivered.seq), (ReceiptKind::Delivered, ben, Seq(2)));
}
