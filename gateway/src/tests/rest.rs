//! The REST interface over HTTP: statuses, refusals and bad input.

use chat_shared::{
    ids::{MessageId, UserId},
    limits,
    wire::{Accepted, Conversation, ConversationPage, ErrorCode, HistoryPage},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{gateway::Gateway, place::users};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_conversation_lives_its_life_over_rest() {
    let (gateway, [ana, ben, eve]) = (Gateway::start().await, users());
    let direct = json!({ "kind": "direct", "user_id": ben.as_uuid() });
    let (status, made) = gateway.ask(ana, Method::POST, "/v1/conversations", Some(direct.clone())).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, again) = gateway.ask(ana, Method::POST, "/v1/conversations", Some(direct)).await;
    assert_eq!((status, &again), (StatusCode::OK, &made));
    let group = json!({ "kind": "group", "user_ids": [ben.as_uuid()] });
    let (_, group) = gateway.ask(ana, Method::POST, "/v1/conversations", Some(group)).await;
    let group: Conversation = read(group);
    let path = format!("/v1/conversations/{}", group.conversation_id.as_uuid());

    let message = json!({ "message_id": MessageId::random().as_uuid(), "text": "1" });
    let messages = format!("{path}/messages");
    let (status, sent) = gateway.ask(ben, Method::POST, &messages, Some(message.clone())).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, repeated) = gateway.ask(ben, Method::POST, &messages, Some(message.clone())).await;
    assert_eq!((status, &repeated), (StatusCode::OK, &sent));
    let other = json!({ "message_id": message["message_id"], "text": "another" });
    let (status, _) = gateway.ask(ben, Method::POST, &messages, Some(other)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let sent: Accepted = read(sent);

    let added = json!({ "user_ids": [eve.as_uuid()] });
    let (status, grown) = gateway.ask(ana, Method::POST, &format!("{path}/participants"), Some(added)).await;
    assert_eq!((status, read::<Conversation>(grown).participants.len()), (StatusCode::OK, 3));
    let (_, page) = gateway.ask(eve, Method::GET, &messages, None).await;
    let page: HistoryPage = read(page);
    assert_eq!((page.messages[0].message_id, page.last_seq), (sent.message_id, sent.seq));
    let (_, list) = gateway.ask(ana, Method::GET, "/v1/conversations?limit=1", None).await;
    let list: ConversationPage = read(list);
    let next = format!("/v1/conversations?limit=1&cursor={}", list.next_cursor.unwrap());
    let (_, rest) = gateway.ask(ana, Method::GET, &next, None).await;
    assert_eq!(read::<ConversationPage>(rest).next_cursor, None);

    let leave = |who: UserId| format!("{path}/participants/{}", who.as_uuid());
    let (status, body) = gateway.ask(eve, Method::DELETE, &leave(eve), None).await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    let (status, _) = gateway.ask(eve, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = gateway.ask(ben, Method::DELETE, &leave(ana), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn bad_input_gets_a_documented_refusal_and_disturbs_nobody() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let id = gateway.place.direct(ana, ben).await.conversation_id.as_uuid();
    let get = |path: String| gateway.request(ana, Method::GET, &path);
    let conversations = "/v1/conversations";
    let one = format!("{conversations}/{id}");
    let invalid = [
        get(format!("{conversations}?limit=0")),
        get(format!("{conversations}?limit=-1")),
        get(format!("{conversations}?limit=ten")),
        get(format!("{conversations}?limit=1&limit=2")),
        get(format!("{conversations}?cursor=%00")),
        get(format!("{conversations}?cursor=AAAA")),
        get(format!("{conversations}/not-an-id")),
        get(format!("{conversations}/%00")),
        get(format!("{conversations}/%ff%fe")),
        get(format!("{conversations}/00000000-0000-0000-0000-000000000000")),
        get(format!("{one}/messages?before=1&after=1")),
        get(format!("{one}/messages?before=-1")),
        get(format!("{one}/messages?before=99999999999999999999999")),
        get(format!("{one}/messages?after=")),
    ];
    for request in invalid {
        let shown = format!("{request:?}");
        assert_eq!(gateway.refused(request).await, (400, ErrorCode::Invalid), "{shown}");
    }
    let post = |path: &str| gateway.request(ana, Method::POST, path);
    let messages = format!("{one}/messages");
    let message = |text: &str| json!({ "message_id": MessageId::random().as_uuid(), "text": text });
    let invalid = [
        post(conversations),
        post(conversations).body("{}"),
        post(conversations).header("content-type", "application/json").body("{"),
        post(conversations).header("content-type", "application/json").body(vec![0xff, 0xfe, 0x00]),
        post(conversations).json(&json!([])),
        post(conversations).json(&json!({ "kind": "channel" })),
        post(conversations).json(&json!({ "kind": "direct" })),
        post(conversations).json(&json!({ "kind": "direct", "user_id": "me" })),
        post(conversations).json(&json!({ "kind": "direct", "user_id": ana.as_uuid() })),
        post(conversations).json(&json!({ "kind": "group", "user_ids": [] })),
        post(conversations).json(&json!({ "kind": "group", "user_ids": users::<8>() })),
        post(&messages).json(&json!({ "text": "no id" })),
        post(&messages).json(&message("")),
        post(&messages).json(&message("a\0b")),
        post(&messages).json(&json!({ "message_id": MessageId::random().as_uuid(), "text": 7 })),
    ];
    for (number, request) in invalid.into_iter().enumerate() {
        assert_eq!(gateway.refused(request).await, (400, ErrorCode::Invalid), "number {number}");
    }
    let long = "x".repeat(limits::TEXT_BYTES_MAX + 1);
    assert_eq!(gateway.refused(post(&messages).json(&message(&long))).await, (413, ErrorCode::TooLarge));
    let huge = "x".repeat(limits::BODY_BYTES_MAX + 1);
    assert_eq!(gateway.refused(post(&messages).json(&message(&huge))).await, (413, ErrorCode::TooLarge));
    assert_eq!(gateway.refused(get("/v2/nothing".to_owned())).await, (404, ErrorCode::NotFound));
    assert_eq!(gateway.refused(get("/v1/conversations/".to_owned())).await, (404, ErrorCode::NotFound));
    let put = gateway.request(ana, Method::PUT, conversations);
    assert_eq!(gateway.refused(put).await, (405, ErrorCode::Invalid));
    let anonymous = gateway.http.get(format!("http://{}{conversations}", gateway.address));
    assert_eq!(gateway.refused(anonymous).await, (401, ErrorCode::Unauthenticated));

    let (status, page) = gateway.ask(ana, Method::GET, &format!("{messages}?limit=99999999999999999999"), None).await;
    assert_eq!(status, StatusCode::OK, "an absurd size is the largest one");
    assert!(read::<HistoryPage>(page).messages.is_empty(), "nothing that was refused has been kept");
}

#[tokio::test]
async fn an_id_in_another_spelling_is_invalid_in_paths_queries_and_bodies_r1_3() {
    let (gateway, [ana, ben]) = (Gateway::start().await, users());
    let id = gateway.place.direct(ana, ben).await.conversation_id.as_uuid();
    let spelt = |id: Uuid| [id.to_string().to_uppercase(), id.simple().to_string(), id.braced().to_string()];
    for (id, user_id) in spelt(id).into_iter().zip(spelt(ben.as_uuid())) {
        let requests = [
            gateway.request(ana, Method::GET, &format!("/v1/conversations/{id}")),
            gateway.request(ana, Method::GET, &format!("/v1/presence?user_ids={user_id}")),
            gateway
                .request(ana, Method::POST, "/v1/conversations")
                .json(&json!({ "kind": "direct", "user_id": user_id })),
        ];
        for request in requests {
            let shown = format!("{request:?}");
            assert_eq!(gateway.refused(request).await, (400, ErrorCode::Invalid), "{shown}");
        }
    }
    assert_eq!(gateway.ask(ana, Method::GET, &format!("/v1/conversations/{id}"), None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_description_is_served_to_anybody() {
    let gateway = Gateway::start().await;
    let response = gateway.http.get(format!("http://{}/openapi.json", gateway.address)).send().await.unwrap();
    let description: Value = response.json().await.unwrap();
    assert!(description["paths"]["/v1/conversations/{conversation_id}/messages"]["post"].is_object());
    assert_eq!(description["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}
