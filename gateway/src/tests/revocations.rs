//! Logouts, on gateways that stand side by side, and while Redis or NATS is away.

use std::time::Duration;

use chat_shared::{
    clock::{Clock, Timestamp},
    delivery::Revocation,
    ids::{DeviceId, LoginId, UserId},
    lifecycle::Tasks,
    telemetry::Latch,
    wire::{CloseCode, Command, ErrorCode, Hello, NotificationAddress, RegisterDevice, Rejected, RenewToken, Reply},
};
use reqwest::Method;
use serde_json::json;

use super::{
    gateway::{self, Gateway, token},
    outages::private,
    place::{Place, until, users},
    presence::start,
};
use crate::{auth::Identity, connection::simulated::Client, delivery, state::AppState};

/// Somebody whose token was issued just now.
fn logged_in(user_id: UserId, sid: &str) -> Identity {
    let issued_at = Clock::System.now();
    Identity { issued_at, login: Some(LoginId::of(sid)), ..Identity::for_ever(user_id) }
}

async fn connect(state: &AppState, identity: Identity) -> Client {
    let hello = Hello { device_id: DeviceId::random(), resume: None };
    Client::hello_as(state, identity, hello).await.0
}

async fn register_device(place: &Place, user_id: UserId) {
    let address = NotificationAddress::Webhook { token: DeviceId::random().as_uuid().to_string() };
    let request = RegisterDevice { address, app_id: "app".to_owned(), locale: None };
    place.devices().register(user_id, DeviceId::random(), request).await.unwrap();
}

#[tokio::test]
async fn a_login_ends_on_every_gateway_and_the_others_of_its_user_go_on_r6_4() {
    let place = Place::new().await;
    let [first, second] = [start(&place).await, start(&place).await];
    let [ana, ben] = users();
    let (phone, laptop, other) = (logged_in(ana, "phone"), logged_in(ana, "laptop"), logged_in(ben, "phone"));
    register_device(&place, ana).await;
    let ending = [connect(&first, phone).await, connect(&second, phone).await];
    let staying = [connect(&first, laptop).await, connect(&second, laptop).await, connect(&second, other).await];
    first.revocations.revoke(&first, ana, phone.login).await.unwrap();
    for client in &ending {
        assert_eq!(client.closed().await, CloseCode::LoggedOut);
    }
    for state in [&first, &second] {
        let later = logged_in(ana, "phone");
        assert_eq!(
            [phone, later, laptop, other].map(|who| state.revocations.is_revoked(&who)),
            [true, true, false, false]
        );
        assert_eq!(Client::turned_away(state, phone).await, CloseCode::LoggedOut);
    }
    assert!(staying.iter().all(Client::is_open));
    assert_eq!(place.devices().list(ana).await.unwrap().devices.len(), 1, "it may be another login's");
}

#[tokio::test]
async fn a_user_is_logged_out_everywhere_and_may_log_in_again_r6_4() {
    let place = Place::new().await;
    let [first, second] = [start(&place).await, start(&place).await];
    let [ana, ben] = users();
    register_device(&place, ana).await;
    register_device(&place, ben).await;
    let ending = [connect(&first, logged_in(ana, "phone")).await, connect(&second, Identity::for_ever(ana)).await];
    let other = connect(&second, logged_in(ben, "phone")).await;
    first.revocations.revoke(&first, ana, None).await.unwrap();
    for client in &ending {
        assert_eq!(client.closed().await, CloseCode::LoggedOut);
    }
    assert!(other.is_open());
    let again = Identity { issued_at: Timestamp(Clock::System.now().0 + 1), ..logged_in(ana, "phone") };
    assert!(connect(&second, again).await.is_open());
    let devices = place.devices();
    assert!(devices.list(ana).await.unwrap().devices.is_empty());
    assert_eq!(devices.list(ben).await.unwrap().devices.len(), 1);
}

#[tokio::test]
async fn a_gateway_that_starts_later_and_one_that_was_deaf_learn_of_it_r6_4() {
    let place = Place::new().await;
    let first = start(&place).await;
    // It hears nothing from NATS.
    let deaf = gateway::state(&place).await;
    deaf.revocations.start(&deaf).await;
    let [ana, ben] = users();
    let identities = [logged_in(ana, "phone"), logged_in(ben, "phone")];
    let client = connect(&deaf, identities[0]).await;
    first.revocations.revoke(&first, ana, identities[0].login).await.unwrap();
    first.revocations.revoke(&first, ben, None).await.unwrap();
    let later = gateway::state(&place).await;
    later.revocations.start(&later).await;
    assert_eq!(identities.map(|identity| later.revocations.is_revoked(&identity)), [true; 2]);
    deaf.revocations.look_soon();
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
    until("looking", async || deaf.revocations.is_revoked(&identities[1])).await;
}

