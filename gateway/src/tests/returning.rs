//! Connections stay when Redis has lost their sessions, and end when it has lost their inboxes.

use chat_shared::{
    ids::{ConversationId, DeviceId, UserId},
    inbox::{Routed, Routing},
    position::Cursor,
    wire::{CloseCode, Command, Confirm, Heartbeat, Hello, Push, Reply, Resume},
};

use super::{
    place::{Place, until, users},
    presence::start,
    receipts::notify,
};
use crate::{connection::simulated::Client, presence::Parting, state::AppState};

pub async fn redis(place: &Place, words: &[&str]) {
    let mut link = place.redis.link().await.unwrap();
    let () = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut link).await.unwrap();
}

pub fn key(place: &Place, user_id: UserId, name: &str) -> String {
    format!("{}:{{{}}}:{name}", place.namespace, user_id.as_uuid().simple())
}

fn lease(place: &Place, state: &AppState) -> String {
    format!("{}:gateway:{}", place.namespace, state.gateway_id.as_uuid().simple())
}

/// Puts a message in an inbox; how many gateways hold its sessions.
async fn route(place: &Place, to: UserId, conversation_id: ConversationId) -> usize {
    let (_, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let event = newest.encode();
    let routed =
        place.inboxes.route(&[Routing { user_id: to, event: &event, delivered: None, lsn: None }]).await.unwrap();
    let Routed::At { gateways, .. } = &routed[0] else { panic!("there is an inbox") };
    gateways.len()
}

#[tokio::test]
async fn promise_4_a_lost_session_is_registered_again_in_place() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let mut phone = Client::connect(&here, ben).await;
    let id = place.direct(ana, ben).await.conversation_id;
    redis(&place, &["DEL", &key(&place, ben, "sessions"), &lease(&place, &here)]).await;
    assert_eq!(route(&place, ben, id).await, 0);
    assert!(matches!(phone.push().await, Push::Conversation { .. } | Push::Message { .. }), "it catches up");
    assert_eq!(place.inboxes.gateways_of(&[ben]).await.unwrap(), [[here.gateway_id]]);
    assert!(phone.is_open());
}

#[tokio::test]
async fn promise_4_connections_of_another_run_end_after_they_are_registered() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let (phone, watcher) = (Client::connect(&here, ben).await, Client::connect(&here, ana).await);
    for user_id in [ana, ben] {
        redis(&place, &["HSET", &key(&place, user_id, "meta"), "run", "another"]).await;
    }
    assert!(!place.inboxes.presence(&[ben]).await.unwrap()[0].presence.is_online);
    redis(&place, &["SET", &lease(&place, &here), "1 another"]).await;
    for client in [&phone, &watcher] {
        assert_eq!(client.closed().await, CloseCode::InboxLost);
    }
    assert_eq!(place.inboxes.gateways_of(&[ben, ana]).await.unwrap(), [[here.gateway_id], [here.gateway_id]]);
    assert!(place.inboxes.presence(&[ben]).await.unwrap()[0].presence.is_online, "until they are back");
}

async fn is_confirmed(place: &Place, user_id: UserId) -> bool {
    place.inboxes.unconfirmed(&[user_id]).await.unwrap() == [None]
}

#[tokio::test]
async fn promise_7_what_was_missed_is_recorded_as_confirmed_at_once() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let device_id = DeviceId::random();
    let (phone, ready) = Client::hello(&here, ben, Hello { device_id, resume: None }).await;
    let id = place.direct(ana, ben).await.conversation_id;
    route(&place, ben, id).await;
    phone.leave(Parting::Broken).await;
    assert!(!is_confirmed(&place, ben).await);
    let resume = Some(Resume { epoch: ready.epoch.unwrap(), cursor: ready.cursor });
    let (mut phone, _) = Client::hello(&here, ben, Hello { device_id, resume }).await;
    let Push::Conversation { cursor: Some(cursor), .. } = phone.push().await else { panic!("it catches up") };
    phone.confirm(cursor).await;
    assert!(is_confirmed(&place, ben).await, "a notification may wait for it");
}

#[tokio::test]
async fn promise_7_a_reload_is_confirmed_by_its_client_and_not_by_ready() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let gateways = [start(&place).await, start(&place).await];
    let id = place.direct(ana, ben).await.conversation_id;
    let hello = Hello { device_id: DeviceId::random(), resume: None };
    Client::hello(&gateways[0], ben, hello.clone()).await.0.leave(Parting::Final).await;
    for (gateway, by_heartbeat) in gateways.iter().zip([false, true]) {
        route(&place, ben, id).await;
        let (phone, ready) = Client::hello(gateway, ben, hello.clone()).await;
        assert!(!ready.resumed && ready.cursor > Cursor::ZERO);
        phone.leave(Parting::Broken).await;
        assert!(!is_confirmed(&place, ben).await, "the connection ended before the client had loaded anything");

        let (mut phone, ready) = Client::hello(gateway, ben, hello.clone()).await;
        if by_heartbeat {
            phone.ask(Command::Heartbeat(Heartbeat { cursor: Some(ready.cursor) })).await;
        } else {
            phone.confirm(ready.cursor).await;
        }
        assert!(is_confirmed(&place, ben).await, "a notification may wait for it");
        phone.leave(Parting::Final).await;
    }
}

#[tokio::test]
async fn promise_7_what_one_device_has_confirmed_is_recorded_when_another_leaves() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let phone = Client::connect(&here, ben).await;
    let (mut laptop, ready) = Client::hello(&here, ben, Hello { device_id: DeviceId::random(), resume: None }).await;
    laptop.confirm(ready.cursor).await;
    let id = place.direct(ana, ben).await.conversation_id;
    let (at, newest) = place.log.newest(id).await.unwrap().unwrap();
    notify(&place, at, &newest).await;
    let Push::Conversation { cursor: Some(cursor), .. } = laptop.push().await else { panic!("it is pushed") };
    laptop.confirm(cursor).await;
    assert!(!is_confirmed(&place, ben).await, "a single confirmation is not recorded by itself");
    phone.leave(Parting::Broken).await;
    until("the record", async || is_confirmed(&place, ben).await).await;
}

#[tokio::test]
async fn a_cursor_beyond_the_end_confirms_what_was_pushed_and_resumes_nothing() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let gateway = start(&place).await;
    let id = place.direct(ana, ben).await.conversation_id;
    let hello = Hello { device_id: DeviceId::random(), resume: None };
    let (mut phone, ready) = Client::hello(&gateway, ben, hello.clone()).await;
    let epoch = ready.epoch.unwrap();
    place.send_many(ana, id, 1).await;
    let (at, message) = place.log.newest(id).await.unwrap().unwrap();
    notify(&place, at, &message).await;
    let Push::Message { cursor: Some(last), .. } = phone.push().await else { panic!("the message comes first") };
    let confirm = Command::Confirm(Confirm { cursor: Cursor(u64::MAX) });
    assert_eq!(phone.ask(confirm).await, Reply::Done { reference: 7 });
    phone.leave(Parting::Broken).await;

    let resume = |cursor| Hello { resume: Some(Resume { epoch, cursor }), ..hello.clone() };
    let (phone, ready) = Client::hello(&gateway, ben, resume(last)).await;
    assert!(ready.resumed, "the inbox is the same");
    phone.leave(Parting::Broken).await;
    let (_phone, ready) = Client::hello(&gateway, ben, resume(last.next())).await;
    assert_eq!((ready.resumed, ready.cursor), (false, Cursor::ZERO));
    assert_ne!(ready.epoch, Some(epoch), "the inbox has lost what the device has taken in");
}
