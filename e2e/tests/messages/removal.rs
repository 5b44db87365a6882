//! Promise 8, in time: who is no longer in a group is out of it at once, on every gateway.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use chat_e2e::{
    Api, Incoming, Person, Setup, Socket, TestFleet, eventually, on_own_fleet, on_shared_fleet, realtime::mark_read,
    said, socket::opcode,
};
use chat_shared::{
    ids::{ConversationId, DeviceId, MessageId},
    wire::{Encoding, Resume},
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Writes as this person at both gateways, so that both know the group by heart.
async fn warm_up(fleet: &TestFleet, person: &Person, group: ConversationId) -> Result<()> {
    for gateway in [0, 1] {
        fleet.api(person, gateway).say(group, &said("still here")).await?;
        fleet.api(person, gateway).history(group, "").await?;
    }
    Ok(())
}

/// Tries everything as this person, at the gateway that did not remove them first.
async fn assert_out(fleet: &TestFleet, person: &Person, group: ConversationId) -> Result<()> {
    for gateway in [1, 0] {
        let api = fleet.api(person, gateway);
        let answer = api.send(group, MessageId::random(), &said("let me in")).await?;
        assert_eq!(answer.code(), "404 not_found");
        for path in ["", "/messages", "/messages?after=0"] {
            let answer = api.get(&format!("conversations/{}{path}", group.as_uuid())).await?;
            assert_eq!(answer.code(), "404 not_found", "{path}");
        }
        assert_eq!(api.get("conversations").await?.body["conversations"], json!([]));
    }
    Ok(())
}

#[test]
fn promise_8_who_was_removed_is_out_at_once_at_every_gateway() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, removed, stays] = fleet.people()?;
        let group = fleet.group(&owner, &[&removed, &stays]).await?;
        warm_up(fleet, &removed, group).await?;
        let mut socket = fleet.ready_socket(&removed, 1, Encoding::Json).await?;
        assert_eq!(socket.send(group, MessageId::random(), &said("hello")).await?["type"], "accepted");

        let path = format!("conversations/{}/participants/{}", group.as_uuid(), removed.id.as_uuid());
        assert_eq!(fleet.api(&owner, 0).delete(&path).await?.status, 204);
        assert_eq!(socket.send(group, MessageId::random(), &said("hello?")).await?["code"], "not_found");
        assert_out(fleet, &removed, group).await?;
        assert_eq!(fleet.api(&owner, 0).delete(&path).await?.code(), "404 not_found", "they are gone already");
        Ok(())
    })
}

#[test]
fn promise_8_who_left_is_out_at_once_at_every_gateway() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, leaver] = fleet.people()?;
        let group = fleet.group(&owner, &[&leaver]).await?;
        warm_up(fleet, &leaver, group).await?;
        let path = format!("conversations/{}/participants/{}", group.as_uuid(), leaver.id.as_uuid());
        assert_eq!(fleet.api(&leaver, 0).delete(&path).await?.status, 204);
        assert_out(fleet, &leaver, group).await
    })
}

#[test]
fn promise_8_who_was_removed_is_pushed_nothing_more_and_who_comes_back_is() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, removed, stays] = fleet.people()?;
        let group = fleet.group(&owner, &[&removed, &stays]).await?;
        let direct = fleet.direct(&owner, &removed).await?;
        let (mut theirs, mut staying) = (fleet.connect(&removed, 1).await?, fleet.connect(&stays, 1).await?);
        let api = fleet.api(&owner, 0);
        api.say(group, &said("all together")).await?;
        theirs.expect([1]).await?;
        let path = format!("conversations/{}/participants/{}", group.as_uuid(), removed.id.as_uuid());
        assert_eq!(api.delete(&path).await?.status, 204);
        assert_eq!(theirs.change().await?.removed, [removed.id], "they are told");
        api.say(group, &said("among us")).await?;
        staying.expect([1, 2]).await?;
        api.say(direct, &said("sorry")).await?;
        let next = theirs.message().await?;
        assert_eq!((next.conversation_id, next.text), (direct, said("sorry")));

        let path = format!("conversations/{}/participants", group.as_uuid());
        assert_eq!(api.post(&path, &json!({ "user_ids": [removed.id] })).await?.status, 200);
        assert_eq!(theirs.change().await?.added, [removed.id]);
        api.say(group, &said("welcome back")).await?;
        loop {
            let message = theirs.message().await?;
            assert_eq!(message.conversation_id, group);
            if message.seq.0 == 3 {
                return Ok(());
            }
        }
    })
}

/// Writes until it is over; how many were accepted.
async fn flood(api: Api, group: ConversationId, is_over: &AtomicBool) -> Result<u64> {
    let mut accepted = 0;
    while !is_over.load(Ordering::Relaxed) {
        api.say(group, &said(accepted)).await?;
        accepted += 1;
    }
    Ok(accepted)
}

