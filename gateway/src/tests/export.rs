//! Exports of users' data: everything of the user's own, once, and no text of another user.

use std::{collections::BTreeMap, time::Duration};

use chat_cold::store::Store;
use chat_shared::{
    clock::Clock,
    ids::{ConversationId, UserId},
    position::Seq,
    wire::{ErrorBody, ErrorCode, NotificationAddress, RegisterDevice},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    business::Shop,
    gateway::state,
    internal::Stand,
    place::{Place, master_key, store_key, until, users},
};
use crate::{
    export::{Bounds, ExportCursor, Exports},
    history::{ColdBodies, History},
    refusal::Refusal,
};

/// Pages of so many lines.
fn bounds(lines_max: usize) -> Bounds {
    Bounds { lines_max, ..Bounds::default() }
}

async fn exports(place: &Place, bounds: Bounds) -> Exports {
    Exports::new(state(place).await, bounds)
}

/// An export whose last page has come.
#[derive(Default)]
struct Export {
    lines: Vec<Value>,
    text: String,
    pages: usize,
}

impl Export {
    /// Takes a page; the cursor of the next one.
    fn take(&mut self, page: Vec<u8>) -> Option<ExportCursor> {
        let text = String::from_utf8(page).unwrap();
        self.lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        self.text.push_str(&text);
        self.pages += 1;
        let last = self.lines.pop().unwrap();
        match last["type"].as_str().unwrap() {
            "next" => Some(ExportCursor::decode(last["cursor"].as_str().unwrap()).unwrap()),
            other => {
                assert_eq!(other, "end");
                None
            }
        }
    }

    async fn of(exports: &Exports, user_id: UserId) -> Result<Self, Refusal> {
        let (mut export, mut cursor) = (Self::default(), None);
        loop {
            cursor = export.take(exports.page(user_id, cursor).await?);
            if cursor.is_none() {
                return Ok(export);
            }
        }
    }

