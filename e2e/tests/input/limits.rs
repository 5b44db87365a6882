//! Bounds of one user or one connection: whoever meets them is told so, and nothing is lost.

use anyhow::{Context, Result};
use chat_e2e::{Incoming, eventually, http, on_shared_fleet, said, socket::send_message};
use chat_shared::{
    ids::{ConversationId, DeviceId, MessageId},
    limits::{COMMANDS_BURST_MAX, CONNECTIONS_PER_USER_MAX, FRAMES_BURST_MAX},
    position::{Cursor, Seq},
    wire::{Encoding, Resume},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::witness::Witness;

#[test]
fn a_slow_reader_is_closed_and_misses_nothing() -> Result<()> {
    // Each of these characters takes six bytes in JSON, so this many fill every buffer on the way.
    const MESSAGES: u64 = 180;
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut witness = Witness::of(fleet).await?;
        let device_id = DeviceId::random();
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = socket.hello(device_id, None).await?;
        let epoch = ready.epoch.context("there is an inbox")?;
        let text = said("\u{1}".repeat(8000));
        for _ in 0..MESSAGES {
            fleet.api(&asha, 1).say(conversation_id, &text).await?;
        }
        eventually("the end of a slow reader", || async {
            let metrics = fleet.gateway(0).metrics().await?;
            let is_counted = |line: &str| line.contains("slow_consumer") && !line.ends_with(" 0");
            Ok(metrics.lines().any(is_counted).then_some(()))
        })
        .await?;
        witness.is_undisturbed(fleet).await?;

        let (mut last_seq, mut cursor) = (0, ready.cursor.0);
        loop {
            match socket.incoming().await? {
                Incoming::Frame(frame) if frame["type"] == "message" => {
                    last_seq += 1;
                    assert_eq!(frame["message"]["seq"], last_seq, "what comes before the end is without a hole");
                    cursor = frame["cursor"].as_u64().context("it has its place")?;
                }
                Incoming::Frame(_) | Incoming::Pong(_) => {}
                Incoming::Close(code, reason) => assert_eq!((code, reason.as_str()), (4001, "slow_consumer")),
                // Who doesn't read for long doesn't get the close frame either.
                Incoming::Gone => break,
            }
        }
        assert!(last_seq < MESSAGES, "the reader was slow");
        let mut socket = fleet.socket(&bikram, 1, Encoding::MessagePack).await?;
        let ready = socket.hello(device_id, Some(Resume { epoch, cursor: Cursor(cursor) })).await?;
        // An inbox holds no more than 256 KiB: whoever is further behind is told to reload.
        let page_after =
            async |seq: u64| fleet.api(&bikram, 1).history(conversation_id, &format!("after={seq}&limit=100")).await;
        while last_seq < MESSAGES {
            if ready.resumed {
                let frame = socket.frame_where(|frame| frame["type"] == "message").await?;
                last_seq += 1;
                assert_eq!((&frame["message"]["seq"], &frame["message"]["text"]), (&json!(last_seq), &json!(text)));
                continue;
            }
            let page = page_after(last_seq).await?;
            assert!(!page.messages.is_empty(), "history has what the inbox has not");
            for message in page.messages {
                last_seq += 1;
                assert_eq!((message.seq, message.text), (Seq(last_seq), text.clone()));
            }
        }
        Ok(())
    })
}

#[test]
fn a_user_has_so_many_connections_to_a_gateway_and_one_more_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let mut witness = Witness::of(fleet).await?;
        let authorization = format!("Bearer {}", person.token);
        let headers = [("Sec-WebSocket-Protocol", "chat.v1.json"), ("Authorization", authorization.as_str())];
        let mut sockets = Vec::new();
        for number in 0..CONNECTIONS_PER_USER_MAX {
            // Those that have not said hello count too.
            let mut socket = fleet.socket(&person, 0, Encoding::Json).await?;
            if number % 2 == 0 {
                socket.hello(DeviceId::random(), None).await?;
            }
            sockets.push(socket);
        }
        let refused = http::shake_hands(&fleet.gateway(0).address(), &headers).await?;
        assert_eq!(refused.code(), "429 rate_limited");
        assert!(refused.header("retry-after").context("it says when to come back")?.parse::<u64>()? >= 1);
        fleet.ready_socket(&person, 1, Encoding::Json).await?;
        witness.is_undisturbed(fleet).await?;
        sockets.pop();
        eventually("a free place", || async {
            let status = http::shake_hands(&fleet.gateway(0).address(), &headers).await?.status;
            Ok((status == 101).then_some(()))
        })
        .await
    })
}

