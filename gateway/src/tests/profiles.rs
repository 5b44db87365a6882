//! Profiles between real Redis, real NATS and a stand-in for kaha-main-v3 that is up, down, slow or wrong.

mod changes;
pub mod ground;

use std::time::Duration;

use chat_dev::kaha::{Behaviour, Fault, PROFILE_MARK};
use chat_shared::{
    ids::{BusinessId, UserId},
    limits,
    redis::bounded,
    wire::{ErrorCode, ProfileList, ProfileState, UserProfile},
};
use reqwest::{Method, StatusCode};

use self::ground::{Ground, profile_of, unanswered};
use super::{
    gateway::Gateway,
    outages,
    place::{until, users},
};
use crate::profiles::{ProfileId, Profiles};

/// What somebody is shown of one user.
async fn one(profiles: &Profiles, user_id: UserId) -> UserProfile {
    profiles.users(UserId::random(), &[user_id]).await.remove(0)
}

/// Waits until somebody is shown a user as kaha-main-v3 has them: it may answer too late for the first who asks.
async fn until_current(profiles: &Profiles, user_ids: &[UserId]) -> Vec<UserProfile> {
    let viewer = UserId::random();
    let is_current = |profile: &UserProfile| profile.state == ProfileState::Current;
    until("fetching profiles", async || profiles.users(viewer, user_ids).await.iter().all(is_current)).await;
    profiles.users(viewer, user_ids).await
}

#[tokio::test]
async fn a_page_with_a_cold_cache_costs_one_call_and_with_a_warm_one_none_r3_1_r11_4() {
    let ground = Ground::new().await;
    let ana = UserId::random();
    let others: [UserId; 50] = users();
    for other in others {
        ground.place.direct(ana, other).await;
    }
    // Making them has asked for each pair; now nobody knows anything any more.
    let everybody = [&others[..], &[ana]].concat();
    until_current(&ground.place.profiles, &everybody).await;
    ground.forget_everything(&everybody).await;
    let calls_before = ground.kaha.calls().all().len();
    let list = || ground.place.conversations.list(ana, 50, None);
    let page = list().await.unwrap();
    assert_eq!(page.conversations.len(), 50);
    until_current(&ground.place.profiles, &everybody).await;
    let calls = ground.kaha.calls().all();
    assert_eq!(calls.len(), calls_before + 1, "one call for the whole page");
    assert_eq!(calls[calls_before].user_ids.len(), 51);

    let page = list().await.unwrap();
    for conversation in page.conversations {
        let other = conversation.participants.iter().find(|of| of.user_id != ana).unwrap().user_id;
        let profile = ground.kaha.profiles().user(other.as_uuid()).unwrap();
        assert_eq!((conversation.name.text, conversation.name.avatar_url), (profile.name, profile.avatar_url));
        assert!(!conversation.name.is_fallback);
        assert!(conversation.profiles.iter().all(|profile| profile.state == ProfileState::Current));
    }
    let other_gateway = ground.gateway();
    assert!(other_gateway.users(ana, &everybody).await.iter().all(|profile| profile.state == ProfileState::Current));
    assert_eq!(ground.kaha.calls().all().len(), calls_before + 1, "a warm page costs none, on any gateway");
    assert!(ground.kaha.calls().complaints().is_empty(), "{:?}", ground.kaha.calls().complaints());
}

#[tokio::test]
async fn requests_that_miss_together_ask_together_and_for_each_id_once_r11_4() {
    let ground = Ground::new().await;
    let everybody: [UserId; 260] = users();
    let viewer = UserId::random();
    let asking = (0..30).map(|first| ground.place.profiles.users(viewer, &everybody[first..first + 230]));
    let shown = futures_util::future::join_all(asking).await;
    assert!(shown.iter().all(|users| users.len() == 230));
    until_current(&ground.place.profiles, &everybody).await;
    let mut asked: Vec<_> = ground.kaha.calls().all().iter().flat_map(|call| call.user_ids.clone()).collect();
    asked.sort_unstable();
    let mut distinct = asked.clone();
    distinct.dedup();
    assert_eq!((asked.len(), distinct.len()), (260, 260), "no id was asked for twice");
    assert!(ground.kaha.calls().all().iter().all(|call| call.user_ids.len() <= limits::KAHA_CALL_IDS_MAX));
    assert!(ground.kaha.calls().complaints().is_empty());
}

