//! Rules for clients, on each gateway and in both encodings.

use anyhow::Result;
use chat_e2e::{Person, Socket, TestFleet, on_shared_fleet, realtime::mark_read, said, socket::send_message};
use chat_shared::{
    ids::{ConversationId, MessageId},
    wire::Encoding,
};
use serde_json::{Value, json};

/// Runs a check at each gateway in each encoding. The other gateway is given with it.
async fn everywhere(check: impl AsyncFn(usize, usize, Encoding) -> Result<()>) -> Result<()> {
    for gateway in [0, 1] {
        for encoding in Encoding::ALL {
            check(gateway, 1 - gateway, encoding).await?;
        }
    }
    Ok(())
}

/// A pair's conversation, and a connection of the first.
async fn pair(fleet: &TestFleet, gateway: usize, encoding: Encoding) -> Result<([Person; 2], ConversationId, Socket)> {
    let people: [Person; 2] = fleet.people()?;
    let conversation_id = fleet.direct(&people[0], &people[1]).await?;
    let socket = fleet.ready_socket(&people[0], gateway, encoding).await?;
    Ok((people, conversation_id, socket))
}

/// Sends a message; its id.
async fn message(socket: &mut Socket, id: ConversationId) -> Result<MessageId> {
    let message_id = MessageId::random();
    assert_eq!(socket.send(id, message_id, &said("hello")).await?["type"], "accepted");
    Ok(message_id)
}

/// A mark that names the number of its message.
fn mark(id: ConversationId, message_id: MessageId, seq: Value) -> Value {
    let mut command = mark_read(id, message_id);
    command["seq"] = seq;
    command
}

#[test]
fn null_in_an_optional_field_means_that_it_is_absent() -> Result<()> {
    on_shared_fleet(async |fleet| {
        everywhere(async |gateway, _, encoding| {
            let (_, id, mut socket) = pair(fleet, gateway, encoding).await?;
            let mut command = send_message(id, MessageId::random(), &said("with nulls"));
            (command["is_repeat"], command["seen_seq"]) = (Value::Null, Value::Null);
            assert_eq!(socket.ask(command).await?["type"], "accepted");
            let message_id = message(&mut socket, id).await?;
            assert_eq!(socket.ask(mark(id, message_id, Value::Null)).await?["type"], "done");
            assert_eq!(socket.ask(json!({ "type": "heartbeat", "cursor": null })).await?["type"], "done");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_message_id_is_taken_once_in_a_conversation_and_a_mark_names_its_number() -> Result<()> {
    on_shared_fleet(async |fleet| {
        everywhere(async |gateway, other, encoding| {
            let (people, id, mut socket) = pair(fleet, gateway, encoding).await?;
            let mut others = fleet.ready_socket(&people[1], other, encoding).await?;
            let message_id = message(&mut socket, id).await?;
            assert_eq!(others.send(id, message_id, &said("copied")).await?["code"], "conflict");
            assert_eq!(others.ask(mark(id, message_id, json!(2))).await?["code"], "not_found", "there is one message");
            assert_eq!(others.ask(mark(id, message_id, json!(1))).await?["type"], "done");
            let receipt = socket.receipt().await?;
            assert_eq!((receipt.seq.0, receipt.message_id), (1, Some(message_id)));
            Ok(())
        })
        .await
    })
}

#[test]
fn marks_in_conversations_of_others_and_in_none_are_refused_alike() -> Result<()> {
    on_shared_fleet(async |fleet| {
        everywhere(async |gateway, other, encoding| {
            let (_, theirs, mut owner) = pair(fleet, other, encoding).await?;
            let (_, _, mut stranger) = pair(fleet, gateway, encoding).await?;
            let message_id = message(&mut owner, theirs).await?;
            let mut refusals = Vec::new();
            for id in [theirs, ConversationId::random()] {
                let mut refusal = stranger.ask(mark(id, message_id, json!(1))).await?;
                refusal["ref"] = Value::Null;
                refusals.push(refusal);
            }
            assert_eq!(refusals[0], refusals[1]);
            assert_eq!(refusals[0]["code"], "not_found");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_connection_that_was_closed_is_not_counted_any_more() -> Result<()> {
    on_shared_fleet(async |fleet| {
        everywhere(async |gateway, _, encoding| {
            let [person] = fleet.people()?;
            // More than a user may have at the same time.
            for _ in 0..20 {
                fleet.ready_socket(&person, gateway, encoding).await?.goodbye().await?;
            }
            Ok(())
        })
        .await
    })
}

#[test]
fn commands_and_fields_of_a_later_version_cost_no_connection() -> Result<()> {
    on_shared_fleet(async |fleet| {
        everywhere(async |gateway, _, encoding| {
            let (_, id, mut socket) = pair(fleet, gateway, encoding).await?;
            let unknown = socket.ask(json!({ "type": "pin_message", "with": { "a": [1, null] } })).await?;
            assert_eq!(unknown["code"], "unknown_command");
            let mut command = send_message(id, MessageId::random(), &said("with more"));
            command["priority"] = json!({ "level": 7 });
            assert_eq!(socket.ask(command).await?["type"], "accepted");
            Ok(())
        })
        .await
    })
}