#[tokio::test]
async fn a_logout_is_not_said_to_be_in_force_while_a_gateway_that_lives_has_not_heard_of_it_r6_4() {
    let place = Place::new().await;
    let first = start(&place).await;
    let deaf = gateway::state(&place).await;
    place.inboxes.renew_lease(deaf.gateway_id).await.unwrap();
    let ana = logged_in(UserId::random(), "phone");
    let refusal = first.revocations.revoke(&first, ana.user_id, ana.login).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(first.revocations.is_revoked(&ana), "here it is");
    let lease = format!("{}:gateway:{}", place.namespace, deaf.gateway_id.as_uuid().simple());
    let () = redis::cmd("DEL").arg(lease).query_async(&mut place.redis.link().await.unwrap()).await.unwrap();
    first.revocations.revoke(&first, ana.user_id, ana.login).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_in_order_hears_of_logouts_to_its_end_and_holds_none_up_r6_4() {
    let place = Place::new().await;
    let first = start(&place).await;
    let (stopping, latch) = (gateway::state_with(&place, Tasks::default()).await, Latch::default());
    place.inboxes.renew_lease(stopping.gateway_id).await.unwrap();
    stopping.tasks.essential("delivery", delivery::listen(stopping.clone(), latch.clone()));
    until("hearing from NATS", async || latch.is_set()).await;
    let [ana, ben] = users().map(|user_id| logged_in(user_id, "phone"));

    stopping.tasks.draining().cancel();
    first.revocations.revoke(&first, ana.user_id, ana.login).await.unwrap();
    assert!(stopping.revocations.is_revoked(&ana), "it has said so");
    place.inboxes.release_lease(stopping.gateway_id).await.unwrap();
    stopping.tasks.stopping().cancel();
    first.revocations.revoke(&first, ben.user_id, ben.login).await.unwrap();
    assert!(!place.inboxes.is_departed(stopping.gateway_id).await.unwrap(), "its clients are on their way");
}

#[tokio::test]
async fn a_logout_from_far_ahead_locks_nobody_out_r6_4() {
    let place = Place::new().await;
    let first = gateway::state(&place).await;
    let (now, [ana, ben]) = (Clock::System.now(), users());
    let (ahead, bens) = (now.after(Duration::from_hours(1)), logged_in(ben, "phone"));
    let told = Revocation { user_id: ana, login: None, at: ahead };
    first.revocations.learn(&first.connections, &[told], now);
    let later = |user_id| Identity { issued_at: now.after(Duration::from_mins(2)), ..logged_in(user_id, "phone") };
    assert!(first.revocations.is_revoked(&logged_in(ana, "phone")));
    assert!(!first.revocations.is_revoked(&later(ana)));

    let (key, mut connection) = (format!("{}:revoked", place.namespace), place.redis.link().await.unwrap());
    let member = ben.as_uuid().simple().to_string();
    let () = redis::cmd("ZADD").arg(&key).arg(ahead.0).arg(member).query_async(&mut connection).await.unwrap();
    first.revocations.look(&first.connections, now).await.unwrap();
    assert!(!first.revocations.is_revoked(&bens));
    // What is true is kept in its place.
    let later_gateway = gateway::state(&place).await;
    assert_eq!(first.revocations.revoke(&first, ben, None).await, Ok(()));
    later_gateway.revocations.look(&later_gateway.connections, Clock::System.now()).await.unwrap();
    assert!(later_gateway.revocations.is_revoked(&bens) && !later_gateway.revocations.is_revoked(&later(ben)));
}

#[tokio::test]
async fn many_logouts_are_read_whole_and_old_ones_not_at_all_r6_4() {
    let place = Place::new().await;
    let first = gateway::state(&place).await;
    let (now, user_id) = (Clock::System.now(), UserId::random());
    let mut connection = place.redis.link().await.unwrap();
    let key = format!("{}:revoked", place.namespace);
    let mut add = redis::cmd("ZADD");
    add.arg(&key);
    // More than a page of the same moment, and some pages of different ones.
    for number in 0..10_000_i64 {
        let at = if number < 5_000 { now.0 - 1_000_000 } else { now.0 - 1_000_000 + number };
        add.arg(at).arg(format!("{}:{}", user_id.as_uuid().simple(), LoginId::of(&number.to_string())));
    }
    add.arg(now.0 - 48 * 3_600_000).arg(format!("{}:{}", user_id.as_uuid().simple(), LoginId::of("old")));
    add.arg(now.0).arg("nonsense");
    let () = add.query_async(&mut connection).await.unwrap();
    first.revocations.look(&first.connections, now).await.unwrap();
    let is_revoked = |sid: &str| first.revocations.is_revoked(&logged_in(user_id, sid));
    assert!((0..10_000).all(|number| is_revoked(&number.to_string())));
    assert!(!is_revoked("old"));
}

#[tokio::test]
async fn without_redis_a_logout_is_in_force_and_is_kept_when_redis_is_back_r6_4() {
    let (_directory, servers, place) = private().await;
    let [first, second] = [start(&place).await, start(&place).await];
    for state in [&first, &second] {
        state.revocations.start(state).await;
    }
    let [ana, ben] = users();
    let [phone, other] = [logged_in(ana, "phone"), logged_in(ben, "phone")];
    first.revocations.revoke(&first, ben, other.login).await.unwrap();
    let client = connect(&second, phone).await;
    servers.redis.kill().await.unwrap();
    let refusal = first.revocations.revoke(&first, ana, phone.login).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unavailable, "whoever asked repeats it");
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
    assert!(second.revocations.is_revoked(&phone));
    assert_eq!(second.tickets.issue(phone).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(second.tickets.take(&format!("ct1_{}", "A".repeat(43))).await.unwrap_err().code, ErrorCode::Unavailable);
    // It has lost everything, and nobody repeats anything.
    servers.redis.start().await.unwrap();
    until("writing it again", async || {
        let later = gateway::state(&place).await;
        let looked = later.revocations.look(&later.connections, Clock::System.now()).await;
        looked.is_ok() && [phone, other].iter().all(|identity| later.revocations.is_revoked(identity))
    })
    .await;
}

#[tokio::test]
async fn without_nats_a_logout_is_kept_and_whoever_asked_is_told_to_repeat_it_r6_4() {
    let (_directory, servers, place) = private().await;
    let [first, second] = [start(&place).await, start(&place).await];
    let [ana] = users();
    let phone = logged_in(ana, "phone");
    let client = connect(&second, phone).await;
    servers.nats.kill().await.unwrap();
    until("noticing", async || {
        let revoked = first.revocations.revoke(&first, ana, phone.login).await;
        revoked.is_err_and(|refusal| refusal.code == ErrorCode::Unavailable)
    })
    .await;
    assert!(first.revocations.is_revoked(&phone));
    second.revocations.look(&second.connections, Clock::System.now()).await.unwrap();
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
}

#[tokio::test]
async fn revoked_tokens_are_refused_by_rest_and_a_connection_is_not_renewed_with_one_r6_4() {
    let gateway = Gateway::start().await;
    let [ana] = users();
    let now_s = Clock::System.now().0 / 1000;
    let of_login = |sid: &str| token(ana, &json!({ "sid": sid, "iat": now_s }));
    let ask = async |token: &str| {
        let url = format!("http://{}/v1/unread", gateway.address);
        gateway.http.request(Method::GET, url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let mut client = connect(&gateway.state, logged_in(ana, "laptop")).await;
    gateway.state.revocations.revoke(&gateway.state, ana, Some(LoginId::of("phone"))).await.unwrap();
    assert_eq!((ask(&of_login("phone")).await, ask(&of_login("laptop")).await), (401, 200));
    let reply = client.ask(Command::RenewToken(RenewToken { token: of_login("phone") })).await;
    assert!(matches!(reply, Reply::Rejected(Rejected { code: ErrorCode::Unauthenticated, .. })));
    // Another login's token takes its place: then it is that login's connection.
    let reply = client.ask(Command::RenewToken(RenewToken { token: of_login("tablet") })).await;
    assert!(matches!(reply, Reply::Done { .. }));
    gateway.state.revocations.revoke(&gateway.state, ana, Some(LoginId::of("laptop"))).await.unwrap();
    assert!(client.is_open());
    gateway.state.revocations.revoke(&gateway.state, ana, Some(LoginId::of("tablet"))).await.unwrap();
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
    // Nobody knows when a token was issued that doesn't say.
    gateway.state.revocations.revoke(&gateway.state, ana, None).await.unwrap();
    assert_eq!(ask(&token(ana, &json!({}))).await, 401);
}
