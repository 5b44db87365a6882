//! Profiles that change: what was fetched before is nowhere after, and clients hear of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Json, Router, extract::State, routing::post};
use chat_dev::kaha::{Behaviour, announce_profiles};
use chat_shared::{
    delivery::{Delivery, NumberedEvent, Recipient, all_gateways_subject, gateway_subject},
    ids::{ConversationId, GatewayId, UserId},
    inbox::{Routed, Routing},
    wire::{ProfileState, Push},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    ground::{self, Ground, profile_of},
    one, until_current,
};
use crate::{
    connection::simulated::Client,
    delivery,
    state::AppState,
    tests::{
        place::{Place, until, users},
        presence,
    },
};

/// The name in the next push that tells of a profile of this user as kaha-main-v3 has it.
async fn pushed_name(client: &mut Client, user_id: UserId) -> String {
    loop {
        if let Push::Profile { profiles } = client.push().await
            && let Some(profile) = profiles.users.into_iter().find(|profile| profile.user_id == user_id)
        {
            assert_eq!(profile.state, ProfileState::Current);
            return profile.name;
        }
    }
}

#[tokio::test]
async fn a_change_reaches_every_gateway_and_whoever_shares_a_conversation_r3_4_r10_2() {
    let mut ground = Ground::new().await;
    let [ana, ben, eve] = users();
    ground.place.direct(ana, ben).await;
    let here = presence::start(&ground.place).await;
    ground.place.profiles = ground.gateway();
    let there = presence::start(&ground.place).await;
    let [mut anas, mut bens] = [Client::connect(&here, ana).await, Client::connect(&there, ben).await];
    let mut eves = Client::connect(&there, eve).await;
    for state in [&here, &there] {
        until_current(&state.profiles, &[ben]).await;
    }
    let names = ["Ben Rai", "Ben Gurung"];
    ground.kaha.profiles().set_user(ben.as_uuid(), names[0], None);
    here.profiles.changed(&[ben], &[]).await.unwrap();
    assert_eq!(pushed_name(&mut anas, ben).await, names[0]);
    assert_eq!(pushed_name(&mut bens, ben).await, names[0], "their own devices too");
    for state in [&here, &there] {
        until("the new name", async || one(&state.profiles, ben).await.name == names[0]).await;
    }
    // The other way, which kaha-main-v3 may choose: over NATS, where one of the gateways takes it.
    ground.kaha.profiles().set_user(ben.as_uuid(), names[1], None);
    let calls = ground.kaha.calls().for_any(&[ben.as_uuid()]).len();
    let body = json!({ "user_ids": [ben.as_uuid()], "business_ids": [] }).to_string();
    let subject = format!("{}.profiles.changed", ground.place.namespace);
    ground.place.operator.publish(subject, body.into()).await.unwrap();
    assert_eq!(pushed_name(&mut anas, ben).await, names[1]);
    assert_eq!(pushed_name(&mut bens, ben).await, names[1]);
    for state in [&here, &there] {
        until("the newer name", async || one(&state.profiles, ben).await.name == names[1]).await;
    }
    let calls = ground.kaha.calls().for_any(&[ben.as_uuid()]).len() - calls;
    assert!(
        (1..=2).contains(&calls),
        "{calls} calls: for the push, and at the most one for who asked before it was kept"
    );
    // Whoever shares nothing with them hears nothing.
    ground.place.direct(eve, ana).await;
    ground.kaha.profiles().set_user(eve.as_uuid(), "Eve", None);
    here.profiles.changed(&[eve], &[]).await.unwrap();
    let Push::Profile { profiles } = eves.push().await else { panic!("eve hears of nothing but names") };
    assert_eq!(profile_of(&profiles, eve).name, "Eve", "nothing of ben came before");
}

