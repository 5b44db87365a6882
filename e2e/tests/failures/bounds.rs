//! Bounds that concern everybody at once, so each test has a fleet with small ones.

use anyhow::{Context, Result};
use chat_e2e::{Setup, database, http, on_own_fleet, said};
use chat_shared::{ids::MessageId, wire::Encoding};
use serde_json::json;

/// Attempts after which at least one must have met a bound of one a second.
const ATTEMPTS_MAX: usize = 50;

#[test]
fn a_storm_of_handshakes_is_let_in_at_the_rate_that_was_set() -> Result<()> {
    let setup = Setup::default().with_env("CHAT_HANDSHAKES_PER_SECOND_MAX", "1");
    on_own_fleet(setup, async |fleet| {
        let person = fleet.person()?;
        let authorization = format!("Bearer {}", person.token);
        let headers = [("Sec-WebSocket-Protocol", "chat.v1.json"), ("Authorization", authorization.as_str())];
        let mut admitted = Vec::new();
        let mut refused = None;
        for _ in 0..ATTEMPTS_MAX {
            let handshake = http::shake_hands(&fleet.gateway(0).address(), &headers).await?;
            if handshake.status == 101 {
                admitted.push(handshake.into_socket(Encoding::Json)?);
                // More would meet the bound of a user's connections.
                admitted.truncate(4);
            } else {
                refused = Some(handshake);
                break;
            }
        }
        assert!(!admitted.is_empty(), "the first is let in");
        let refused = refused.context("no handshake was refused")?;
        assert_eq!(refused.code(), "503 unavailable");
        let seconds: u64 = refused.header("retry-after").context("it says when to come back")?.parse()?;
        assert!((1..=10).contains(&seconds), "{seconds}");
        assert!(refused.body["retry_after_ms"].is_u64());
        // A client heeds it and is let in.
        let mut online = fleet.connect(&person, 0).await?;
        online.reloaded().await
    })
}

#[test]
fn a_full_log_refuses_messages_and_loses_none_that_it_took() -> Result<()> {
    let setup = Setup::default().with_env("CHAT_LOG_BYTES_MAX", "131072");
    on_own_fleet(setup, async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut reader = fleet.connect(&bikram, 1).await?;
        let mut socket = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let text = said("x".repeat(4000));
        let mut accepted = 0;
        let refused = loop {
            let message_id = MessageId::random();
            let reply = socket.send(conversation_id, message_id, &text).await?;
            if reply["type"] != "accepted" {
                break (message_id, reply);
            }
            accepted += 1;
            assert_eq!(reply["seq"], json!(accepted));
            assert!(accepted < 40, "the log holds more than it may");
        };
        let (message_id, reply) = refused;
        assert_eq!((&reply["type"], &reply["code"]), (&json!("rejected"), &json!("unavailable")));
        assert!(reply["retry_after_ms"].is_u64(), "{reply}");
        assert!(accepted > 20, "the log was full after {accepted}");
        let answer = fleet.api(&asha, 1).send(conversation_id, message_id, &text).await?;
        assert_eq!(answer.code(), "503 unavailable");

        reader.expect(1..=accepted).await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, accepted).await?;
        let page = fleet.api(&bikram, 1).history(conversation_id, "limit=100").await?;
        assert_eq!((page.messages.len() as u64, page.last_seq.0), (accepted, accepted));
        Ok(())
    })
}