/// Everything that a device of the removed one is pushed, from the moment on that the removal was answered, until they have
/// been told of it and a message has come in another conversation, which may overtake. A pong tells what was written before
/// that moment apart.
async fn pushed_after(mut socket: Socket, mut removed: watch::Receiver<bool>, fence: MessageId) -> Result<Vec<Value>> {
    let (mut is_asked, mut is_after, mut pushed, mut cursor) = (false, false, Vec::new(), 0);
    let mut has_fence = false;
    while !has_fence || count(&pushed, "conversation") == 0 {
        // Cancel safe: what was received of a frame is kept.
        let incoming = tokio::select! {
            biased;
            changed = removed.changed(), if !is_asked => {
                changed?;
                socket.raw_frame(opcode::FIN | opcode::PING, b"now").await?;
                is_asked = true;
                continue;
            }
            incoming = socket.incoming() => incoming?,
        };
        match incoming {
            Incoming::Pong(_) => is_after = true,
            Incoming::Frame(frame) => {
                if let Some(next) = frame["cursor"].as_u64().filter(|_| frame["type"] != "heartbeat") {
                    ensure!(next == cursor + 1 || cursor == 0, "after {cursor} came {next}");
                    cursor = next;
                }
                if frame["message"]["message_id"] == json!(fence) {
                    has_fence = true;
                } else if is_after && frame["type"] != "heartbeat" {
                    pushed.push(frame);
                }
            }
            ended => anyhow::bail!("the gateway ended the connection: {ended:?}"),
        }
    }
    Ok(pushed)
}

fn count(frames: &[Value], name: &str) -> usize {
    frames.iter().filter(|frame| frame["type"] == name).count()
}

#[test]
fn r6_4_who_was_removed_gets_nothing_after_the_answer_while_others_flood_through_two_gateways() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [owner, removed, stays] = fleet.people()?;
        let group = fleet.group(&owner, &[&removed, &stays]).await?;
        let direct = fleet.direct(&owner, &removed).await?;
        let device_id = DeviceId::random();
        let mut sockets = Vec::new();
        for (gateway, encoding) in [(0, Encoding::Json), (1, Encoding::MessagePack), (1, Encoding::Json)] {
            let mut socket = fleet.ready_socket(&removed, gateway, encoding).await?;
            socket.watch(&[stays.id, owner.id]).await?;
            sockets.push(socket);
        }
        let mut staying = fleet.ready_socket(&stays, 1, Encoding::Json).await?;

        let (is_over, (answered, removal)) = (AtomicBool::new(false), watch::channel(false));
        let fence = MessageId::random();
        let devices = sockets.into_iter().map(|socket| pushed_after(socket, removal.clone(), fence));
        let devices = futures_util::future::try_join_all(devices);
        let story = async {
            let first = fleet.api(&owner, 0).say(group, &said("first")).await?;
            eventually("a message that was delivered", || async {
                let page = fleet.api(&removed, 0).history(group, "").await?;
                Ok((page.last_seq.0 > 5).then_some(()))
            })
            .await?;
            // A device that is there before, and comes back after it all.
            let mut away = fleet.socket(&removed, 0, Encoding::Json).await?;
            let position = away.hello(device_id, None).await?;
            away.goodbye().await?;
            // What is accepted from now on comes to the gateways after the removal.
            fleet.notifier().pause()?;
            staying.set_typing(group, true).await?;
            let reply = staying.ask(mark_read(group, first.message_id)).await?;
            ensure!(reply["type"] == "done");
            for number in 0..3 {
                fleet.api(&owner, 1).say(group, &said(number)).await?;
            }
            let path = format!("conversations/{}/participants/{}", group.as_uuid(), removed.id.as_uuid());
            assert_eq!(fleet.api(&owner, 0).delete(&path).await?.status, 204);
            answered.send(true)?;
            for number in 0..3 {
                fleet.api(&stays, 0).say(group, &said(number)).await?;
            }
            staying.set_typing(group, false).await?;
            staying.goodbye().await?;
            is_over.store(true, Ordering::Relaxed);
            fleet.notifier().resume()?;
            fleet.api(&owner, 0).send(direct, fence, &said("nothing else")).await?.ok::<Value>()?;
            Ok(position)
        };
        let floods =
            [(&owner, 0), (&owner, 1), (&stays, 1)].map(|(person, at)| flood(fleet.api(person, at), group, &is_over));
        let (pushed, floods, position) = tokio::try_join!(devices, futures_util::future::try_join_all(floods), story)?;
        ensure!(floods.iter().all(|accepted| *accepted > 0), "everybody wrote: {floods:?}");
        for frames in &pushed {
            assert_eq!(count(frames, "conversation"), 1, "they are told of it");
            ensure!(count(frames, "skipped") >= 3, "something was on its way: {frames:?}");
            assert_eq!(count(frames, "conversation") + count(frames, "skipped"), frames.len(), "{frames:?}");
        }

        let epoch = position.epoch.expect("Redis is there");
        for gateway in [1, 0] {
            let mut back = fleet.socket(&removed, gateway, Encoding::Json).await?;
            back.command(&json!({ "type": "hello", "device_id": device_id, "resume": Resume { epoch, cursor: position.cursor } })).await?;
            loop {
                let frame = back.frame().await?;
                ensure!(frame["resumed"] != false, "the inbox has it all");
                ensure!(frame["message"]["conversation_id"] != json!(group), "{frame}");
                if frame["message"]["message_id"] == json!(fence) {
                    break;
                }
            }
        }
        Ok(())
    })
}