#[tokio::test]
async fn announcements_over_nats_are_not_held_up_by_a_gateway_that_died_r10_2() {
    let ground = Ground::new().await;
    let ([ana, ben], others) = (users(), users::<300>());
    let here = presence::start(&ground.place).await;
    ground.place.direct(ana, ben).await;
    let mut anas = Client::connect(&here, ana).await;
    // One whose lease does not even run out.
    let dead = GatewayId::random();
    ground.place.inboxes.renew_lease(dead).await.unwrap();
    let lease = format!("{}:gateway:{}", ground.place.namespace, dead.as_uuid().simple());
    let mut redis = ground.place.redis.link().await.unwrap();
    let () = redis::cmd("SET").arg(lease).arg(1).query_async(&mut redis).await.unwrap();
    assert!(here.profiles.changed(&[ana], &[]).await.is_err(), "whoever waits is told of it");
    ground.kaha.profiles().set_user(ben.as_uuid(), "Ben Rai", None);
    let subject = format!("{}.profiles.changed", ground.place.namespace);
    for user_id in others.into_iter().chain([ben]) {
        let body = json!({ "user_ids": [user_id.as_uuid()] }).to_string();
        ground.place.operator.publish(subject.clone(), body.into()).await.unwrap();
        ground.place.operator.flush().await.unwrap();
    }
    assert_eq!(pushed_name(&mut anas, ben).await, "Ben Rai");
}

#[tokio::test]
async fn what_comes_too_late_for_an_answer_is_pushed_r3_5() {
    let ground = Ground::new().await;
    let [ana, ben] = users();
    let here = presence::start(&ground.place).await;
    let mut anas = Client::connect(&here, ana).await;
    ground.kaha.behave(Behaviour::Slow(std::time::Duration::from_millis(300)));
    let shown = here.profiles.list(ana, &[ben], &[]).await;
    assert_eq!(profile_of(&shown, ben), ground::unanswered(ben));
    let name = ground.kaha.profiles().user(ben.as_uuid()).unwrap().name;
    assert_eq!(pushed_name(&mut anas, ben).await, name);
    assert_eq!(one(&here.profiles, ben).await.name, name);
    assert_eq!(ground.kaha.calls().all().len(), 1);
}

