//! Presence through two gateways, and what the ends of sessions set going. Who connects has no socket.

use chat_shared::{
    clock::Clock,
    delivery::{Delivery, PresenceChange, all_gateways_subject},
    ids::{ConversationId, DeviceId, UserId},
    inbox::{Inboxes, Routed, Routing},
    lifecycle::Tasks,
    telemetry::Latch,
    wire::{Command, ErrorCode, Presence, PresenceList, Push, Rejected, Reply, WatchPresence},
};
use reqwest::{Method, StatusCode};

use super::{
    gateway::{self, Gateway},
    outages,
    place::{Place, until, users},
    returning::{key, redis},
};
use crate::{
    connection::simulated::Client,
    delivery,
    presence::{self, Parting},
    state::AppState,
    typing,
};

/// A gateway whose tasks run.
pub async fn start(place: &Place) -> AppState {
    run(place, gateway::state(place).await).await
}

/// As `start`, with tasks that stop by themselves.
async fn start_apart(place: &Place) -> AppState {
    run(place, gateway::state_with(place, Tasks::default()).await).await
}

async fn run(place: &Place, state: AppState) -> AppState {
    let latch = Latch::default();
    // Who connects before it is there would have to connect again.
    place.inboxes.renew_lease(state.gateway_id).await.unwrap();
    presence::start(&state);
    state.tasks.essential("delivery", delivery::listen(state.clone(), latch.clone()));
    state.tasks.best_effort("typing", typing::expire(state.clone()));
    state.tasks.best_effort("lease", delivery::keep(state.clone()));
    until("hearing from NATS", async || latch.is_set()).await;
    state
}

pub async fn watch(client: &mut Client, user_ids: &[UserId]) -> Result<Vec<Presence>, ErrorCode> {
    match client.ask(Command::WatchPresence(WatchPresence { user_ids: user_ids.to_vec() })).await {
        Reply::Done { .. } => Ok(presence_of(client.push().await)),
        Reply::Rejected(Rejected { code, .. }) => Err(code),
        Reply::Accepted(_) => panic!("a watch is no message"),
    }
}

pub fn presence_of(push: Push) -> Vec<Presence> {
    match push {
        Push::Presence { users } => users,
        other => panic!("{other:?} is not about presence"),
    }
}

pub fn is_online(presence: &[Presence]) -> Vec<(UserId, bool)> {
    presence.iter().map(|presence| (presence.user_id, presence.is_online)).collect()
}

/// Puts a message in a connected user's inbox.
async fn push_unconfirmed(place: &Place, to: UserId, conversation_id: ConversationId) {
    let (_, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let event = newest.encode();
    let routed =
        place.inboxes.route(&[Routing { user_id: to, event: &event, delivered: None, lsn: None }]).await.unwrap();
    assert!(matches!(&routed[0], Routed::At { gateways, .. } if gateways.len() == 1));
}

/// Waits for so many jobs in the queue of notifications.
async fn until_jobs(place: &Place, count: u64) {
    let jobs = async_nats::jetstream::new(place.nats.clone());
    let queue = jobs.get_stream(format!("{}-notifications", place.namespace)).await.unwrap();
    until("queueing", async || queue.get_info().await.unwrap().state.messages == count).await;
}

#[tokio::test]
async fn watchers_see_who_comes_and_goes_on_any_gateway_and_several_devices_are_one_user_r8_1() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    place.direct(ana, ben).await;
    let mut watcher = Client::connect(&here, ana).await;
    let first = watch(&mut watcher, &[ben, ana, ben]).await.unwrap();
    assert_eq!(is_online(&first), [(ben, false), (ana, true)]);
    assert_eq!(first[0].last_seen_at, None, "ben was never here");

    let [phone, tablet] = [Client::connect(&there, ben).await, Client::connect(&here, ben).await];
    assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, true)]);
    phone.leave(Parting::Final).await;
    tablet.leave(Parting::Final).await;
    let gone = presence_of(watcher.push().await);
    assert_eq!(is_online(&gone), [(ben, false)], "once, with the last of the devices");
    assert_eq!(place.inboxes.presence(&[ben]).await.unwrap()[0].presence, gone[0]);
    until("detaching", async || place.inboxes.left_behind(here.gateway_id, 9).await.unwrap() == [ana]).await;
    until("detaching", async || place.inboxes.left_behind(there.gateway_id, 9).await.unwrap().is_empty()).await;
}

