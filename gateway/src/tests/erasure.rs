//! Erasure of users: what the account has ends, and a message without its text harms nobody.

use std::time::Duration;

use chat_cold::store::{Purpose, Store};
use chat_dev::{
    servers::{Login, logins::url_as, seaweedfs},
    store_proxy::StoreProxy,
    test_servers::TestServers,
};
use chat_shared::{
    event::Fact,
    ids::{BusinessId, ConversationId, DeviceId, MessageId, UserId},
    position::Seq,
    wire::{CloseCode, ConversationPage, ErrorCode, MarkRead, Mute, NotificationAddress, RegisterDevice, SendMessage},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, Row};
use time::OffsetDateTime;

use super::{
    business::Shop,
    gateway::Gateway,
    internal::Stand,
    place::{Place, until, users},
    removal::events,
};
use crate::{
    connection::simulated::Client,
    erasure,
    history::{ColdBodies, History, Place as PageOf},
};

/// Has an example of the state.
const DOCUMENT: &str = include_str!("../../../docs/kaha.md");

impl Stand {
    async fn erasure(&self, method: Method, user_id: UserId, token: &str, body: &str) -> (u16, Value) {
        let url = format!("http://{}/internal/v1/users/{}/erasure", self.address, user_id.as_uuid());
        let request = reqwest::Client::new().request(method, url).bearer_auth(token).body(body.to_owned());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

async fn count(place: &Place, statement: &'static str, user_id: UserId) -> i64 {
    let statement = statement.replace("$1", &format!("'{}'", user_id.as_uuid()));
    place.pool.fetch_one(AssertSqlSafe(statement)).await.unwrap().get(0)
}

/// Removes the texts of erased users, as retention does.
async fn sweep(place: &Place) {
    until("a pass of retention", async || {
        let step = sqlx::query_scalar!("select erase_messages(1024)").fetch_one(&place.pool).await.unwrap();
        step.is_none()
    })
    .await;
}

#[tokio::test]
async fn an_erasure_asks_for_its_scope_and_a_repeat_changes_nothing_r6_3() {
    let stand = Box::pin(Stand::start()).await;
    let [ana, ben] = users();
    let other = stand.keys[0].token(&json!({ "scope": "sessions:close users:erased" }));
    for method in [Method::PUT, Method::GET] {
        let (status, body) = stand.erasure(method, ana, &other, "nonsense").await;
        assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    }
    let token = stand.keys[0].token(&json!({ "scope": "users:erase" }));
    assert_eq!(stand.erasure(Method::GET, ana, &token, "").await.0, 404);
    for body in ["[]", "null", "{\"user_id\":1}", "nonsense"] {
        let (status, body) = stand.erasure(Method::PUT, ana, &token, body).await;
        assert_eq!((status, &body["code"]), (400, &json!("invalid")));
    }
    assert_eq!(stand.erasure(Method::PUT, ana, &token, &" ".repeat(70_000)).await.0, 413);
    assert_eq!(stand.erasure(Method::GET, ana, &token, "").await.0, 404, "nothing was requested");
    let (status, first) = stand.erasure(Method::PUT, ana, &token, "").await;
    assert_eq!(status, 202);
    assert_eq!(first["user_id"], json!(ana.as_uuid()));
    assert!(first["requested_at"].is_i64() && first["account_erased_at"].is_i64());
    assert_eq!((&first["texts_in_packs"], &first["erased_at"]), (&json!(0), &Value::Null));
    assert_eq!(stand.erasure(Method::PUT, ana, &token, "{}").await, (202, first.clone()));
    assert_eq!(stand.erasure(Method::GET, ana, &token, "").await, (200, first));
    assert_eq!(stand.erasure(Method::GET, ben, &token, "").await.0, 404);
    sweep(&stand.gateway.place).await;
    let (_, swept) = stand.erasure(Method::GET, ana, &token, "").await;
    assert!(swept["swept_at"].is_i64() && swept["erased_at"].is_null());
    let (_, example) = DOCUMENT.split_once("```json erasure\n").unwrap();
    let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
    let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&swept), names(&example));
}

