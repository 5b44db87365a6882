//! Promise 8, in time: who is no longer in a group is out of it at once, on every gateway.

use anyhow::Result;
use chat_e2e::{Person, TestFleet, on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, MessageId},
    wire::Encoding,
};
use serde_json::json;

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
