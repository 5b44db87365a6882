//! Who was removed is pushed nothing more of it, whatever was on its way. Who connects has no socket.

use chat_shared::{
    delivery::{Delivery, all_gateways_subject},
    event::{Event, Fact},
    ids::{ConversationId, DeviceId, GatewayId, UserId},
    inbox::Routing,
    position::{Cursor, Seq, StreamSeq},
    wire::{Command, Connected, Hello, Push, Reply, Resume, SetTyping, Typing},
};

use super::{
    place::{Place, users},
    presence::{is_online, presence_of, start, watch},
    receipts::notify,
};
use crate::{connection::simulated::Client, delivery::PANICS_AT, presence::Parting, state::AppState};

/// The events of a conversation but the making of it, oldest first.
pub async fn events(place: &Place, conversation_id: ConversationId) -> Vec<Event> {
    let (_, mut event) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let mut events = Vec::new();
    while event.previous > StreamSeq::ZERO {
        let earlier = place.log.get(event.previous).await.unwrap().unwrap();
        events.push(std::mem::replace(&mut event, earlier));
    }
    events.reverse();
    events
}

/// What a push is and its place, of those that have one.
fn kind(push: &Push) -> (&'static str, u64) {
    match push {
        Push::Message { cursor: Some(cursor), message, .. } => {
            assert!(message.seq > Seq::ZERO);
            ("message", cursor.0)
        }
        Push::Conversation { cursor: Some(cursor), .. } => ("conversation", cursor.0),
        Push::Skipped { cursor } => ("skipped", cursor.0),
        other => panic!("{other:?} has no place in the inbox"),
    }
}

async fn kinds(client: &mut Client, count: usize) -> Vec<(&'static str, u64)> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(kind(&client.push().await));
    }
    kinds
}

async fn say_typing(client: &mut Client, conversation_id: ConversationId) {
    let reply = client.ask(Command::SetTyping(SetTyping { conversation_id, is_typing: true })).await;
    assert_eq!(reply, Reply::Done { reference: 7 });
}

#[tokio::test]
async fn what_was_accepted_before_a_removal_and_comes_after_it_is_skipped_on_every_gateway_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.group(ana, &[ben, eve]).await.conversation_id;
    let [mut near, mut far] = [Client::connect(&here, ben).await, Client::connect(&there, ben).await];
    let mut stays = Client::connect(&there, eve).await;
    place.send_many(ana, id, 3).await;
    place.conversations.remove(ana, id, ben).await.unwrap();
    place.send_many(ana, id, 1).await;
    place.conversations.add(ana, id, &[ben]).await.unwrap();
    place.send_many(ana, id, 1).await;
    for event in events(&place, id).await {
        notify(&place, StreamSeq::ZERO, &event).await;
    }
    let expected =
        [("skipped", 1), ("skipped", 2), ("skipped", 3), ("conversation", 4), ("conversation", 5), ("message", 6)];
    for client in [&mut near, &mut far] {
        assert_eq!(kinds(client, 6).await, expected);
    }
    let (message, change) = (|cursor| ("message", cursor), |cursor| ("conversation", cursor));
    let all = [message(1), message(2), message(3), change(4), message(5), change(6), message(7)];
    assert_eq!(kinds(&mut stays, 7).await, all, "nobody else misses anything");
}

#[tokio::test]
async fn who_leaves_is_pushed_nothing_more_either_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let id = place.group(ana, &[ben]).await.conversation_id;
    let mut leaver = Client::connect(&here, ben).await;
    place.send_many(ana, id, 1).await;
    place.conversations.remove(ben, id, ben).await.unwrap();
    for event in events(&place, id).await {
        notify(&place, StreamSeq::ZERO, &event).await;
    }
    assert_eq!(kinds(&mut leaver, 2).await, [("skipped", 1), ("conversation", 2)]);
}

#[tokio::test]
async fn neither_typing_nor_presence_nor_what_has_no_place_comes_after_a_removal_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.group(ana, &[ben, eve]).await.conversation_id;
    let other = place.group(ana, &[ben]).await.conversation_id;
    let (mut removed, mut writer) = (Client::connect(&here, ben).await, Client::connect(&there, ana).await);
    place.send_many(ana, id, 1).await;
    assert_eq!(is_online(&watch(&mut removed, &[eve, ana]).await.unwrap()), [(eve, false), (ana, true)]);
    say_typing(&mut writer, id).await;
    assert!(matches!(removed.push().await, Push::Typing { typing } if typing.is_typing));

    let before = events(&place, id).await;
    place.conversations.remove(ana, id, ben).await.unwrap();
    let _phone = Client::connect(&there, eve).await;
    // What another gateway knew before it heard of the removal.
    let typing = Typing { conversation_id: id, user_id: eve, is_typing: true };
    let stale = [
        Delivery::Typing { typing, version: 1, user_ids: vec![ben] },
        Delivery::Unnumbered(before.iter().map(|event| event.encode().into()).collect()),
    ];
    for delivery in stale {
        here.nats.publish(all_gateways_subject(&place.namespace), delivery.encode().into()).await.unwrap();
    }
    // ana stops: that she wrote in the first is over, unsaid; what ben hears of next is elsewhere.
    place.send_many(ana, id, 1).await;
    say_typing(&mut writer, other).await;
    assert!(matches!(removed.push().await, Push::Typing { typing } if typing.conversation_id == other));
    writer.leave(Parting::Final).await;
    let gone = presence_of(removed.push().await);
    assert_eq!(is_online(&gone), [(ana, false)], "with whom there is another conversation; nothing was said of eve");
}

