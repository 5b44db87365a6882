//! Promise 8: nobody sees what is not theirs.

use anyhow::Result;
use chat_e2e::{Answer, Api, Person, on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, MessageId},
    wire::Encoding,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Everything that can be done to a conversation by REST, as method, path under it and body.
fn actions(victim: &Person, actor: &Person) -> Vec<(Method, String, Option<Value>)> {
    let message = json!({ "message_id": MessageId::random(), "text": said("not yours") });
    let repeat = json!({ "message_id": MessageId::random(), "text": said("not yours"), "is_repeat": true });
    vec![
        (Method::GET, String::new(), None),
        (Method::GET, "/messages".into(), None),
        (Method::GET, "/messages?before=2".into(), None),
        (Method::GET, "/messages?after=0&limit=1".into(), None),
        (Method::POST, "/messages".into(), Some(message)),
        (Method::POST, "/messages".into(), Some(repeat)),
        (Method::POST, "/participants".into(), Some(json!({ "user_ids": [actor.id] }))),
        (Method::DELETE, format!("/participants/{}", victim.id.as_uuid()), None),
        (Method::DELETE, format!("/participants/{}", actor.id.as_uuid()), None),
    ]
}

async fn act(api: &Api, conversation_id: ConversationId, action: &(Method, String, Option<Value>)) -> Result<Answer> {
    let (method, path, body) = action;
    let body = body.as_ref().map(serde_json::to_vec).transpose()?;
    api.ask(method.clone(), &format!("conversations/{}{path}", conversation_id.as_uuid()), body).await
}

#[test]
fn promise_8_r6_4_a_stranger_finds_nothing_by_rest() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        for conversation_id in [direct, group] {
            // Both gateways know the conversation by now.
            for (person, gateway) in [(&asha, 0), (&bikram, 1)] {
                fleet.api(person, gateway).say(conversation_id, &said("between us")).await?;
            }
        }
        for gateway in [0, 1] {
            let api = fleet.api(&stranger, gateway);
            for action in actions(&bikram, &stranger) {
                // What doesn't exist and what isn't yours look the same.
                let nowhere = act(&api, ConversationId::random(), &action).await?;
                for conversation_id in [direct, group] {
                    let answer = act(&api, conversation_id, &action).await?;
                    assert_eq!(answer.code(), "404 not_found", "{} {}", action.0, action.1);
                    assert_eq!(answer.body, nowhere.body, "{} {}", action.0, action.1);
                }
            }
            assert_eq!(api.get("conversations").await?.body["conversations"], json!([]));
        }
        for conversation_id in [direct, group] {
            let page = fleet.api(&asha, 0).history(conversation_id, "").await?;
            assert_eq!(page.last_seq.0, 2, "nothing was written");
        }
        Ok(())
    })
}

#[test]
fn promise_8_r6_4_a_stranger_finds_nothing_by_websocket() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        for (conversation_id, gateway, encoding) in [
            (direct, 0, Encoding::Json),
            (direct, 1, Encoding::MessagePack),
            (group, 0, Encoding::MessagePack),
            (group, 1, Encoding::Json),
        ] {
            fleet.api(&asha, gateway).say(conversation_id, &said("between us")).await?;
            let mut socket = fleet.ready_socket(&stranger, gateway, encoding).await?;
            let mut reply = socket.send(conversation_id, MessageId::random(), &said("not yours")).await?;
            assert_eq!((&reply["type"], &reply["code"]), (&json!("rejected"), &json!("not_found")));
            let mut nowhere = socket.send(ConversationId::random(), MessageId::random(), &said("nowhere")).await?;
            (reply["ref"], nowhere["ref"]) = (Value::Null, Value::Null);
            assert_eq!(reply, nowhere, "what doesn't exist and what isn't yours look the same");
        }
        Ok(())
    })
}

#[test]
fn promise_8_a_stranger_is_pushed_nothing() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let theirs = fleet.direct(&asha, &bikram).await?;
        let ours = fleet.direct(&asha, &stranger).await?;
        let mut listener = fleet.connect(&stranger, 0).await?;
        let mut bikrams = fleet.connect(&bikram, 0).await?;
        for number in 0..5 {
            fleet.api(&asha, 1).say(theirs, &said(number)).await?;
        }
        bikrams.expect(1..=5).await?;
        fleet.api(&asha, 1).say(ours, &said("for you")).await?;
        let message = listener.message().await?;
        assert_eq!((message.conversation_id, message.text), (ours, said("for you")));
        assert!(listener.left_over().is_empty());
        Ok(())
    })
}

#[test]
fn promise_8_without_a_token_there_is_nothing() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let api = Api::new(fleet.gateway(0).url(), None);
        for action in actions(&bikram, &asha) {
            assert_eq!(act(&api, conversation_id, &action).await?.code(), "401 unauthenticated", "{}", action.1);
        }
        assert_eq!(api.get("conversations").await?.code(), "401 unauthenticated");
        let body = json!({ "kind": "direct", "user_id": bikram.id });
        assert_eq!(api.post("conversations", &body).await?.code(), "401 unauthenticated");
        Ok(())
    })
}
