//! Commands that can be read and not carried out: each is answered with its code, and the connection goes on.

use anyhow::Result;
use chat_e2e::{Person, TestFleet, on_shared_fleet, said, socket::send_message};
use chat_shared::{
    ids::{ConversationId, DeviceId, MessageId},
    limits::TEXT_BYTES_MAX,
    wire::Encoding,
};
use serde_json::{Value, json};

use crate::witness::Witness;

/// A message with one field replaced.
fn message_with(conversation_id: ConversationId, field: &str, value: Value) -> Value {
    let mut command = send_message(conversation_id, MessageId::random(), &said("x"));
    command[field] = value;
    command
}

fn cases(conversation_id: ConversationId) -> Vec<(Value, &'static str)> {
    let with = |field, value| message_with(conversation_id, field, value);
    let padded = |bytes: usize| said("y".repeat(bytes - said("").len()));
    let mut cases = vec![
        (json!({ "type": "dance" }), "unknown_command"),
        (json!({ "type": "" }), "unknown_command"),
        (json!({ "type": "SEND_MESSAGE" }), "unknown_command"),
        (json!({ "type": "accepted" }), "unknown_command"),
        (json!({ "type": "confirm" }), "invalid"),
        (json!({ "type": "confirm", "cursor": "one" }), "invalid"),
        (json!({ "type": "confirm", "cursor": -1 }), "invalid"),
        (json!({ "type": "confirm", "cursor": 1.5 }), "invalid"),
        (json!({ "type": "heartbeat", "cursor": [] }), "invalid"),
        (json!({ "type": "send_message" }), "invalid"),
        (json!({ "type": "renew_token" }), "invalid"),
        (json!({ "type": "renew_token", "token": 7 }), "invalid"),
        (json!({ "type": "renew_token", "token": "" }), "unauthenticated"),
        (json!({ "type": "renew_token", "token": "a.b.c" }), "unauthenticated"),
        (json!({ "type": "renew_token", "token": "z".repeat(20_000) }), "unauthenticated"),
        (json!({ "type": "hello", "device_id": DeviceId::random() }), "hello_required"),
        (json!({ "type": "hello", "device_id": "me" }), "invalid"),
        (with("text", json!("")), "invalid"),
        (with("text", json!(" \n\t\u{2003}")), "invalid"),
        (with("text", json!(said("nul \0 byte"))), "invalid"),
        (with("text", json!(padded(TEXT_BYTES_MAX + 1))), "too_large"),
        (with("text", json!(padded(TEXT_BYTES_MAX - 1) + "é")), "too_large"),
        (with("text", json!("न".repeat(10_000))), "too_large"),
    ];
    for wrong in [Value::Null, json!(7), json!(["text"]), json!({}), json!(true)] {
        cases.push((with("text", wrong.clone()), "invalid"));
        cases.push((with("message_id", wrong.clone()), "invalid"));
        // A flag, and null is as if it were left out.
        let no_flag = if wrong == json!(true) || wrong.is_null() { json!("yes") } else { wrong };
        cases.push((with("is_repeat", no_flag), "invalid"));
    }
    let ids = ["", "x", "00000000-0000-0000-0000-000000000000", "936da01f-9abd-1d9d-80c7-02af85c822a8", "../../etc"];
    for id in ids {
        cases.push((with("conversation_id", json!(id)), "invalid"));
        cases.push((with("message_id", json!(id)), "invalid"));
    }
    cases
}

async fn parties(fleet: &TestFleet) -> Result<(Person, ConversationId)> {
    let [asha, bikram] = fleet.people()?;
    let conversation_id = fleet.direct(&asha, &bikram).await?;
    Ok((asha, conversation_id))
}

#[test]
fn commands_that_cannot_be_carried_out_are_answered_with_the_documented_code() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (asha, conversation_id) = parties(fleet).await?;
        let mut witness = Witness::of(fleet).await?;
        for encoding in Encoding::ALL {
            let mut socket = fleet.ready_socket(&asha, 0, encoding).await?;
            for (command, code) in cases(conversation_id) {
                let reply = socket.ask(command.clone()).await?;
                let found = (reply["type"].as_str(), reply["code"].as_str());
                assert_eq!(found, (Some("rejected"), Some(code)), "{encoding:?} {command}");
                let message = reply["message"].as_str().unwrap_or_default();
                assert!(!message.is_empty() && !message.contains(".rs"), "{message}");
            }
            assert_eq!(socket.ask(json!({ "type": "heartbeat" })).await?["type"], "done", "{encoding:?}");
        }
        witness.is_undisturbed(fleet).await?;
        let page = fleet.api(&asha, 0).history(conversation_id, "").await?;
        assert_eq!(page.last_seq.0, 0, "nothing of it was kept");
        Ok(())
    })
}

