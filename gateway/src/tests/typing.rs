//! Typing through two gateways. Who connects has no socket.

use chat_shared::{
    delivery::{Delivery, all_gateways_subject},
    ids::{ConversationId, MessageId, UserId},
    limits,
    wire::{Command, ErrorCode, Push, Rejected, Reply, SetTyping, Typing},
};

use reqwest::StatusCode;
use serde_json::json;

use super::{
    gateway,
    place::{Place, users},
    presence::start,
};
use crate::{connection::simulated::Client, delivery};

async fn set(client: &mut Client, conversation_id: ConversationId, is_typing: bool) -> Result<(), Rejected> {
    match client.ask(Command::SetTyping(SetTyping { conversation_id, is_typing })).await {
        Reply::Done { .. } => Ok(()),
        Reply::Rejected(rejected) => Err(rejected),
        Reply::Accepted(_) => panic!("typing is no message"),
    }
}

/// The next that is told of typing.
async fn told(client: &mut Client) -> (UserId, bool) {
    match client.push().await {
        Push::Typing { typing: Typing { user_id, is_typing, .. } } => (user_id, is_typing),
        other => panic!("{other:?} is not about typing"),
    }
}

/// Where the next typing is that is told of, and whose.
async fn next(client: &mut Client) -> (ConversationId, UserId) {
    match client.push().await {
        Push::Typing { typing } => (typing.conversation_id, typing.user_id),
        other => panic!("{other:?} is not about typing"),
    }
}

#[tokio::test]
async fn the_other_participants_are_told_on_any_gateway_and_nobody_else_r8_3() {
    let (place, [ana, ben, eve, zoe]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.group(ana, &[ben, eve]).await.conversation_id;
    let other = place.direct(ana, zoe).await.conversation_id;
    let (mut writer, mut beside) = (Client::connect(&here, ana).await, Client::connect(&there, ana).await);
    let (mut near, mut far) = (Client::connect(&here, ben).await, Client::connect(&there, eve).await);
    let mut stranger = Client::connect(&here, zoe).await;
    for is_typing in [true, true, false] {
        assert_eq!(set(&mut writer, id, is_typing).await, Ok(()));
    }
    for client in [&mut near, &mut far] {
        assert_eq!(
            [told(client).await, told(client).await],
            [(ana, true), (ana, false)],
            "a repeat at once is no news"
        );
    }
    let refused = set(&mut stranger, id, true).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert_eq!(set(&mut writer, ConversationId::random(), true).await.unwrap_err().code, ErrorCode::NotFound);
    // What comes next to those who were not to be told is something else.
    set(&mut stranger, other, true).await.unwrap();
    for client in [&mut writer, &mut beside] {
        assert_eq!(told(client).await, (zoe, true));
    }
}

#[tokio::test]
async fn typing_ends_by_itself_and_with_a_message_r8_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.direct(ana, ben).await.conversation_id;
    let (mut writer, mut reader) = (Client::connect(&here, ana).await, Client::connect(&there, ben).await);
    set(&mut writer, id, true).await.unwrap();
    assert_eq!(told(&mut reader).await, (ana, true));
    assert_eq!(told(&mut reader).await, (ana, false), "though nothing more was heard of the writer");

    set(&mut writer, id, true).await.unwrap();
    assert_eq!(told(&mut reader).await, (ana, true));
    place.send_many(ana, id, 1).await;
    let (_, message) = place.log.newest(id).await.unwrap().unwrap();
    let delivered = Delivery::Unnumbered(vec![message.encode().into()]);
    delivery::publish(&here, all_gateways_subject(&place.namespace), &delivered).await;
    assert_eq!(told(&mut reader).await, (ana, false));
    assert!(matches!(reader.push().await, Push::Message { .. }));
}

#[tokio::test]
async fn a_message_that_is_sent_by_rest_ends_typing_so_that_the_next_is_news_r8_4() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [here, there] = [start(&place).await, start(&place).await];
    let id = place.direct(ana, ben).await.conversation_id;
    let (mut writer, mut reader) = (Client::connect(&here, ana).await, Client::connect(&there, ben).await);
    let url = format!("http://{}/v1/conversations/{}/messages", gateway::serve(&here).await, id.as_uuid());
    let send = async || {
        let body = json!({ "message_id": MessageId::random(), "text": "Namaste" });
        let request = reqwest::Client::new().post(&url).bearer_auth(gateway::token(ana, &json!({}))).json(&body);
        request.send().await.unwrap().status()
    };
    set(&mut writer, id, true).await.unwrap();
    assert_eq!(send().await, StatusCode::CREATED);
    set(&mut writer, id, true).await.unwrap();
    set(&mut writer, id, false).await.unwrap();
    let shown = [told(&mut reader).await, told(&mut reader).await, told(&mut reader).await];
    assert_eq!(shown, [(ana, true), (ana, true), (ana, false)], "what begins after the message is passed on");
}

#[tokio::test]
async fn between_two_of_whom_one_blocks_the_other_typing_is_done_and_shown_to_neither_r8_3() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let id = place.direct(ana, ben).await.conversation_id;
    let group = place.group(ana, &[ben]).await.conversation_id;
    place.conversations.block(ben, ana).await.unwrap();
    let (mut first, mut second) = (Client::connect(&here, ana).await, Client::connect(&here, ben).await);
    assert_eq!(set(&mut first, id, true).await, Ok(()));
    assert_eq!(set(&mut second, id, true).await, Ok(()));
    // What comes next to each is of the group.
    set(&mut first, group, true).await.unwrap();
    assert_eq!(next(&mut second).await, (group, ana));
    set(&mut second, group, true).await.unwrap();
    assert_eq!(next(&mut first).await, (group, ben));
}

#[tokio::test]
async fn a_flood_of_typing_is_refused_with_a_time_to_come_back_r8_3() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let here = start(&place).await;
    let id = place.direct(ana, ben).await.conversation_id;
    let mut writer = Client::connect(&here, ana).await;
    let mut refused = None;
    for _ in 0..=limits::TYPING_BURST_MAX * 4 {
        refused = refused.or(set(&mut writer, id, true).await.err());
    }
    let refused = refused.expect("so many at once are too many");
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.retry_after_ms.is_some());
}
