//! Promise 2: one id, one message.

use anyhow::Result;
use chat_e2e::{Api, on_shared_fleet, said, socket::send_message};
use chat_shared::{
    ids::{ConversationId, MessageId},
    wire::{Accepted, Encoding},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What an answer says about the message: number and time.
fn place(reply: &Value) -> (Option<u64>, Option<i64>) {
    (reply["seq"].as_u64(), reply["sent_at"].as_i64())
}

#[test]
fn promise_2_a_repeat_gets_the_first_answer_everywhere() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (message_id, text) = (MessageId::random(), said("once"));
        let mut here = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let mut there = fleet.ready_socket(&asha, 1, Encoding::MessagePack).await?;

        let first = here.send(conversation_id, message_id, &text).await?;
        assert_eq!((&first["type"], &first["seq"]), (&json!("accepted"), &json!(1)));
        here.send(conversation_id, MessageId::random(), &said("something in between")).await?;
        for socket in [&mut here, &mut there] {
            assert_eq!(place(&socket.send(conversation_id, message_id, &text).await?), place(&first));
            let mut repeat = send_message(conversation_id, message_id, &text);
            repeat["is_repeat"] = json!(true);
            assert_eq!(place(&socket.ask(repeat).await?), place(&first));
        }
        for gateway in [0, 1] {
            let answer = fleet.api(&asha, gateway).send(conversation_id, message_id, &text).await?;
            assert_eq!((answer.status, place(&answer.body)), (200, place(&first)));
        }
        let page = fleet.api(&bikram, 0).history(conversation_id, "").await?;
        assert_eq!(page.messages.len(), 2);
        Ok(())
    })
}

#[test]
fn promise_2_a_repeat_is_recognised_beyond_the_logs_own_memory() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (message_id, text) = (MessageId::random(), said("once"));
        let first = fleet.api(&asha, 0).send(conversation_id, message_id, &text).await?;
        chat_e2e::database::wait_until_stored(&fleet.urls().postgres, conversation_id, 1).await?;
        // Told that it is a repeat, the gateway looks for it before it asks the log: this is what is left after the
        // log's window has passed.
        let path = format!("conversations/{}/messages", conversation_id.as_uuid());
        let body = |text: &str| json!({ "message_id": message_id, "text": text, "is_repeat": true });
        let again = fleet.api(&asha, 1).post(&path, &body(&text)).await?;
        assert_eq!((again.status, place(&again.body)), (200, place(&first.body)));
        assert_eq!(fleet.api(&asha, 1).post(&path, &body(&said("other"))).await?.code(), "409 conflict");
        // One that was never sent is new, whatever its sender believes.
        let fresh = json!({ "message_id": MessageId::random(), "text": said("new"), "is_repeat": true });
        let accepted: Accepted = fleet.api(&asha, 1).post(&path, &fresh).await?.ok()?;
        assert_eq!(accepted.seq.0, 2);
        Ok(())
    })
}

#[test]
fn promise_2_repeats_at_both_gateways_at_once_are_one_message() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for round in 1..=5 {
            let message_id = MessageId::random();
            let mut tries = JoinSet::new();
            for number in 0..8 {
                tries.spawn(send_once(fleet.api(&asha, number % 2), conversation_id, message_id));
            }
            for accepted in tries.join_all().await {
                assert_eq!(accepted?.seq.0, round);
            }
        }
        Ok(())
    })
}

async fn send_once(api: Api, conversation_id: ConversationId, message_id: MessageId) -> Result<Accepted> {
    api.send(conversation_id, message_id, &said("at once")).await?.ok()
}

#[test]
fn promise_2_the_same_id_with_another_text_is_a_conflict() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let message_id = MessageId::random();
        fleet.api(&asha, 0).send(conversation_id, message_id, &said("this")).await?.ok::<Accepted>()?;
        for gateway in [0, 1] {
            let answer = fleet.api(&asha, gateway).send(conversation_id, message_id, &said("that")).await?;
            assert_eq!(answer.code(), "409 conflict");
            let mut socket = fleet.ready_socket(&asha, gateway, Encoding::Json).await?;
            let reply = socket.send(conversation_id, message_id, &said("that")).await?;
            assert_eq!((&reply["type"], &reply["code"]), (&json!("rejected"), &json!("conflict")));
        }
        let page = fleet.api(&bikram, 0).history(conversation_id, "").await?;
        assert_eq!(page.messages.iter().map(|message| message.text.clone()).collect::<Vec<_>>(), [said("this")]);
        Ok(())
    })
}

#[test]
fn promise_2_an_id_is_one_message_of_its_conversation() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let conversation_id = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let elsewhere = fleet.direct(&asha, &bikram).await?;
        let message_id = MessageId::random();
        let accepted: Accepted = fleet.api(&asha, 0).send(conversation_id, message_id, &said("here")).await?.ok()?;
        assert_eq!(accepted.seq.0, 1);
        for (number, person) in [&bikram, &chandra].into_iter().enumerate() {
            let answer = fleet.api(person, number).send(conversation_id, message_id, &said("here")).await?;
            assert_eq!(answer.code(), "409 conflict", "the same text of another participant");
        }
        let accepted: Accepted = fleet.api(&bikram, 1).send(elsewhere, message_id, &said("there")).await?.ok()?;
        assert_eq!(accepted.seq.0, 1, "another conversation has ids of its own");
        chat_e2e::database::wait_until_stored(&fleet.urls().postgres, conversation_id, 1).await
    })
}
