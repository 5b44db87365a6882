//! Promise 5: history never lags behind `accepted`. Promise 10: without Postgres live chat goes on.

use anyhow::{Context, Result};
use chat_e2e::{Person, Setup, TestFleet, database, eventually, on_own_fleet, said};
use chat_shared::{
    ids::{ConversationId, DeviceId},
    log::{self, stream_name},
    position::Cursor,
    wire::{Encoding, Resume},
};
use serde_json::json;

/// Both gateways' newest page ends with message `last`, and goes back to the first.
async fn assert_complete(fleet: &TestFleet, reader: &Person, conversation_id: ConversationId, last: u64) -> Result<()> {
    for gateway in [0, 1] {
        let page = fleet.api(reader, gateway).history(conversation_id, "limit=100").await?;
        let numbers: Vec<u64> = page.messages.iter().map(|message| message.seq.0).collect();
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "at gateway {gateway}");
        assert_eq!(page.last_seq.0, last, "at gateway {gateway}");
    }
    Ok(())
}

/// Waits until the log has given everything it holds to the persister.
async fn persister_has_all(fleet: &TestFleet) -> Result<()> {
    let context = async_nats::jetstream::new(log::connect(&fleet.urls().nats, "test", |_| {}).await?);
    let stream = context.get_stream(stream_name(fleet.namespace())).await?;
    eventually("delivery of the log to the persister", || async {
        let delivered = stream.consumer_info("persister").await?.delivered.stream_sequence;
        let last = stream.get_info().await?.state.last_sequence;
        Ok((delivered == last).then_some(()))
    })
    .await
}

#[test]
fn promise_5_history_has_what_was_just_accepted_while_the_persister_is_stopped() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let api = fleet.api(&asha, 0);
        for number in 1..=5 {
            api.say(conversation_id, &said(number)).await?;
        }
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 5).await?;
        fleet.persister().pause()?;
        for number in 6..=15 {
            let accepted = api.say(conversation_id, &said(number)).await?;
            assert_complete(fleet, &bikram, conversation_id, accepted.seq.0).await?;
        }
        for (query, expected) in [("before=8&limit=4", 4..=7), ("after=3&limit=4", 4..=7), ("after=9", 10..=15)] {
            let page = fleet.api(&bikram, 1).history(conversation_id, query).await?;
            assert!(page.messages.iter().map(|message| message.seq.0).eq(expected), "{query}");
        }
        fleet.persister().resume()?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 15).await
    })
}

#[test]
fn promise_10_r11_3_without_postgres_live_chat_and_recent_history_go_on() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram, chandra] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (mut one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        one.say(conversation_id, &said("all is well")).await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 1).await?;
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = socket.hello(DeviceId::random(), None).await?;
        let resume = Resume { epoch: ready.epoch.context("there is an inbox")?, cursor: Cursor(ready.cursor.0) };
        assert_eq!(socket.ask(json!({ "type": "confirm", "cursor": resume.cursor })).await?["type"], "done");
        drop(socket);

        servers.postgres.stop().await?;
        for number in 2..=11 {
            let sender = if number % 2 == 0 { &one } else { &other };
            sender.say(conversation_id, &said(number)).await?;
        }
        one.expect(1..=11).await?;
        other.expect(1..=11).await?;
        assert_complete(fleet, &bikram, conversation_id, 11).await?;

        // Who comes back now gets what they missed, without any database.
        let mut socket = fleet.socket(&bikram, 1, Encoding::Json).await?;
        assert!(socket.hello(DeviceId::random(), Some(resume)).await?.resumed);
        let missed = socket.frame_where(|frame| frame["message"]["seq"] == 11).await?;
        assert_eq!(missed["message"]["text"], said(11));

        // What needs the database says so, and when to come back.
        let api = fleet.api(&asha, 0);
        let body = json!({ "kind": "direct", "user_id": chandra.id });
        for answer in [api.post("conversations", &body).await?, api.get("conversations").await?] {
            assert_eq!(answer.code(), "503 unavailable");
            assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
        }

        servers.postgres.start().await?;
        let made = eventually("a conversation once Postgres is back", || async {
            let answer = api.post("conversations", &body).await?;
            Ok((answer.status == 201).then_some(answer))
        });
        made.await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 11).await
    })
}

#[test]
fn promise_1_promise_5_promise_10_a_frozen_postgres_stops_neither_chat_nor_recent_history_and_loses_nothing()
-> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        servers.postgres.pause()?;
        for number in 1..=10 {
            one.say(conversation_id, &said(number)).await?;
        }
        other.expect(1..=10).await?;
        assert_complete(fleet, &asha, conversation_id, 10).await?;
        // Promise 1: the persister dies with a batch in hand that it could not store, and gets it again.
        persister_has_all(fleet).await?;
        fleet.persister().kill().await?;
        servers.postgres.resume()?;
        fleet.persister().start_ready().await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 10).await
    })
}