#[tokio::test]
async fn users_and_businesses_come_from_one_batch_by_their_ids_r10_1_r10_3() {
    let ground = Ground::new().await;
    let (viewer, user, business) = (UserId::random(), UserId::random(), BusinessId::random());
    let list = async || ground.place.profiles.list(viewer, &[user], &[business]).await;
    let is_current = |list: &ProfileList| {
        list.users[0].state == ProfileState::Current && list.businesses[0].state == ProfileState::Current
    };
    until("fetching both", async || is_current(&list().await)).await;
    let shown = list().await;
    let kaha = ground.kaha.profiles();
    assert_eq!(shown.users[0].name, kaha.user(user.as_uuid()).unwrap().name);
    assert_eq!(shown.businesses[0].name, kaha.business(business.as_uuid()).unwrap().name);
    assert_eq!(shown.businesses[0].avatar_url, kaha.business(business.as_uuid()).unwrap().avatar_url);
    assert_eq!(ground.kaha.calls().all().len(), 1);
}

#[tokio::test]
async fn profiles_are_current_for_a_day_and_kept_for_thirty_more_r11_1_r11_2_r3_3() {
    let ground = Ground::new().await;
    let (user, business) = (UserId::random(), BusinessId::random());
    let viewer = UserId::random();
    until_current(&ground.place.profiles, &[user]).await;
    until("fetching the business", async || {
        ground.place.profiles.list(viewer, &[], &[business]).await.businesses[0].state == ProfileState::Current
    })
    .await;
    for id in [ProfileId::User(user), ProfileId::Business(business)] {
        let mut redis = ground.place.redis.link().await.unwrap();
        let left: u64 = bounded(redis::cmd("PTTL").arg(ground.key(id)).query_async(&mut redis)).await.unwrap();
        let kept = limits::PROFILE_FRESH + limits::PROFILE_STALE;
        let age = kept.checked_sub(Duration::from_millis(left)).unwrap();
        assert!(age < Duration::from_mins(5), "{age:?}");
        // Not yet a day later it is current.
        ground.age(id, Duration::from_hours(23)).await;
    }
    let list = async |profiles: &Profiles| profiles.list(viewer, &[user], &[business]).await;
    let shown = list(&ground.gateway()).await;
    assert_eq!([shown.users[0].state, shown.businesses[0].state], [ProfileState::Current; 2]);
    assert_eq!(ground.kaha.calls().all().len(), 2, "what is current is not asked for");

    // A day later it is asked for again, and while that fails it is shown as it was.
    ground.kaha.behave(Behaviour::Down);
    for id in [ProfileId::User(user), ProfileId::Business(business)] {
        ground.age(id, Duration::from_hours(2)).await;
    }
    let shown = list(&ground.gateway()).await;
    let (kept_user, kept_business) = (&shown.users[0], &shown.businesses[0]);
    assert_eq!([kept_user.state, kept_business.state], [ProfileState::Stale; 2]);
    assert_eq!(kept_user.name, ground.kaha.profiles().user(user.as_uuid()).unwrap().name);
    assert_eq!(kept_business.name, ground.kaha.profiles().business(business.as_uuid()).unwrap().name);
    let new = one(&ground.gateway(), UserId::random()).await;
    assert_eq!((new.state, new.name.as_str(), new.avatar_url), (ProfileState::Unavailable, "User", None));
    ground.kaha.behave(Behaviour::Normal);
    ground.kaha.profiles().set_user(user.as_uuid(), "Asha Rai", None);
    assert_eq!(until_current(&ground.gateway(), &[user]).await[0].name, "Asha Rai");
}