    fn of_type(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    fn conversation(&self, id: ConversationId) -> Option<&Value> {
        self.of_type("conversation").find(|line| line["conversation_id"] == json!(id))
    }

    /// The numbers of a conversation's messages with their texts; `None` for one without the field.
    fn messages(&self, id: ConversationId) -> Vec<(u64, Option<Value>)> {
        let lines = self.of_type("message").filter(|line| line["conversation_id"] == json!(id));
        lines.map(|line| (line["seq"].as_u64().unwrap(), line.get("text").cloned())).collect()
    }
}

fn own(seq: u64, text: &str) -> (u64, Option<Value>) {
    (seq, Some(json!(text)))
}

const fn of_another(seq: u64) -> (u64, Option<Value>) {
    (seq, None)
}

fn now() -> OffsetDateTime {
    Clock::System.now().into()
}

#[tokio::test]
async fn own_texts_are_exported_and_messages_of_others_without_texts() {
    let (place, [ana, ben, cai]) = (Box::pin(Place::new()).await, users());
    let direct = place.direct(ana, ben).await.conversation_id;
    let [late, left, removed] =
        [place.group(ben, &[cai]).await, place.group(ben, &[ana]).await, place.group(ben, &[ana, cai]).await]
            .map(|made| made.conversation_id);
    let strange = place.direct(ben, cai).await.conversation_id;
    let send = async |from, id, text: &str| place.send(from, id, text).await.unwrap();
    send(ana, direct, "ana 1").await;
    send(ben, direct, "hidden 2").await;
    send(cai, late, "hidden 1").await;
    place.conversations.add(ben, late, &[ana]).await.unwrap();
    send(ana, late, "ana 2").await;
    for id in [left, removed] {
        send(ana, id, "ana 1").await;
        send(ben, id, "hidden 2").await;
    }
    place.conversations.remove(ana, left, ana).await.unwrap();
    place.conversations.remove(ben, removed, ana).await.unwrap();
    send(ben, removed, "hidden 3").await;
    send(cai, strange, "hidden 1").await;
    place.conversations.block(ana, cai).await.unwrap();
    let address = NotificationAddress::Fcm { token: "the-address-of-a-device-of-ana".to_owned() };
    let device = RegisterDevice { address, app_id: "app".to_owned(), locale: Some("ne".to_owned()) };
    place.devices().register(ana, chat_shared::ids::DeviceId::random(), device).await.unwrap();
    // Whether they are stored or only in the log.
    for stored in [&[][..], &[direct, late], &[left, removed, strange]] {
        for id in stored {
            place.store(*id, u64::MAX, &[]).await;
        }
        for lines_max in [1, 3, 1000] {
            let export = Export::of(&exports(&place, bounds(lines_max)).await, ana).await.unwrap();
            assert!(!export.text.contains("hidden") && !export.text.contains("the-address"));
            assert_eq!(export.messages(direct), [own(1, "ana 1"), of_another(2)]);
            assert_eq!(export.messages(late), [of_another(1), own(2, "ana 2")], "a late joiner reads all of it");
            for id in [left, removed] {
                assert_eq!(export.messages(id), [own(1, "ana 1")], "of others nothing any more");
                let line = export.conversation(id).unwrap();
                assert_eq!((&line["is_participant"], &line["participants"]), (&json!(false), &json!([])));
                assert_eq!((line.get("role"), line.get("joined_at")), (None, None));
            }
            assert!(export.conversation(strange).is_none());
            let line = export.conversation(late).unwrap();
            assert_eq!((&line["role"], &line["kind"]), (&json!("member"), &json!("group")));
            assert_eq!(line["participants"], json!([ben, cai]));
            assert_eq!(export.conversation(direct).unwrap()["participants"], json!([ben]));
            let user = &export.lines[0];
            assert_eq!((&user["type"], &user["user_id"]), (&json!("user"), &json!(ana)));
            assert_eq!(user["blocks"][0]["user_id"], json!(cai));
            assert_eq!((&user["devices"][0]["locale"], user["devices"].as_array().unwrap().len()), (&json!("ne"), 1));
            assert_eq!((export.of_type("user").count(), export.of_type("conversation").count()), (1, 4));
            let ids: Vec<_> = export.of_type("conversation").map(|line| line["conversation_id"].to_string()).collect();
            assert!(ids.is_sorted());
            assert_eq!(export.pages, (export.lines.len() - 1).div_ceil(lines_max));
        }
    }
}

#[tokio::test]
async fn a_user_without_conversations_gets_a_page_of_two_lines() {
    let (place, [ana]) = (Box::pin(Place::new()).await, users());
    let export = Export::of(&exports(&place, Bounds::default()).await, ana).await.unwrap();
    assert_eq!((export.pages, export.lines.len(), &export.lines[0]["devices"]), (1, 1, &json!([])));
}

#[tokio::test]
async fn a_customer_gets_no_id_of_staff_and_an_agent_the_cases_that_it_has() {
    let shop = Box::pin(Shop::new(1)).await;
    let ([agent], customer) = ([shop.agents[0]], UserId::random());
    shop.available(&[agent]).await;
    let id = Box::pin(shop.converse(customer)).await.unwrap().conversation_id;
    let send = async |from, text: &str| shop.place.send(from, id, text).await.unwrap();
    send(customer, "of the customer").await;
    send(agent, "of the agent").await;
    shop.store(id).await;
    let exports = exports(&shop.place, bounds(2)).await;
    let export = Export::of(&exports, customer).await.unwrap();
    for staff in [agent, shop.supervisor, shop.admin] {
        assert!(!export.text.contains(&staff.as_uuid().to_string()));
    }
    assert!(!export.text.contains("of the agent"));
    assert_eq!(export.messages(id), [own(1, "of the customer"), of_another(2)]);
    let line = export.conversation(id).unwrap();
    assert_eq!((&line["participants"], &line["role"]), (&json!([shop.business_id]), &json!("customer")));
    let senders: Vec<_> = export.of_type("message").map(|line| line["sender_id"].clone()).collect();
    assert_eq!(senders, [json!(customer), json!(shop.business_id)]);

    let export = Export::of(&exports, agent).await.unwrap();
    assert_eq!(export.messages(id), [of_another(1), own(2, "of the agent")]);
    assert_eq!(export.conversation(id).unwrap()["participants"], json!([customer]));
    assert!(!export.text.contains("of the customer"));
    let export = Export::of(&exports, shop.supervisor).await.unwrap();
    assert!(export.conversation(id).is_none(), "reading for the business is none of the supervisor's own data");
    Box::pin(shop.resolve(agent, id, 2)).await.unwrap();
    let export = Export::of(&exports, agent).await.unwrap();
    assert!(export.conversation(id).is_none(), "an agent without the case reads nothing of it");
}

#[tokio::test]
async fn every_line_comes_once_while_messages_are_sent_and_stored() {
    let (place, [ana, ben]) = (Box::pin(Place::new()).await, users());
    let talks = [place.direct(ana, ben).await, place.group(ana, &[ben]).await].map(|made| made.conversation_id);
    for id in talks {
        for _ in 0..10 {
            place.send(ana, id, "own").await.unwrap();
            place.send(ben, id, "hidden").await.unwrap();
        }
    }
    let one = exports(&place, bounds(3)).await;
    let other = exports(&place, bounds(4)).await;
    let (mut export, mut cursor, mut turn) = (Export::default(), None, 0);
    loop {
        let pages = if turn % 2 == 0 { &one } else { &other };
        let (repeated, page) = (pages.page(ana, cursor).await.unwrap(), pages.page(ana, cursor).await.unwrap());
        assert_eq!(repeated.len(), page.len(), "a page that was cut off comes again");
        cursor = export.take(page);
        if cursor.is_none() {
            break;
        }
        turn += 1;
        if turn <= 6 {
            for id in talks {
                place.send(ana, id, "own").await.unwrap();
                place.send(ben, id, "hidden").await.unwrap();
                // Another persister has yet to commit one of them.
                place.store(id, 8 * turn, &[4 * turn]).await;
            }
        }
    }
    assert!(!export.text.contains("hidden"));
    assert!(turn > 6, "several pages while something was sent");
    for id in talks {
        let expected: Vec<_> =
            (1..=32).map(|seq| if seq % 2 == 1 { own(seq, "own") } else { of_another(seq) }).collect();
        let messages = export.messages(id);
        assert!(messages.len() >= 20, "messages from before the export are in it");
        assert_eq!(messages, expected[..messages.len()]);
    }
}

#[tokio::test]
async fn deleted_messages_are_left_out_and_old_ones_are_found() {
    let (place, [ana, ben]) = (Box::pin(Place::new()).await, users());
    let conversation = place.direct(ana, ben).await;
    let id = conversation.conversation_id;
    for (seq, days) in (1..).zip([95, 60, 60, 33, 8, 8, 1, 0]) {
        let from = if seq % 2 == 1 { ana } else { ben };
        place.store_old(from, &conversation, seq, now() - time::Duration::days(days)).await;
    }
    let delete = "update conversations set floor_seq = 1;
         update messages set deleted_at = now(), envelope = null where seq = 5;
         update messages set deleted_at = now() where seq = 6";
    sqlx::raw_sql(delete).execute(&place.pool).await.unwrap();
    for lines_max in [1, 2, 1000] {
        let export = Export::of(&exports(&place, bounds(lines_max)).await, ana).await.unwrap();
        assert_eq!(export.messages(id), [of_another(2), own(3, "3"), of_another(4), own(7, "7"), of_another(8)]);
    }
}

#[tokio::test]
async fn old_texts_come_from_packs_and_lost_ones_are_null_with_a_reason() {
    let (place, [ana, ben]) = (Box::pin(Place::new()).await, users());
    let conversation = place.direct(ana, ben).await;
    let (id, old) = (conversation.conversation_id, now() - time::Duration::days(60));
    for seq in 1..=150 {
        place.store_old(if seq % 3 == 0 { ben } else { ana }, &conversation, seq, old).await;
    }
    place.store_old(ana, &conversation, 151, now()).await;
    let object = place.make_cold(old.date()).await;
    let expected: Vec<_> =
        (1..=151).map(|seq| if seq % 3 == 0 { of_another(seq) } else { own(seq, &seq.to_string()) }).collect();
    for lines_max in [40, 1000] {
        let export = Export::of(&exports(&place, bounds(lines_max)).await, ana).await.unwrap();
        assert_eq!(export.messages(id), expected);
    }
    // Without the store a part that needs it is refused; another part is not.
    let with = |store: Option<Store>| {
        let (database, tail, content) = (place.database.clone(), place.tail.clone(), place.content.clone());
        History::new(database, tail, content, ColdBodies::new(store))
    };
    let refusal = with(None).export(ana, id, Seq::ZERO).await.err().unwrap();
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    let part = with(None).export(ana, id, Seq(150)).await.unwrap();
    assert_eq!((part.messages.len(), part.next), (1, None));

    place.store.delete(&object).await.unwrap();
    let history = with(Some(place.store.clone()));
    let mut reasons = BTreeMap::new();
    let mut after = Seq::ZERO;
    loop {
        let part = history.export(ana, id, after).await.unwrap();
        for message in &part.messages {
            let line = serde_json::to_value(message).unwrap();
            *reasons
                .entry((line.get("text").cloned().map(|text| text.is_null()), line["reason"].to_string()))
                .or_insert(0) += 1;
        }
        let Some(next) = part.next else { break };
        after = next;
    }
    let expected = [
        ((None, "null".to_owned()), 50),
        ((Some(false), "null".to_owned()), 1),
        ((Some(true), "\"lost\"".to_owned()), 100),
    ];
    assert_eq!(reasons, expected.into());
}

#[tokio::test]
async fn a_text_is_null_if_its_key_is_destroyed_and_refused_if_its_key_is_only_missing_here() {
    let (place, [ana, ben]) = (Box::pin(Place::new()).await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    place.send(ana, id, "own").await.unwrap();
    place.send(ben, id, "hidden").await.unwrap();
    let exports = exports(&place, Bounds::default()).await;
    // Days end one by one, so another day's key is left.
    let wrapped = master_key().generate(Clock::System.now().day().plus(1)).unwrap();
    sqlx::raw_sql("create table kept as table content_keys; delete from content_keys")
        .execute(&place.pool)
        .await
        .unwrap();
    store_key(&place.pool, &wrapped).await;
    place.content.fetch(&place.pool).await.unwrap();
    let export = Export::of(&exports, ana).await.unwrap();
    assert_eq!(export.messages(id), [(1, Some(Value::Null)), of_another(2)]);
    assert_eq!(export.of_type("message").next().unwrap()["reason"], json!("key_destroyed"));
    sqlx::raw_sql("insert into content_keys table kept").execute(&place.pool).await.unwrap();
    // The first page has the line of the conversation, and the next one is refused.
    let mut begun = Export::default();
    let cursor = begun.take(exports.page(ana, None).await.unwrap());
    assert_eq!((cursor.map(|cursor| cursor.seq), begun.messages(id)), (Some(Seq::ZERO), vec![]));
    assert_eq!(exports.page(ana, cursor).await.unwrap_err().code, ErrorCode::Unavailable);
    place.content.fetch(&place.pool).await.unwrap();
    assert_eq!(begun.take(exports.page(ana, cursor).await.unwrap()), None);
    assert_eq!(begun.messages(id), [own(1, "own"), of_another(2)]);
}

#[tokio::test]
async fn a_page_ends_in_time_with_the_lines_that_were_gathered() {
    let (place, [ana, ben]) = (Box::pin(Place::new()).await, users());
    let id = place.direct(ana, ben).await.conversation_id;
    place.send(ana, id, "own").await.unwrap();
    place.store(id, u64::MAX, &[]).await;
    let none = exports(&place, Bounds { time_max: Duration::ZERO, ..Bounds::default() }).await;
    assert_eq!(none.page(ana, None).await.unwrap_err().code, ErrorCode::Unavailable);
    // The conversation is read, and its messages are not.
    let exports = exports(&place, Bounds { time_max: Duration::from_secs(4), ..Bounds::default() }).await;
    let mut locked = place.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table messages in access exclusive mode").execute(&mut *locked).await.unwrap();
    let mut export = Export::default();
    let cursor = export.take(exports.page(ana, None).await.unwrap());
    assert_eq!((export.lines.len(), export.messages(id)), (2, vec![]));
    drop(locked);
    assert_eq!(export.take(exports.page(ana, cursor).await.unwrap()), None);
    assert_eq!(export.messages(id), [own(1, "own")]);
}

fn path(user_id: UserId, query: &str) -> String {
    format!("/internal/v1/users/{}/export{query}", user_id.as_uuid())
}

/// The status, and the code if it is refused.
async fn get(stand: &Stand, path: &str, scope: &str) -> (u16, Option<ErrorCode>, reqwest::header::HeaderMap) {
    let token = stand.keys[0].token(&json!({ "scope": scope }));
    let url = format!("http://{}{path}", stand.address);
    let response = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let code = if status == 200 { None } else { Some(response.json::<ErrorBody>().await.unwrap().code) };
    (status, code, headers)
}

#[tokio::test]
async fn an_export_asks_for_its_scope_and_a_cursor_of_its_own() {
    let (stand, [ana]) = (Box::pin(Stand::start()).await, users());
    let (status, code, headers) = get(&stand, &path(ana, ""), "users:export").await;
    assert_eq!((status, code), (200, None));
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert_eq!(headers["cache-control"], "no-store");
    for scope in ["", "users", "users:export2", "sessions:close businesses:write profiles:invalidate"] {
        let (status, code, _) = get(&stand, &path(ana, "?cursor=garbage"), scope).await;
        assert_eq!((status, code), (403, Some(ErrorCode::Forbidden)), "{scope}");
    }
    let cursor = ExportCursor::end_of(ConversationId::random()).encode();
    assert_eq!(get(&stand, &path(ana, &format!("?cursor={cursor}")), "users:export").await.0, 200);
    for query in
        ["?cursor=", "?cursor=garbage", "?cursor=%00", "?curser=", "?cursor=a&cursor=b", &format!("?cursor={cursor}A")]
    {
        let (status, code, _) = get(&stand, &path(ana, query), "users:export").await;
        assert_eq!((status, code), (400, Some(ErrorCode::Invalid)), "{query}");
    }
    let (status, code, _) = get(&stand, "/internal/v1/users/ana/export", "users:export").await;
    assert_eq!((status, code), (400, Some(ErrorCode::Invalid)));
}

#[tokio::test]
async fn a_gateway_makes_two_pages_at_once_and_refuses_a_third() {
    let (stand, [ana]) = (Box::pin(Stand::start()).await, users());
    let pool = &stand.gateway.place.pool;
    let mut locked = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table participants in access exclusive mode").execute(&mut *locked).await.unwrap();
    let path = path(ana, "");
    let third = async {
        until("two pages that wait for PostgreSQL", async || {
            let waiting = sqlx::query_scalar!(
                r#"select count(*) as "waiting!" from pg_locks
                   where not granted and relation = 'participants'::regclass
                       and database = (select oid from pg_database where datname = current_database())"#
            );
            waiting.fetch_one(pool).await.unwrap() == 2
        })
        .await;
        let refused = get(&stand, &path, "users:export").await;
        locked.rollback().await.unwrap();
        refused
    };
    let (first, second, (status, code, headers)) =
        tokio::join!(get(&stand, &path, "users:export"), get(&stand, &path, "users:export"), third);
    assert_eq!((status, code, headers.contains_key("retry-after")), (429, Some(ErrorCode::RateLimited), true));
    assert_eq!((first.0, second.0), (200, 200));
    assert_eq!(get(&stand, &path, "users:export").await.0, 200);
}
