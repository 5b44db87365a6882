//! Promise 1: accepted means kept, whatever process dies next.

use anyhow::{Context, Result};
use chat_e2e::{Incoming, Setup, database, eventually, on_own_fleet, said};
use chat_shared::{ids::MessageId, wire::Encoding};
use serde_json::json;
use tokio::task::JoinSet;

#[test]
fn promise_1_what_was_accepted_survives_kill_9_of_persister_and_gateway() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (sender, mut reader) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        for number in 1..=20 {
            sender.say(conversation_id, &said(number)).await?;
        }
        fleet.persister().kill().await?;
        for number in 21..=40 {
            sender.say(conversation_id, &said(number)).await?;
        }
        // While some are on their way: the client repeats them elsewhere, and none becomes two.
        let mut sends = JoinSet::new();
        for number in 41..=60 {
            let client = sender.client.clone();
            sends.spawn(async move { client.send(conversation_id, said(number)).await });
        }
        let first = sends.join_next().await.context("twenty are on their way")??;
        fleet.gateway(0).kill().await?;
        let mut numbers = vec![first?.seq.0];
        for accepted in sends.join_all().await {
            numbers.push(accepted?.seq.0);
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(41..=60));
        sender.say(conversation_id, &said("after it all")).await?;

        fleet.persister().start_ready().await?;
        fleet.gateway(0).start_ready().await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 61).await?;
        reader.expect(1..=61).await?;
        assert!(reader.left_over().is_empty());
        Ok(())
    })
}

#[test]
fn promise_1_a_gateway_killed_right_after_accepted_takes_nothing_with_it() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for round in 1..=3 {
            let mut socket = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
            let reply = socket.send(conversation_id, MessageId::random(), &said(round)).await?;
            fleet.gateway(0).kill().await?;
            assert_eq!((&reply["type"], reply["seq"].as_u64()), (&"accepted".into(), Some(round)));
            let page = fleet.api(&bikram, 1).history(conversation_id, "limit=1").await?;
            assert_eq!((page.last_seq.0, &page.messages[0].text), (round, &said(round)));
            fleet.gateway(0).start_ready().await?;
        }
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 3).await
    })
}

#[test]
fn r11_3_what_was_sent_while_the_notifier_was_dead_is_delivered_when_it_is_back() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (sender, mut reader) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        sender.say(conversation_id, &said("before")).await?;
        reader.expect([1]).await?;
        for round in 0..2 {
            fleet.notifier().kill().await?;
            for number in 0..10 {
                sender.say(conversation_id, &said(number)).await?;
            }
            fleet.notifier().start_ready().await?;
            reader.expect(round * 10 + 2..=round * 10 + 11).await?;
        }
        assert!(reader.left_over().is_empty());
        Ok(())
    })
}

#[test]
fn r4_3_a_gateway_that_stops_sends_its_clients_away_and_they_lose_nothing() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (sender, mut reader) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 0).await?);
        reader.reloaded().await?;
        let mut json = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let mut packed = fleet.ready_socket(&bikram, 0, Encoding::MessagePack).await?;
        let mut undecided = fleet.socket(&bikram, 0, Encoding::Json).await?;
        sender.say(conversation_id, &said("before")).await?;

        let client = sender.client.clone();
        let going_on = async move {
            for number in 2..=30 {
                client.send(conversation_id, said(number)).await?;
            }
            anyhow::Ok(())
        };
        let (stopped, sent) = tokio::join!(fleet.gateway(0).stop(), going_on);
        stopped?;
        sent?;
        let status = fleet.gateway(0).process().exited().await?;
        assert!(status.success(), "the gateway ended with {status}");
        for socket in [&mut json, &mut packed] {
            let farewell = socket.frame_where(|frame| frame["type"] == "going_away").await?;
            assert!(farewell["reconnect_after_ms"].is_u64(), "{farewell}");
            assert_eq!(socket.incoming().await?, Incoming::Close(4000, "going_away".into()));
        }
        assert_eq!(undecided.close_code().await?, (4000, "going_away".to_owned()), "before its hello");
        assert!(reader.connected().await?, "it resumes elsewhere");
        fleet.gateway(0).start_ready().await
    })
}

#[test]
fn r4_3_a_gateway_works_on_between_sigterm_and_the_end_of_its_port() -> Result<()> {
    on_own_fleet(Setup::default().with_env("CHAT_SHUTDOWN_PAUSE_MS", "15000"), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut connected = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        let gateway = fleet.gateway(0);
        let pausing = async {
            eventually("the end of readiness", || async { Ok((!gateway.is_ready().await).then_some(())) }).await?;
            // A new connection, and one that was there.
            fleet.api(&asha, 0).say(conversation_id, &said("during the pause")).await?;
            connected.frame_where(|frame| frame["type"] == "message").await?;
            // The second signal ends the pause.
            gateway.stop().await
        };
        let (stopped, paused) = tokio::join!(gateway.stop(), pausing);
        stopped?;
        paused?;
        assert!(gateway.process().exited().await?.success());
        gateway.start_ready().await
    })
}

#[test]
fn r4_3_every_process_killed_in_turn_while_two_people_chat() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (mut one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        let mut last = 0;
        for service in fleet.services() {
            service.kill().await?;
            one.say(conversation_id, &said("who is there?")).await?;
            other.say(conversation_id, &said("somebody")).await?;
            service.start_ready().await?;
            one.expect(last + 1..=last + 2).await?;
            other.expect(last + 1..=last + 2).await?;
            last += 2;
        }
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, last).await
    })
}

#[test]
fn promise_10_a_change_survives_kill_9_before_its_append() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram, chitra] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        let pending = || database::count(&fleet.urls().postgres, "select count(*) from outbox");
        assert_eq!(pending().await?, 0);

        // The commit needs PostgreSQL alone. Nothing of the append leaves the gateway while NATS is gone.
        servers.nats.kill().await?;
        let (api, path) = (fleet.api(&asha, 0), format!("conversations/{}/participants", group.as_uuid()));
        let adding = JoinSet::from_iter([async move { api.post(&path, &json!({ "user_ids": [chitra.id] })).await }]);
        eventually("the commit", || async { Ok((pending().await? == 1).then_some(())) }).await?;
        fleet.gateway(0).kill().await?;
        drop(adding);
        servers.nats.start().await?;

        // Only the sweeper of the other gateway is left to append it.
        eventually("the change in the log", || async {
            let answer = fleet.api(&chitra, 1).send(group, MessageId::random(), &said(1)).await?;
            Ok((answer.status == 201 || answer.status == 200).then_some(()))
        })
        .await?;
        assert_eq!(pending().await?, 0);
        fleet.gateway(0).start_ready().await?;
        Ok(())
    })
}
