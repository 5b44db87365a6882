//! Promise 10: without NATS nothing is accepted and nothing accepted is lost.

use anyhow::{Context, Result};
use chat_e2e::{Setup, database, on_own_fleet, said};
use chat_shared::{
    ids::MessageId,
    wire::{Accepted, Encoding},
};
use serde_json::json;

#[test]
fn promise_10_nats_killed_and_started_again_loses_nothing_that_was_accepted() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        for number in 1..=10 {
            one.say(conversation_id, &said(number)).await?;
        }
        other.expect(1..=10).await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 10).await?;

        servers.nats.kill().await?;
        // A send that can't be made durable is answered with an error, and with when to repeat it.
        let message_id = MessageId::random();
        let mut socket = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let reply = socket.send(conversation_id, message_id, &said(11)).await?;
        assert_eq!((&reply["type"], &reply["code"]), (&json!("rejected"), &json!("unavailable")));
        assert!(reply["retry_after_ms"].is_u64(), "{reply}");
        let answer = fleet.api(&asha, 1).send(conversation_id, message_id, &said(11)).await?;
        assert_eq!(answer.code(), "503 unavailable");
        assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
        // Reading goes on.
        let page = fleet.api(&bikram, 1).history(conversation_id, "limit=100").await?;
        assert!(page.messages.iter().map(|message| message.seq.0).eq(1..=10));
        assert_eq!(fleet.api(&bikram, 1).get("conversations").await?.status, 200);

        // What is sent meanwhile is repeated by the client until it is accepted.
        let sent = one.client.send(conversation_id, said("patience"));
        let (sent, started) = tokio::join!(sent, servers.nats.start());
        started?;
        // The one that was refused may have landed after all, since its outcome was unknown; the repeat tells, and it is
        // one message in any case.
        let repeated: Accepted = fleet.api(&asha, 0).send(conversation_id, message_id, &said(11)).await?.ok()?;
        let mut numbers = [sent?.seq.0, repeated.seq.0];
        numbers.sort_unstable();
        assert_eq!(numbers, [11, 12]);
        other.expect(11..=12).await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 12).await
    })
}
