//! Quotas of a user and day: over the interface, over several gateways, and without Redis.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use chat_shared::{
    clock::{Clock, Timestamp},
    ids::{MessageId, UserId},
    limits::COMMANDS_PER_SECOND_MAX,
    redis::bounded,
    wire::{ErrorBody, ErrorCode, MarkRead, SendMessage},
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{
    gateway::Gateway,
    outages,
    place::{Place, quota_settings, until, users},
};
use crate::quota::{EVENT_BYTES, QuotaSettings, Quotas, Resource};

const NOON: Timestamp = Timestamp(1_800_014_400_000);
const CONVERSATIONS_MAX: u64 = 128;

fn of_conversations(max: u64) -> QuotaSettings {
    QuotaSettings { conversations_per_user_day_max: NonZeroU64::new(max).unwrap(), ..quota_settings() }
}

fn another(place: &Place, clock: &Clock) -> Quotas {
    Quotas::start(&of_conversations(CONVERSATIONS_MAX), place.redis.clone(), clock.clone(), &place.tasks)
}

fn is_refused(quotas: &Quotas, user_id: UserId) -> bool {
    quotas.check(user_id, Resource::Conversations).is_err()
}

#[tokio::test]
async fn a_quota_holds_for_all_gateways() {
    let (place, [user, other]) = (Place::new().await, users());
    let clock = Clock::fixed(NOON);
    let gateways = [another(&place, &clock), another(&place, &clock), another(&place, &clock)];
    for gateway in &gateways {
        gateway.count(user, Resource::Conversations, CONVERSATIONS_MAX / 3 + 1);
        assert!(!is_refused(gateway, user), "none of them alone");
    }
    let key = format!("{}:{{{}}}:used:{}", place.namespace, user.as_uuid().simple(), NOON.day().0);
    let in_redis = async || {
        let mut redis = place.redis.link().await.unwrap();
        let count: Option<u64> =
            bounded(redis::cmd("HGET").arg(&key).arg("conversations").query_async(&mut redis)).await.unwrap();
        count.unwrap_or_default()
    };
    // They report once a second, and learn from each report.
    until("the sum in Redis", async || in_redis().await > CONVERSATIONS_MAX).await;
    for gateway in &gateways {
        gateway.count(user, Resource::Conversations, CONVERSATIONS_MAX / 64);
    }
    until("refusals by all gateways", async || gateways.iter().all(|gateway| is_refused(gateway, user))).await;
    assert!(gateways.iter().all(|gateway| !is_refused(gateway, other)));

    let mut redis = place.redis.link().await.unwrap();
    let _gone: u64 = bounded(redis::cmd("DEL").arg(&key).query_async(&mut redis)).await.unwrap();
    gateways[0].count(user, Resource::Conversations, CONVERSATIONS_MAX / 64);
    gateways[0].report().await;
    assert!(is_refused(&gateways[0], user), "a gateway remembers what Redis has lost");
    let Clock::Fixed(now) = &clock else { unreachable!() };
    now.store(NOON.day().plus(1).start().0, std::sync::atomic::Ordering::Relaxed);
    assert!(!is_refused(&gateways[0], user), "a new day");
}

#[tokio::test]
async fn without_redis_each_gateway_counts_alone() {
    let (_directory, servers, place) = outages::private().await;
    servers.redis.kill().await.unwrap();
    let (quotas, user) = (another(&place, &Clock::System), UserId::random());
    for _ in 0..CONVERSATIONS_MAX {
        assert!(!is_refused(&quotas, user));
        quotas.count(user, Resource::Conversations, 1);
    }
    quotas.report().await;
    assert!(is_refused(&quotas, user));
}

#[tokio::test]
async fn new_conversations_end_with_the_quota() {
    let gateway = Gateway::with_quotas(&of_conversations(2)).await;
    let [ana, ben, eve] = users();
    let make = |user_id: UserId, other: UserId| {
        let body = json!({ "kind": "direct", "user_id": other.as_uuid() });
        gateway.request(user_id, Method::POST, "/v1/conversations").json(&body)
    };
    let status = async |user_id, other| make(user_id, other).send().await.unwrap().status();
    assert_eq!(status(ana, ben).await, StatusCode::CREATED);
    assert_eq!(status(ana, eve).await, StatusCode::CREATED);
    let refused = make(ana, UserId::random()).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let body: ErrorBody = refused.json().await.unwrap();
    assert_eq!(body.code, ErrorCode::RateLimited);
    assert!(body.retry_after_ms.is_some_and(|wait_ms| wait_ms <= 86_400_000), "at midnight");
    assert_eq!(status(ana, ben).await, StatusCode::OK, "it is there already");
    assert_eq!(status(eve, ben).await, StatusCode::CREATED, "another user");
}