#[test]
fn texts_at_the_bound_and_unusual_ones_are_kept_as_they_are() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (asha, conversation_id) = parties(fleet).await?;
        let longest = said("y".repeat(TEXT_BYTES_MAX - said("").len()));
        let texts = [
            longest,
            said("\u{1}\u{1f}\u{7f}\u{85}"),
            said("\u{202e}\u{feff}\u{fffd}👨‍👩‍👧"),
            said("'; drop table messages; --"),
        ];
        for encoding in Encoding::ALL {
            let mut socket = fleet.ready_socket(&asha, 0, encoding).await?;
            for text in &texts {
                let reply = socket.send(conversation_id, MessageId::random(), text).await?;
                assert_eq!(reply["type"], "accepted", "{encoding:?} {reply}");
            }
        }
        let page = fleet.api(&asha, 1).history(conversation_id, "").await?;
        assert!(page.messages.iter().map(|message| &message.text).eq(texts.iter().chain(&texts)));
        Ok(())
    })
}

#[test]
fn fields_that_are_not_known_are_ignored_and_references_may_be_left_out() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (asha, conversation_id) = parties(fleet).await?;
        for encoding in Encoding::ALL {
            let mut socket = fleet.ready_socket(&asha, 0, encoding).await?;
            let mut command = message_with(conversation_id, "colour", json!({ "name": "blue" }));
            assert_eq!(socket.ask(command.clone()).await?["type"], "accepted");
            command["message_id"] = json!(MessageId::random());
            socket.command(&command).await?;
            let reply = socket.frame_where(|frame| frame["type"] == "accepted").await?;
            assert_eq!((&reply["ref"], &reply["message_id"]), (&Value::Null, &command["message_id"]));
            socket.command(&json!({ "type": "dance" })).await?;
            let reply = socket.frame_where(|frame| frame["type"] == "rejected").await?;
            assert_eq!((&reply["ref"], &reply["code"]), (&Value::Null, &json!("unknown_command")));
            let largest = json!({ "type": "confirm", "cursor": u64::MAX });
            assert_eq!(socket.ask(largest).await?["type"], "done", "a cursor from the future confirms what there is");
        }
        Ok(())
    })
}

#[test]
fn invalid_utf8_in_a_packed_text_is_as_malformed_as_in_json() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (asha, conversation_id) = parties(fleet).await?;
        let mut socket = fleet.ready_socket(&asha, 0, Encoding::MessagePack).await?;
        let command = message_with(conversation_id, "text", json!("@@@@"));
        let mut bytes = Encoding::MessagePack.encode(&command)?;
        let place = bytes.windows(4).position(|window| window == b"@@@@").unwrap_or_default();
        bytes[place] = 0xff;
        socket.data(&bytes).await?;
        assert_eq!(socket.close_code().await?, (4500, "malformed_frame".to_owned()));
        Ok(())
    })
}

#[test]
fn what_comes_before_hello_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let (asha, conversation_id) = parties(fleet).await?;
        let hello_missed = (4503, "hello_missed".to_owned());
        for encoding in Encoding::ALL {
            for command in
                [json!({ "type": "heartbeat" }), message_with(conversation_id, "text", json!(said("too early")))]
            {
                let mut socket = fleet.socket(&asha, 0, encoding).await?;
                socket.command(&command).await?;
                assert_eq!(socket.close_code().await?, hello_missed, "{command}");
            }
            for (command, code) in [
                (json!({ "type": "hello", "device_id": "me" }), "invalid"),
                (json!({ "type": "hello" }), "invalid"),
                (json!({ "type": "hello", "device_id": DeviceId::random(), "resume": { "cursor": 1 } }), "invalid"),
                (json!({ "type": "dance" }), "unknown_command"),
            ] {
                let mut socket = fleet.socket(&asha, 0, encoding).await?;
                assert_eq!(socket.ask(command.clone()).await?["code"], code, "{command}");
                assert_eq!(socket.close_code().await?, hello_missed, "{command}");
            }
        }
        let page = fleet.api(&asha, 0).history(conversation_id, "").await?;
        assert_eq!(page.last_seq.0, 0);
        Ok(())
    })
}
