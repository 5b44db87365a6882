//! What is sent reaches everybody in the conversation, wherever they are connected, now or later.

use anyhow::{Result, ensure};
use chat_client::{ClientOptions, ConnectionState};
use chat_e2e::{on_shared_fleet, said};
use chat_shared::{
    ids::{DeviceId, MessageId},
    wire::Encoding,
};
use uuid::{Uuid, Version};

#[test]
fn r4_1_r1_2_a_message_reaches_the_other_at_another_gateway_and_the_senders_other_devices() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (mut phone, mut tablet) = (fleet.connect(&asha, 0).await?, fleet.connect(&asha, 1).await?);
        let mut other = fleet.connect(&bikram, 1).await?;

        let asked = phone.say(conversation_id, &said("are you there?")).await?;
        let answered = other.say(conversation_id, &said("yes")).await?;
        assert_eq!((asked.seq.0, answered.seq.0), (1, 2));
        for device in [&mut phone, &mut tablet, &mut other] {
            let messages = device.expect([1, 2]).await?;
            assert_eq!(messages[0].text, said("are you there?"));
            assert_eq!((messages[0].sender_id, messages[0].message_id), (asha.id, asked.message_id));
            assert_eq!((messages[1].sender_id, messages[1].sent_at), (bikram.id, answered.sent_at));
        }
        Ok(())
    })
}

#[test]
fn r4_1_both_encodings_say_the_same() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut json = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        let mut packed = fleet.ready_socket(&bikram, 0, Encoding::MessagePack).await?;
        let text = said("नमस्ते 👋 \"quoted\" \u{7f}\t\n");
        fleet.api(&asha, 1).say(conversation_id, &text).await?;
        let is_message = |frame: &serde_json::Value| frame["type"] == "message";
        let (mut one, mut other) = (json.frame_where(is_message).await?, packed.frame_where(is_message).await?);
        assert_eq!(one["message"]["text"], text);
        // Both sockets belong to one user, so the place in the inbox is the same too.
        assert_eq!(one.take(), other.take());
        Ok(())
    })
}

#[test]
fn r4_4_r11_3_what_was_sent_to_somebody_offline_waits_and_comes_once() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let options = ClientOptions { device_id: DeviceId::random(), ..fleet.options(&bikram, 0) };
        let mut first = chat_e2e::TestFleet::connect_with(options.clone()).await?;
        first.reloaded().await?;
        let position = first.client.close().await;
        ensure!(position.inbox.is_some(), "a client that was connected knows its place in the inbox");

        let api = fleet.api(&asha, 0);
        for number in 1..=20 {
            api.say(conversation_id, &said(number)).await?;
        }
        let back =
            ClientOptions { resume_from: Some(position), gateways: fleet.options(&bikram, 1).gateways, ..options };
        let mut again = chat_e2e::TestFleet::connect_with(back).await?;
        let ConnectionState::Connected { resumed, .. } = again.client.state() else {
            anyhow::bail!("the client is not connected: {:?}", again.client.state());
        };
        assert!(resumed, "20 messages fit in an inbox");
        let messages = again.expect(1..=20).await?;
        assert!((1..=20).zip(&messages).all(|(number, message)| message.text == said(number)));
        // What comes next is the next message, so nothing came twice.
        api.say(conversation_id, &said("last")).await?;
        again.expect([21]).await?;
        Ok(())
    })
}

#[test]
fn r4_4_who_has_never_been_connected_finds_everything_in_history() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for number in 1..=3 {
            fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
        }
        let options = ClientOptions { start: chat_client::Start::Beginning, ..fleet.options(&bikram, 1) };
        chat_e2e::TestFleet::connect_with(options).await?.expect(1..=3).await?;
        Ok(())
    })
}

#[test]
fn r1_1_r1_3_r1_4_every_id_is_a_uuid_v4_and_every_message_has_a_time() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let group_id = fleet.group(&asha, &[&bikram]).await?;
        let mut socket = fleet.socket(&asha, 0, Encoding::Json).await?;
        let ready = socket.hello(DeviceId::random(), None).await?;
        let message_id = MessageId::random();
        let accepted = socket.send(conversation_id, message_id, &said("hello")).await?;
        let epoch = ready.epoch.map(chat_shared::ids::Epoch::as_uuid).unwrap_or_default();
        for id in [conversation_id.as_uuid(), group_id.as_uuid(), ready.session_id.as_uuid(), epoch] {
            assert_eq!(id.get_version(), Some(Version::Random));
        }
        assert_eq!(accepted["message_id"], message_id.as_uuid().to_string());
        let page = fleet.api(&bikram, 1).history(conversation_id, "").await?;
        assert_eq!(page.messages[0].sent_at.0, accepted["sent_at"].as_i64().unwrap_or_default());

        // An id of another version is refused, wherever it stands.
        let wrong = Uuid::from_bytes([0x11; 16]);
        let command = serde_json::json!({
            "type": "send_message", "conversation_id": conversation_id, "message_id": wrong, "text": said("x"),
        });
        assert_eq!(socket.ask(command).await?["code"], "invalid");
        let body = serde_json::json!({ "message_id": wrong, "text": said("x") });
        let path = format!("conversations/{}/messages", conversation_id.as_uuid());
        assert_eq!(fleet.api(&asha, 0).post(&path, &body).await?.code(), "400 invalid");
        let body = serde_json::json!({ "kind": "direct", "user_id": wrong });
        assert_eq!(fleet.api(&asha, 0).post("conversations", &body).await?.code(), "400 invalid");
        Ok(())
    })
}

#[test]
fn r4_2_the_same_device_connecting_again_ends_its_older_connection_on_any_gateway() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for (first, second) in [(0, 0), (0, 1), (1, 0)] {
            let person = fleet.person()?;
            let device_id = DeviceId::random();
            let mut older = fleet.socket(&person, first, Encoding::Json).await?;
            older.hello(device_id, None).await?;
            let mut another = fleet.ready_socket(&person, first, Encoding::Json).await?;
            let mut newer = fleet.socket(&person, second, Encoding::MessagePack).await?;
            newer.hello(device_id, None).await?;
            assert_eq!(older.close_code().await?, (4505, "replaced".to_owned()), "from {first} to {second}");
            let heartbeat = serde_json::json!({ "type": "heartbeat" });
            assert_eq!(another.ask(heartbeat.clone()).await?["type"], "done", "another device stays");
            assert_eq!(newer.ask(heartbeat).await?["type"], "done");
        }
        Ok(())
    })
}

#[test]
fn r4_1_live_pushes_leave_nothing_for_a_client_to_fill_in() -> Result<()> {
    const MESSAGES: u64 = 120;
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut socket = fleet.socket(&bikram, 1, Encoding::MessagePack).await?;
        let ready = socket.hello(DeviceId::random(), None).await?;
        for number in 1..=MESSAGES {
            fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
        }
        // The news of the conversation itself may come before them.
        let mut frame = socket.frame_where(|frame| frame["type"] == "message").await?;
        let first = frame["cursor"].as_u64().unwrap_or_default();
        ensure!((1..=2).contains(&(first - ready.cursor.0)), "the first message is at {first}");
        for number in 1..=MESSAGES {
            assert_eq!(
                (frame["message"]["seq"].as_u64(), frame["cursor"].as_u64()),
                (Some(number), Some(first + number - 1))
            );
            if number < MESSAGES {
                frame = socket.frame().await?;
            }
        }
        Ok(())
    })
}