#[tokio::test]
async fn messages_and_marks_end_with_the_quota() {
    let bytes_max = NonZeroU64::new(4 * EVENT_BYTES).unwrap();
    let gateway =
        Gateway::with_quotas(&QuotaSettings { log_bytes_per_user_day_max: bytes_max, ..quota_settings() }).await;
    let (place, [ana, ben]) = (&gateway.place, users());
    let conversation_id = place.direct(ben, ana).await.conversation_id;
    let (message_id, text) = (MessageId::random(), "x".repeat(1100));
    let command = SendMessage { conversation_id, message_id, text, is_repeat: false, seen_seq: None };
    place.sender.send(ana, command.clone()).await.unwrap();
    place.send(ana, conversation_id, "and").await.unwrap();
    let refusal = place.send(ana, conversation_id, "more").await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_hours(24)));
    let repeat = place.sender.send(ana, SendMessage { is_repeat: true, ..command }).await.unwrap();
    assert!(repeat.is_repeat, "what was accepted is answered as before");

    let receipts = &gateway.state.receipts;
    let mark = MarkRead { conversation_id, message_id, seq: None };
    assert!(receipts.mark_read(ana, mark).is_err_and(|refusal| refusal.code == ErrorCode::RateLimited));
    receipts.mark_read(ben, mark).unwrap().await.unwrap();
    let path = format!("/v1/blocks/{}", ben.as_uuid());
    let refused = gateway.refused(gateway.request(ana, Method::PUT, &path)).await;
    assert_eq!(refused, (429, ErrorCode::RateLimited), "a block is an event too");
}

#[tokio::test]
async fn made_up_ids_end_with_rate_and_quota() {
    let ids_max = NonZeroU64::new(250).unwrap();
    let settings = QuotaSettings { profile_ids_per_user_day_max: ids_max, ..quota_settings() };
    let (limited, generous) = (Box::pin(Gateway::with_quotas(&settings)).await, Box::pin(Gateway::start()).await);
    let asked = async |gateway: &Gateway, user_id| {
        let mut answered = 0;
        for _ in 0..20 {
            let ids = users::<100>().map(|user_id| user_id.as_uuid().to_string()).join(",");
            let request = gateway.request(user_id, Method::GET, &format!("/v1/profiles?user_ids={ids}"));
            let response = request.send().await.unwrap();
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                break;
            }
            answered += 1;
        }
        answered
    };
    let [ana, ben] = users();
    assert_eq!(asked(&limited, ana).await, 3, "the quota of a day");
    assert!((10..20).contains(&asked(&generous, ben).await), "ids are counted, not requests");
}

#[tokio::test]
async fn pages_and_groups_cost_as_much_as_several_commands() {
    let gateway = Gateway::start().await;
    let [ana] = users();
    let conversation_id = gateway.place.direct(ana, UserId::random()).await.conversation_id.as_uuid();
    let others = users::<7>();
    let costs = [
        (Method::GET, "/v1/conversations?limit=100".to_owned(), None, 5),
        (Method::GET, format!("/v1/conversations/{conversation_id}/messages?limit=61"), None, 4),
        (Method::POST, "/v1/conversations".to_owned(), Some(json!({ "kind": "group", "user_ids": others })), 8),
    ];
    for (method, path, body, cost) in costs {
        while gateway.state.rate.check(ana).is_ok() {}
        let since = Instant::now();
        let mut granted = 0;
        for _ in 0..20 {
            let (status, _) = gateway.ask(ana, method.clone(), &path, body.clone()).await;
            granted += u32::from(status.is_success());
        }
        let commands = since.elapsed().as_secs_f64() * f64::from(COMMANDS_PER_SECOND_MAX) + 1.0;
        assert!(f64::from(granted * cost) <= commands, "{granted} of {path} where {commands} commands are allowed");
    }
}