#[test]
fn who_asks_too_much_is_slowed_down_and_nobody_else() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut witness = Witness::of(fleet).await?;
        let mut socket = fleet.ready_socket(&asha, 0, Encoding::MessagePack).await?;
        // Commands that are refused without a read, so that the bucket empties faster than it fills.
        let count = u64::from(COMMANDS_BURST_MAX) * 4;
        for reference in 1..=count {
            let mut command = send_message(ConversationId::random(), MessageId::random(), "");
            command["ref"] = json!(reference);
            socket.command(&command).await?;
        }
        let mut limited = 0;
        for reference in 1..=count {
            let reply = socket.frame_where(|frame| frame["ref"] == reference).await?;
            if reply["code"] == "rate_limited" {
                limited += 1;
                assert!(reply["retry_after_ms"].is_u64(), "{reply}");
            } else {
                assert_eq!(reply["code"], "invalid");
            }
        }
        assert!(limited > 0, "{count} commands at once are too many");
        witness.is_undisturbed(fleet).await?;
        assert_eq!(socket.ask(json!({ "type": "heartbeat" })).await?["type"], "done", "heartbeats are not counted");
        fleet.api(&bikram, 0).say(conversation_id, &said("undisturbed")).await?;
        // By and by they are let through again.
        let mut tries = 0;
        loop {
            let reply = socket.send(conversation_id, MessageId::random(), &said("patience")).await?;
            if reply["type"] == "accepted" {
                return Ok(());
            }
            assert_eq!(reply["code"], "rate_limited");
            tries += 1;
            assert!(tries < 100_000, "nothing is let through any more");
        }
    })
}

#[test]
fn who_sends_more_frames_than_anybody_needs_is_closed_and_may_come_back() -> Result<()> {
    const PING: u8 = 0x89;
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let mut witness = Witness::of(fleet).await?;
        let heartbeat = serde_json::to_vec(&json!({ "type": "heartbeat" }))?;
        let confirm = serde_json::to_vec(&json!({ "type": "confirm", "cursor": 0 }))?;
        for (first_byte, payload) in [(PING, &b"flood"[..]), (0x81, &heartbeat), (0x81, &confirm)] {
            let mut socket = fleet.ready_socket(&person, 0, Encoding::Json).await?;
            // Twice as many, since some are forgiven while the others are on their way.
            for _ in 0..FRAMES_BURST_MAX * 2 {
                if socket.raw_frame(first_byte, payload).await.is_err() {
                    break;
                }
            }
            assert_eq!(socket.close_code().await?, (4004, "too_many_frames".to_owned()));
        }
        witness.is_undisturbed(fleet).await?;
        fleet.ready_socket(&person, 0, Encoding::Json).await?;
        Ok(())
    })
}

#[test]
fn rest_requests_are_counted_like_commands() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let mut requests = JoinSet::new();
        for _ in 0..16 {
            let api = fleet.api(&person, 0);
            requests.spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..COMMANDS_BURST_MAX / 4 {
                    answers.push(api.get("conversations/x").await?);
                }
                anyhow::Ok(answers)
            });
        }
        let answers: Vec<_> = requests.join_all().await.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let (limited, counted): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 429);
        assert!(counted.iter().all(|answer| answer.code() == "400 invalid"));
        assert!(counted.len() >= usize::try_from(COMMANDS_BURST_MAX)?, "a burst is let through");
        assert!(!limited.is_empty(), "{} requests at once are too many", counted.len());
        for answer in limited {
            assert_eq!(answer.code(), "429 rate_limited");
            assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
        }
        Ok(())
    })
}