/// Puts the newest event of a conversation into a user's inbox, and delivers it to their gateway.
async fn deliver(place: &Place, state: &AppState, to: UserId, conversation_id: ConversationId) {
    let (stream_seq, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let event = newest.encode();
    let routed =
        place.inboxes.route(&[Routing { user_id: to, event: &event, delivered: None, lsn: None }]).await.unwrap();
    let [Routed::At { epoch, cursor, .. }] = routed[..] else { panic!("{to:?} has an inbox") };
    let recipients = vec![Recipient { user_id: to, epoch, cursor }];
    let delivery = Delivery::Numbered(vec![NumberedEvent { event: event.into(), stream_seq, recipients }]);
    let subject = gateway_subject(&place.namespace, state.gateway_id);
    assert!(delivery::publish(state, subject, &delivery).await);
}

#[tokio::test]
async fn pushes_of_conversations_have_the_names_of_their_participants_r2_5() {
    let ground = Ground::new().await;
    let [ana, ben, eve, zoe] = users();
    let here = presence::start(&ground.place).await;
    let mut bens = Client::connect(&here, ben).await;
    let group = ground.place.group(ana, &[ben, eve, zoe]).await.conversation_id;
    let names = [ana, ben, eve, zoe].map(|user| ground.kaha.profiles().user(user.as_uuid()).unwrap().name);
    until_current(&here.profiles, &[ana, ben, eve, zoe]).await;
    // From memory, and from the inbox when they have to be looked up.
    for is_remembered in [true, false] {
        if !is_remembered {
            here.profiles.forget_all();
        }
        deliver(&ground.place, &here, ben, group).await;
        let Push::Conversation { cursor, conversation } = bens.push().await else { panic!("of the conversation") };
        assert!(cursor.is_some());
        assert_eq!(conversation.name.text, names[..3].join(", "));
        assert_eq!((conversation.name.more, conversation.name.is_fallback), (1, false));
        let profiles: Vec<_> = conversation.profiles.iter().map(|profile| profile.name.clone()).collect();
        assert_eq!(profiles, names);
    }
    // Without an inbox nothing is waited for.
    here.profiles.forget_all();
    let (_, newest) = ground.place.log.newest(group).await.unwrap().unwrap();
    let told = Delivery::Unnumbered(vec![newest.encode().into()]);
    assert!(delivery::publish(&here, all_gateways_subject(&ground.place.namespace), &told).await);
    let Push::Conversation { cursor: None, conversation } = bens.push().await else { panic!("of the conversation") };
    assert!(conversation.name.is_fallback);
    assert_eq!(conversation.profiles.len(), 4);
}

/// A kaha-main-v3 that reads the name when it is asked, and answers when it is let.
struct Gated {
    name: Mutex<String>,
    asked: AtomicUsize,
    answers: Semaphore,
}

async fn answer(State(gated): State<Arc<Gated>>, Json(request): Json<Value>) -> Json<Value> {
    let name = gated.name.lock().clone();
    gated.asked.fetch_add(1, Ordering::SeqCst);
    gated.answers.acquire().await.unwrap().forget();
    let users = request["user_ids"].as_array().unwrap().iter().map(|id| json!({ "id": id, "name": name }));
    Json(json!({ "users": users.collect::<Vec<_>>(), "businesses": [] }))
}

#[tokio::test]
async fn what_was_fetched_before_a_change_is_nowhere_after_it_r10_2() {
    let place = Place::new().await;
    let gated =
        Arc::new(Gated { name: Mutex::new("Old".to_owned()), asked: AtomicUsize::new(0), answers: Semaphore::new(0) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/api/batch/profiles", post(answer)).with_state(Arc::clone(&gated));
    place.tasks.best_effort("gated", async move { axum::serve(listener, router).await.unwrap() });
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), ground::KEY).unwrap();
    let settings = ground::settings(&url, key.path());
    let gateways = [(); 3].map(|()| ground::start(&settings, &place));
    let [asking, telling, other] = &gateways;
    let user = UserId::random();
    assert_eq!(one(asking, user).await.state, ProfileState::Unavailable, "the answer waits");
    until("asking", async || gated.asked.load(Ordering::SeqCst) == 1).await;

    // It changes while the old name is on its way. The asking gateway doesn't even hear of it, but Redis does.
    "New".clone_into(&mut gated.name.lock());
    telling.changed(&[user], &[]).await.unwrap();
    gated.answers.add_permits(1);
    until("asking again", async || gated.asked.load(Ordering::SeqCst) >= 3).await;
    gated.answers.add_permits(100);
    let shown = until_current(asking, &[user]).await;
    assert_eq!(shown[0].name, "New");
    for gateway in [telling, other] {
        assert_eq!(until_current(gateway, &[user]).await[0].name, "New");
    }

    // The same between two looks at Redis, without Redis' help: forgetting is enough.
    assert_eq!(one(other, user).await.name, "New");
    "Newest".clone_into(&mut gated.name.lock());
    telling.changed(&[user], &[]).await.unwrap();
    other.forget(&[user], &[]);
    assert_eq!(until_current(other, &[user]).await[0].name, "Newest");
}

#[tokio::test]
async fn an_announcement_that_says_nothing_stops_nothing_r10_2() {
    let ground = Ground::new().await;
    let user = UserId::random();
    until_current(&ground.place.profiles, &[user]).await;
    let subject = format!("{}.profiles.changed", ground.place.namespace);
    for wrong in ["", "[]", "{\"user_ids\":7}", "{\"user_ids\":[null,\"me\"]}"] {
        ground.place.operator.publish(subject.clone(), wrong.into()).await.unwrap();
    }
    ground.kaha.profiles().set_user(user.as_uuid(), "Asha Rai", None);
    let urls = chat_dev::test_servers::TestServers::from_env().unwrap().isolated().await.unwrap();
    announce_profiles(&urls.nats, &ground.place.namespace, &[user.as_uuid()], &[]).await.unwrap();
    // This gateway hears no broadcasts, so it is told to forget as those are that do.
    until("the new name", async || {
        ground.place.profiles.forget(&[user], &[]);
        one(&ground.place.profiles, user).await.name == "Asha Rai"
    })
    .await;
}