#[tokio::test]
async fn who_comes_and_goes_is_shown_after_the_clock_of_redis_was_set_back_r8_1() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    place.direct(ana, ben).await;
    Client::connect(&there, ben).await.leave(Parting::Final).await;
    let mut watcher = Client::connect(&here, ana).await;
    assert_eq!(is_online(&watch(&mut watcher, &[ben]).await.unwrap()), [(ben, false)]);
    // Ben was seen last when the clock was ten minutes ahead.
    let ahead = Clock::System.now().after(std::time::Duration::from_mins(10));
    for field in ["presence_at", "last_seen"] {
        redis(&place, &["HSET", &key(&place, ben, "meta"), field, &ahead.0.to_string()]).await;
    }
    let presence = Presence { user_id: ben, is_online: false, last_seen_at: Some(ahead) };
    let change = Delivery::PresenceChanged(vec![PresenceChange { presence, at: ahead }]);
    assert!(delivery::publish(&there, all_gateways_subject(&place.namespace), &change).await);
    assert_eq!(presence_of(watcher.push().await), [presence]);

    for parting in [Parting::Broken, Parting::Final] {
        let phone = Client::connect(&there, ben).await;
        assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, true)]);
        let mut another = Client::connect(&there, ana).await;
        assert_eq!(is_online(&watch(&mut another, &[ben]).await.unwrap()), [(ben, true)]);
        phone.leave(parting).await;
        assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, false)]);
    }
}

#[tokio::test]
async fn a_quick_return_is_not_seen_and_who_does_not_return_is_offline_after_a_while_r8_2() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    place.direct(ana, ben).await;
    let (mut watcher, device_id) = (Client::connect(&here, ana).await, DeviceId::random());
    let phone = Client::connect_device(&there, ben, device_id).await;
    assert_eq!(is_online(&watch(&mut watcher, &[ben]).await.unwrap()), [(ben, true)]);
    phone.leave(Parting::Broken).await;
    let back = Client::connect_device(&here, ben, device_id).await;
    back.leave(Parting::Broken).await;
    assert_eq!(place.inboxes.left_behind(here.gateway_id, 9).await.unwrap().len(), 2, "ben is not settled yet");
    assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, false)], "nothing was said of the return");
    until("detaching", async || place.inboxes.left_behind(here.gateway_id, 9).await.unwrap() == [ana]).await;
}

#[tokio::test]
async fn strangers_are_not_watched_and_whoever_is_removed_is_watched_no_longer() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let here = start(&place).await;
    let group = place.group(ana, &[ben]).await;
    let mut watcher = Client::connect(&here, ana).await;
    assert_eq!(is_online(&watch(&mut watcher, &[ben]).await.unwrap()), [(ben, false)]);
    assert_eq!(watch(&mut watcher, &[ben, eve]).await, Err(ErrorCode::NotFound));
    assert_eq!(watch(&mut watcher, &users::<101>()).await, Err(ErrorCode::Invalid));
    let phone = Client::connect(&here, ben).await;
    assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, true)], "the earlier list stays");

    place.conversations.remove(ana, group.conversation_id, ben).await.unwrap();
    let (_, removal) = place.log.newest(group.conversation_id).await.unwrap().unwrap();
    let told = Delivery::Unnumbered(vec![removal.encode().into()]);
    delivery::publish(&here, all_gateways_subject(&place.namespace), &told).await;
    until("dropping ben", async || here.watches.pairs() == 0).await;
    assert_eq!(watch(&mut watcher, &[ben]).await, Err(ErrorCode::NotFound));
    phone.leave(Parting::Final).await;
    watcher.leave(Parting::Final).await;
}