#[tokio::test]
async fn whatever_kaha_does_nobody_is_refused_and_what_was_known_is_shown_r3_3_r3_5() {
    let ground = Ground::new().await;
    let [ana, ben] = users();
    let conversation = ground.place.direct(ana, ben).await;
    until_current(&ground.place.profiles, &[ana, ben]).await;
    let name = ground.kaha.profiles().user(ben.as_uuid()).unwrap().name;
    ground.age(ProfileId::User(ben), limits::PROFILE_FRESH).await;
    let wrong = [Fault::BrokenJson, Fault::Body("[]".to_owned()), Fault::Huge, Fault::CutShort];
    let failing = [500, 503, 401, 403, 404, 302].map(|status| Behaviour::Failing { status, retry_after: None });
    let behaviours = wrong.into_iter().map(Behaviour::Wrong).chain(failing);
    for behaviour in behaviours.chain([Behaviour::Down, Behaviour::BlackHole]) {
        ground.kaha.behave(behaviour.clone());
        let (profiles, calls) = (ground.gateway(), ground.kaha.calls().all().len());
        let shown = one(&profiles, ben).await;
        assert_eq!((shown.state, &shown.name), (ProfileState::Stale, &name), "{behaviour:?}");
        let is_heard = behaviour != Behaviour::Down;
        until("the call", async || !is_heard || ground.kaha.calls().all().len() > calls).await;
        let new = one(&profiles, UserId::random()).await;
        assert_eq!((new.state, new.name.as_str()), (ProfileState::Unavailable, "User"), "{behaviour:?}");
        let listed = ground.place.conversations.list(ana, 50, None).await.unwrap();
        assert_eq!(listed.conversations[0].conversation_id, conversation.conversation_id);
    }
    ground.kaha.behave(Behaviour::Normal);
    until_current(&ground.gateway(), &[ben]).await;
}

#[tokio::test]
async fn damaged_entries_harm_nobody_else_and_strangers_are_passed_over_r3_5() {
    let ground = Ground::new().await;
    let everybody: [UserId; 12] = users();
    let viewer = UserId::random();
    ground.kaha.behave(Behaviour::Wrong(Fault::DamagedEntries));
    let profiles = &ground.place.profiles;
    until("half of them", async || {
        let shown = profiles.users(viewer, &everybody).await;
        shown.iter().filter(|profile| profile.state == ProfileState::Current).count() >= 6
    })
    .await;
    let shown = profiles.users(viewer, &everybody).await;
    assert!(shown.iter().all(|profile| profile.state != ProfileState::Unknown), "a damaged entry says nothing");
    assert!(shown.iter().all(|profile| !profile.name.is_empty()));
    ground.kaha.behave(Behaviour::Wrong(Fault::Unasked));
    until_current(profiles, &everybody).await;
}

#[tokio::test]
async fn an_id_that_kaha_does_not_know_is_nobody_and_not_asked_for_again_at_once_r11_4() {
    let ground = Ground::new().await;
    let gone = UserId::random();
    ground.kaha.profiles().forget(gone.as_uuid());
    let profiles = &ground.place.profiles;
    until("learning that it is nobody", async || one(profiles, gone).await.state == ProfileState::Unknown).await;
    assert_eq!(one(profiles, gone).await.name, "User");
    assert_eq!(one(profiles, gone).await.state, ProfileState::Unknown);
    assert_eq!(ground.kaha.calls().for_any(&[gone.as_uuid()]).len(), 1, "this gateway remembers it for a while");
    ground.kaha.profiles().set_user(gone.as_uuid(), "Asha Rai", None);
    assert_eq!(until_current(&ground.gateway(), &[gone]).await[0].name, "Asha Rai");
}

#[tokio::test]
async fn unknown_ids_take_no_keys_of_redis() {
    let ground = Ground::new().await;
    let (viewer, made_up, known) = (UserId::random(), users::<40>(), UserId::random());
    for user_id in made_up {
        ground.kaha.profiles().forget(user_id.as_uuid());
    }
    let profiles = &ground.place.profiles;
    let are_answered = async || {
        let shown = profiles.users(viewer, &made_up).await;
        shown.iter().all(|profile| profile.state == ProfileState::Unknown)
    };
    until("the answers", are_answered).await;
    let keys = async |user_ids: &[UserId]| {
        let keys: Vec<_> = user_ids.iter().map(|user_id| ground.key(ProfileId::User(*user_id))).collect();
        let mut redis = ground.place.redis.link().await.unwrap();
        bounded::<u64>(redis::cmd("EXISTS").arg(keys).query_async(&mut redis)).await.unwrap()
    };
    assert_eq!(keys(&made_up).await, 0);

    until_current(profiles, &[known]).await;
    assert_eq!(keys(&[known]).await, 1);
    ground.kaha.profiles().forget(known.as_uuid());
    ground.age(ProfileId::User(known), limits::PROFILE_FRESH).await;
    let other = ground.gateway();
    until("the removal", async || one(&other, known).await.state == ProfileState::Unknown).await;
    assert_eq!(keys(&[known]).await, 1, "a profile that was known keeps its generation");
}