/// An account with something of everything, in a business with an agent.
async fn account(gateway: &Gateway, ana: UserId) -> ([ConversationId; 3], ConversationId) {
    let (place, state) = (&gateway.place, &gateway.state);
    let [ben, eve] = users();
    let direct = place.direct(ana, ben).await.conversation_id;
    let own = place.group(ana, &[ben, eve]).await.conversation_id;
    let other = place.group(ben, &[ana]).await.conversation_id;
    let left = place.group(ben, &[ana]).await.conversation_id;
    state.conversations.remove(ana, left, ana).await.unwrap();
    state.conversations.block(ana, ben).await.unwrap();
    state.conversations.block(eve, ana).await.unwrap();
    state.conversations.mute(ana, direct, Mute::ForGood).await.unwrap();
    let address = NotificationAddress::Webhook { token: "phone".to_owned() };
    let request = RegisterDevice { address, app_id: "com.example.chat".to_owned(), locale: None };
    state.devices.register(ana, DeviceId::random(), request).await.unwrap();
    let [agent] = users();
    let business_id = BusinessId::random();
    let list = json!({ "version": 1, "staff": [{ "user_id": agent.as_uuid(), "role": "agent" }] });
    state.businesses.set_staff(business_id, &serde_json::from_value(list).unwrap()).await.unwrap();
    let case = Box::pin(state.businesses.converse(&place.quotas, ana, business_id)).await.unwrap();
    ([direct, own, other], case.conversation.conversation_id)
}

#[tokio::test]
async fn an_account_ends_with_events_as_if_its_user_had_and_a_repeat_goes_on() {
    let gateway = Box::pin(Gateway::start()).await;
    let (place, state) = (&gateway.place, &gateway.state);
    let [ana] = users();
    let ([direct, own, other], case) = Box::pin(account(&gateway, ana)).await;
    let client = Client::connect(state, ana).await;
    let mut requests = 1;
    // Each request ends one block, group or case, and might as well be killed then.
    while let Err(refusal) = Box::pin(erasure::request_within(state, ana, Duration::ZERO)).await {
        assert_eq!(refusal.code, ErrorCode::Unavailable, "{refusal}");
        assert!(refusal.retry_after.is_some());
        let pending = erasure::find(state, ana).await.unwrap();
        assert_eq!((pending.account_erased_at, pending.erased_at), (None, None));
        requests += 1;
    }
    assert!(requests > 5, "two blocks, two groups, a case, what is kept of groups");
    assert_eq!(client.closed().await, CloseCode::LoggedOut);
    for statement in [
        "select count(*) from notification_devices where user_id = $1",
        "select count(*) from blocks where blocker_id = $1 or blocked_id = $1",
        "select count(*) from former_participants where user_id = $1",
        "select count(*) from participants where user_id = $1 and (role in ('member', 'owner') and conversation_id in (select conversation_id from conversations where kind = 'group') or muted_until is not null)",
        "select count(*) from cases where customer_id = $1 and state <> 'resolved'",
        "select count(*) from outbox where $1::uuid is not null",
    ] {
        assert_eq!(count(place, statement, ana).await, 0, "{statement}");
    }
    for group in [own, other] {
        let events = events(place, group).await;
        let last = events.last().unwrap();
        let Fact::ParticipantsChanged(change) = &last.fact else { panic!("{:?}", last.fact) };
        assert_eq!(change.removed, [ana]);
        assert!(last.participants.find(ana).is_none());
    }
    let unblocked = events(place, direct).await;
    assert!(matches!(&unblocked.last().unwrap().fact, Fact::BlocksChanged(_)));
    assert!(unblocked.last().unwrap().participants.blocked_by.is_empty());
    let resolved = events(place, case).await;
    let business = resolved.last().unwrap().participants.business.clone().unwrap();
    assert_eq!(business.case.state.as_str(), "resolved");
    until("the connection has left", async || {
        let seen = state.inboxes.presence(&[ana]).await.unwrap();
        !seen[0].presence.is_online
    })
    .await;
    let seen = state.inboxes.presence(&[ana]).await.unwrap();
    assert_eq!(seen[0].presence.last_seen_at, None);
}

#[tokio::test]
async fn an_open_case_that_an_agent_has_is_resolved_and_does_not_open_again() {
    let shop = Box::pin(Shop::new(1)).await;
    let ([ana], agent) = (users(), shop.agents[0]);
    shop.available(&[agent]).await;
    let id = shop.converse(ana).await.unwrap().conversation_id;
    shop.write(ana, id).await.unwrap();
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(agent));
    let open = shop.businesses().open_cases_of(ana, 10).await.unwrap();
    assert_eq!(open, [(shop.business_id, id)]);
    for _ in 0..2 {
        shop.businesses().resolve_for_customer(shop.business_id, id).await.unwrap();
    }
    // What was accepted before is stored now.
    shop.store(id).await;
    assert!(shop.reopened().await.is_empty());
    assert!(shop.businesses().open_cases_of(ana, 10).await.unwrap().is_empty());
    assert_eq!((shop.case(id).await.0.as_str(), shop.participants(id).await), ("resolved", vec![ana]));
}