/// Puts entries in a user's inbox: those of `id` before and with a removal, with so many of another conversation between.
async fn fill(place: &Place, id: ConversationId, other: ConversationId, between: u64) {
    let removal = events(place, id).await;
    let (removal, before) = removal.split_last().unwrap();
    for event in before {
        notify(place, StreamSeq::ZERO, event).await;
    }
    let (_, elsewhere) = place.log.newest(other).await.unwrap().unwrap();
    assert!(matches!(elsewhere.fact, Fact::MessageSent(_)));
    for _ in 0..between {
        notify(place, StreamSeq::ZERO, &elsewhere).await;
    }
    notify(place, StreamSeq::ZERO, removal).await;
}

async fn resume(state: &AppState, user_id: UserId, device_id: DeviceId, ready: &Connected) -> Client {
    let resume = Some(Resume { epoch: ready.epoch.unwrap(), cursor: ready.cursor });
    let (client, ready) = Client::hello(state, user_id, Hello { device_id, resume }).await;
    assert!(ready.resumed);
    client
}

#[tokio::test]
async fn a_gateway_that_heard_of_no_removal_finds_it_in_the_inbox_before_it_pushes_r6_4() {
    for between in [3, 60] {
        let (place, [ana, ben]) = (Place::new().await, users());
        let here = start(&place).await;
        let id = place.group(ana, &[ben]).await.conversation_id;
        let other = place.direct(ana, ben).await.conversation_id;
        let device_id = DeviceId::random();
        let (phone, ready) = Client::hello(&here, ben, Hello { device_id, resume: None }).await;
        phone.leave(Parting::Final).await;
        place.send_many(ana, id, 2).await;
        place.send_many(ana, other, 1).await;
        place.conversations.remove(ana, id, ben).await.unwrap();
        fill(&place, id, other, between).await;
        let mut client = resume(&start(&place).await, ben, device_id, &ready).await;
        let mut expected = vec![("skipped", 1), ("skipped", 2)];
        expected.extend((0..between).map(|number| ("message", number + 3)));
        expected.push(("conversation", between + 3));
        assert_eq!(kinds(&mut client, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn who_resumes_before_the_notifier_has_come_to_the_removal_gets_nothing_r6_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.group(ana, &[ben]).await.conversation_id;
    let device_id = DeviceId::random();
    let (phone, ready) = Client::hello(&here, ben, Hello { device_id, resume: None }).await;
    phone.leave(Parting::Final).await;
    place.send_many(ana, id, 2).await;
    place.conversations.remove(ana, id, ben).await.unwrap();
    let all = events(&place, id).await;
    for event in &all[..2] {
        notify(&place, StreamSeq::ZERO, event).await;
    }
    let mut client = resume(&there, ben, device_id, &ready).await;
    assert_eq!(kinds(&mut client, 2).await, [("skipped", 1), ("skipped", 2)]);
    notify(&place, StreamSeq::ZERO, &all[2]).await;
    assert_eq!(kinds(&mut client, 1).await, [("conversation", 3)]);
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_so_that_no_cursor_is_missing() {
    let (place, ana) = (Place::new().await, UserId::random());
    let here = start(&place).await;
    let device_id = DeviceId::random();
    let (phone, ready) = Client::hello(&here, ana, Hello { device_id, resume: None }).await;
    phone.leave(Parting::Final).await;
    let garbage = Routing { user_id: ana, event: b"garbage", delivered: None, lsn: None };
    place.inboxes.route(&[garbage, garbage]).await.unwrap();
    let mut client = resume(&here, ana, device_id, &ready).await;
    assert_eq!([client.push().await, client.push().await], [1, 2].map(|at| Push::Skipped { cursor: Cursor(at) }));
}

#[tokio::test]
async fn an_event_that_panics_is_skipped() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let id = place.group(ana, &[ben]).await.conversation_id;
    let mut client = Client::connect(&here, ben).await;
    place.send_many(ana, id, 3).await;
    let mut all = events(&place, id).await;
    all[1].seq = PANICS_AT;
    for event in &all {
        notify(&place, StreamSeq::ZERO, event).await;
    }
    assert_eq!(kinds(&mut client, 3).await, [("message", 1), ("skipped", 2), ("message", 3)]);
}

#[tokio::test]
async fn a_broken_inbox_is_reset_at_hello() {
    let (place, ana) = (Place::new().await, UserId::random());
    let here = start(&place).await;
    let hello = || Hello { device_id: DeviceId::random(), resume: None };
    let (phone, before) = Client::hello(&here, ana, hello()).await;
    phone.leave(Parting::Final).await;
    let key = format!("{}:{{{}}}:entries", place.namespace, ana.as_uuid().simple());
    redis::cmd("SET").arg(key).arg("spoilt").exec_async(&mut place.redis.link().await.unwrap()).await.unwrap();
    let (_again, ready) = Client::hello(&here, ana, hello()).await;
    assert!(ready.epoch.is_some() && ready.epoch != before.epoch, "{ready:?}");
}

#[tokio::test]
async fn a_removal_waits_for_every_gateway_whose_lease_holds_and_not_for_ever() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let _here = start(&place).await;
    let id = place.group(ana, &[ben]).await.conversation_id;
    // One that died a moment ago holds nothing up for good.
    place.inboxes.renew_lease(GatewayId::random()).await.unwrap();
    place.conversations.remove(ana, id, ben).await.unwrap();
    assert!(place.conversations.get(ben, id).await.is_err());
}