#[tokio::test]
async fn kaha_is_left_alone_while_it_fails_and_asked_again_when_it_is_back_r3_5() {
    let ground = Ground::new().await;
    ground.kaha.behave(Behaviour::Failing { status: 500, retry_after: None });
    let profiles = ground.gateway();
    until("leaving it alone", async || {
        let (user, before) = (UserId::random(), ground.kaha.calls().all().len());
        let shown = one(&profiles, user).await;
        assert_eq!(shown.state, ProfileState::Unavailable);
        before >= 3 && ground.kaha.calls().for_any(&[user.as_uuid()]).is_empty()
    })
    .await;
    ground.kaha.behave(Behaviour::Normal);
    until_current(&profiles, &[UserId::random()]).await;
}

#[tokio::test]
async fn kaha_is_left_alone_for_as_long_as_it_wishes() {
    let ground = Ground::new().await;
    let retry_after = Some(Duration::from_secs(30));
    ground.kaha.behave(Behaviour::Failing { status: 429, retry_after });
    let profiles = ground.gateway();
    until("its wish", async || {
        one(&profiles, UserId::random()).await;
        !ground.kaha.calls().all().is_empty()
    })
    .await;
    // Those who ask before its answer has come may still be heard of.
    until("leaving it alone", async || {
        let calls = ground.kaha.calls().all().len();
        for _ in 0..5 {
            one(&profiles, UserId::random()).await;
        }
        ground.kaha.calls().all().len() == calls
    })
    .await;
    ground.kaha.behave(Behaviour::Normal);
    let calls = ground.kaha.calls().all().len();
    assert_eq!(one(&profiles, UserId::random()).await.state, ProfileState::Unavailable);
    assert_eq!(ground.kaha.calls().all().len(), calls);
}

#[tokio::test]
async fn without_redis_kaha_and_memory_are_enough_r3_5() {
    let ground = Ground::new().await;
    let (_directory, servers, place) = outages::private().await;
    let profiles = ground.gateway_on(&place);
    servers.redis.pause().unwrap();
    let user = UserId::random();
    let shown = until_current(&profiles, &[user]).await;
    assert!(shown[0].name.contains(PROFILE_MARK));
    let refusal = profiles.changed(&[user], &[]).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unavailable, "whoever says that it changed has to say it again");
    servers.redis.resume().unwrap();
    until("taking in the change", async || profiles.changed(&[user], &[]).await.is_ok()).await;
    until_current(&profiles, &[user]).await;
}

#[tokio::test]
async fn profiles_are_asked_for_by_rest_and_have_neutral_names_without_kaha_r3_5_r10_3() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let business = BusinessId::random();
    let get = |query: &str| gateway.request(ana, Method::GET, &format!("/v1/profiles?{query}"));
    let [first, second, third] = [ben.as_uuid(), eve.as_uuid(), business.as_uuid()];
    let answer = get(&format!("user_ids={first},{second},{first}&business_ids={third}")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let list: ProfileList = answer.json().await.unwrap();
    assert_eq!(list.users.iter().map(|user| user.user_id).collect::<Vec<_>>(), [ben, eve], "each once");
    assert_eq!(profile_of(&list, ben), unanswered(ben));
    assert_eq!(list.businesses[0].name, "Business");
    let many = users::<101>().map(|user_id| user_id.as_uuid().to_string()).join(",");
    for wrong in ["", "user_ids=", "user_ids=me", "business_ids=%00", "user_ids=,", &format!("user_ids={many}")] {
        assert_eq!(gateway.refused(get(wrong)).await, (400, ErrorCode::Invalid), "{wrong}");
    }
}