#[tokio::test]
async fn a_message_without_its_text_is_a_gap_in_history_no_preview_and_counts_as_before() {
    let gateway = Box::pin(Gateway::start()).await;
    let place = &gateway.place;
    let [ana, ben] = users();
    let id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ben, id, 2).await;
    let message_id = MessageId::random();
    let command =
        |is_repeat| SendMessage { conversation_id: id, message_id, text: "3".to_owned(), is_repeat, seen_seq: None };
    let first = place.sender.send(ana, command(false)).await.unwrap();
    place.store(id, 3, &[]).await;
    let list = async || -> ConversationPage {
        let (_, body) = gateway.ask(ben, Method::GET, "/v1/conversations", None).await;
        serde_json::from_value(body).unwrap()
    };
    let before = list().await.conversations.remove(0);
    assert_eq!((before.last_message.as_ref().unwrap().text.as_str(), before.unread), ("3", 3));
    Box::pin(erasure::request(&gateway.state, ana)).await.unwrap();
    sweep(place).await;
    // History, from the log's tail too.
    for page_of in [PageOf::Newest, PageOf::After(Seq::ZERO), PageOf::After(Seq(1))] {
        let page = place.history.page(ben, id, page_of, 50).await.unwrap();
        let shown: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        let expected: &[Seq] = if page_of == PageOf::After(Seq(1)) { &[Seq(2)] } else { &[Seq(1), Seq(2)] };
        assert_eq!((shown.as_slice(), page.has_more, page.last_seq), (expected, false, Seq(3)), "{page_of:?}");
    }
    assert!(place.history.page(ben, id, PageOf::After(Seq(2)), 50).await.unwrap().messages.is_empty());
    let after = list().await.conversations.remove(0);
    assert!(after.last_message.is_none());
    assert_eq!((after.unread, after.last_seq), (2, Seq(3)), "nothing of it could be read");
    // A repeat gets the first answer, and a client marks all as read by the message or by its number.
    let repeat = place.sender.send(ana, command(true)).await.unwrap();
    assert_eq!((repeat.seq, repeat.sent_at, repeat.is_repeat), (first.seq, first.sent_at, true));
    let receipts = place.receipts();
    for seq in [None, Some(Seq(3))] {
        let mark = MarkRead { conversation_id: id, message_id, seq };
        receipts.mark_read(ben, mark).unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn r12_3_a_page_that_meets_a_pack_which_was_replaced_reads_the_new_one() {
    let place = Box::pin(Place::new()).await;
    let [ana, ben] = users();
    let conversation = place.direct(ana, ben).await;
    let sent_at = OffsetDateTime::from(chat_shared::clock::Clock::System.now()) - time::Duration::days(30);
    for seq in 1..=20 {
        place.store_old(ana, &conversation, seq, sent_at).await;
    }
    let object = place.make_cold(sent_at.date()).await;
    let bytes = place.store.read(&object).await.unwrap();
    // The same packs in a store that a proxy leads to.
    let url = TestServers::from_env().unwrap().store().await.unwrap();
    let worker = seaweedfs::open(&url_as(&url, Login::Cold), Purpose::Writing).unwrap();
    let proxy = StoreProxy::open().await.unwrap();
    let mut settings = seaweedfs::settings(&url_as(&url, Login::Gateway)).unwrap();
    settings.cold_store_endpoint = Some(proxy.url().parse().unwrap());
    let store = Store::open(&settings, Purpose::Reading).unwrap();
    let history =
        History::new(place.database.clone(), place.tail.clone(), place.content.clone(), ColdBodies::new(store));
    worker.put_new(&object, bytes.clone()).await.unwrap();
    let id = conversation.conversation_id;
    let page = history.page(ana, id, PageOf::Newest, 50);
    let replacing = async {
        until("the page asks for the pack", async || proxy.reads() > 0).await;
        worker.put_new("new.pack", bytes).await.unwrap();
        sqlx::query!("update cold_packs set object = 'new.pack'").execute(&place.pool).await.unwrap();
        worker.delete(&object).await.unwrap();
        let (_, address) = url.rsplit_once('@').unwrap();
        proxy.lead_to(address.split_once('/').unwrap().0.to_owned());
    };
    let (page, ()) = tokio::join!(page, replacing);
    assert_eq!(page.unwrap().messages.len(), 20);
    // One that is gone costs its messages, and no more than its messages.
    worker.delete("new.pack").await.unwrap();
    let history = History::new(
        place.database.clone(),
        place.tail.clone(),
        place.content.clone(),
        ColdBodies::new(Store::open(&settings, Purpose::Reading).unwrap()),
    );
    assert_eq!(history.page(ana, id, PageOf::Newest, 50).await.unwrap().messages.len(), 1, "the newest is in its row");
}