#[tokio::test]
async fn presence_is_asked_for_by_rest_under_the_same_rule_r8_1() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    gateway.place.direct(ana, ben).await;
    let get = |user_ids: &[UserId]| {
        let ids: Vec<_> = user_ids.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
        gateway.request(ana, Method::GET, &format!("/v1/presence?user_ids={}", ids.join(",")))
    };
    gateway.place.inboxes.renew_lease(gateway.state.gateway_id).await.unwrap();
    let _phone = Client::connect(&gateway.state, ben).await;
    let answer = get(&[ben, ana]).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let list: PresenceList = answer.json().await.unwrap();
    assert_eq!(is_online(&list.users), [(ben, true), (ana, false)]);
    assert_eq!(gateway.refused(get(&[ben, eve])).await, (404, ErrorCode::NotFound));
    assert_eq!(gateway.refused(get(&users::<101>())).await, (400, ErrorCode::Invalid));
    for wrong in ["/v1/presence", "/v1/presence?user_ids=", "/v1/presence?user_ids=me", "/v1/presence?user_ids=%00"] {
        assert_eq!(
            gateway.refused(gateway.request(ana, Method::GET, wrong)).await,
            (400, ErrorCode::Invalid),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_session_that_ends_with_pushes_unconfirmed_is_looked_into_r5_3() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let phone = Client::connect(&here, ben).await;
    let id = place.direct(ana, ben).await.conversation_id;
    push_unconfirmed(&place, ben, id).await;
    phone.leave(Parting::Broken).await;
    until_jobs(&place, 1).await;
}

#[tokio::test]
async fn whom_a_stopping_gateway_sends_away_is_left_to_be_settled_and_not_shown_as_gone_r8_2() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start_apart(&place).await];
    place.direct(ana, ben).await;
    let (mut watcher, device_id) = (Client::connect(&here, ana).await, DeviceId::random());
    let phone = Client::connect_device(&there, ben, device_id).await;
    assert_eq!(is_online(&watch(&mut watcher, &[ben]).await.unwrap()), [(ben, true)]);

    there.tasks.draining().cancel();
    phone.leave(Parting::Broken).await;
    there.tasks.stopping().cancel();
    assert_eq!(place.inboxes.left_behind(there.gateway_id, 9).await.unwrap(), [ben]);
    let first = watch(&mut watcher, &[ben, ana]).await.unwrap();
    assert_eq!(is_online(&first), [(ben, true), (ana, true)], "nor to those who begin to watch");
    let back = Client::connect_device(&here, ben, device_id).await;
    back.leave(Parting::Final).await;
    assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, false)], "nothing was said of the move");
}

#[tokio::test]
async fn without_redis_presence_is_unavailable_and_what_ended_meanwhile_is_settled_when_it_is_back_r8_2() {
    let (_directory, servers, place) = outages::private().await;
    let [ana, ben] = users();
    let here = start(&place).await;
    place.direct(ana, ben).await;
    let mut watcher = Client::connect(&here, ana).await;
    let phone = Client::connect(&here, ben).await;
    assert_eq!(is_online(&watch(&mut watcher, &[ben]).await.unwrap()), [(ben, true)]);
    servers.redis.pause().unwrap();
    assert_eq!(watch(&mut watcher, &[ben]).await, Err(ErrorCode::Unavailable));
    phone.leave(Parting::Broken).await;
    servers.redis.resume().unwrap();
    assert_eq!(is_online(&presence_of(watcher.push().await)), [(ben, false)]);
    let seen = async |inboxes: &Inboxes| inboxes.presence(&[ben]).await.unwrap()[0].presence;
    assert!(seen(&place.inboxes).await.last_seen_at.is_some());
}
