//! R6.4: two of whom one has blocked the other have nothing to do with each other, at every gateway and at once.

use anyhow::{Result, ensure};
use chat_e2e::{Person, Socket, TestFleet, on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    wire::{BlockList, ConversationPage, Encoding, Presence},
};
use serde_json::json;

fn path(user_id: UserId) -> String {
    format!("blocks/{}", user_id.as_uuid())
}

/// Both try to write at both gateways; what they are answered.
async fn answers(fleet: &TestFleet, pair: [&Person; 2], conversation_id: ConversationId) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for (person, gateway) in [(0, 1), (1, 1), (0, 0), (1, 0)] {
        let api = fleet.api(pair[person], gateway);
        answers.push(api.send(conversation_id, MessageId::random(), &said("hello?")).await?.code());
    }
    Ok(answers)
}

async fn shown_as_blocked(fleet: &TestFleet, person: &Person) -> Result<Vec<ConversationId>> {
    let mut shown = Vec::new();
    for gateway in [0, 1] {
        let page: ConversationPage = fleet.api(person, gateway).get("conversations").await?.ok()?;
        let blocked = page.conversations.into_iter().filter(|conversation| conversation.is_blocked);
        shown.extend(blocked.map(|conversation| conversation.conversation_id));
    }
    Ok(shown)
}

/// The next that a watcher is told of one other.
async fn next(watcher: &mut Socket) -> Result<Presence> {
    let users = watcher.presence().await?;
    ensure!(users.len() == 1, "{users:?}");
    Ok(users[0])
}

#[test]
fn r6_4_a_block_holds_at_every_gateway_once_it_is_answered_and_groups_go_on() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let (direct, group) = (fleet.direct(&asha, &bikram).await?, fleet.group(&asha, &[&bikram]).await?);
        let mut theirs = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
        assert_eq!(answers(fleet, [&asha, &bikram], direct).await?, ["201"; 4], "both gateways know both by heart");
        for _ in 0..2 {
            assert_eq!(fleet.api(&asha, 0).put(&path(bikram.id), &json!({})).await?.status, 204);
            assert_eq!(answers(fleet, [&asha, &bikram], direct).await?, ["403 forbidden"; 4]);
        }
        let refused = theirs.send(direct, MessageId::random(), &said("hello?")).await?;
        assert_eq!(refused["code"], "forbidden");
        assert_eq!(answers(fleet, [&asha, &bikram], group).await?, ["201"; 4]);
        assert_eq!(shown_as_blocked(fleet, &asha).await?, [direct; 2]);
        assert_eq!(shown_as_blocked(fleet, &bikram).await?, []);
        let list: BlockList = fleet.api(&asha, 1).get("blocks").await?.ok()?;
        assert_eq!(list.blocks.iter().map(|block| block.user_id).collect::<Vec<_>>(), [bikram.id]);

        assert_eq!(fleet.api(&asha, 1).delete(&path(bikram.id)).await?.status, 204);
        assert_eq!(answers(fleet, [&asha, &bikram], direct).await?, ["201"; 4]);
        // Whatever the other one was pushed meanwhile, nothing of it was about the block.
        let fence = fleet.api(&asha, 0).say(direct, &said("that is all")).await?;
        loop {
            let frame = theirs.frame().await?;
            if frame["message"]["message_id"] == json!(fence.message_id) {
                return Ok(());
            }
            let is_new = frame["conversation"]["version"] == 1;
            ensure!(is_new || frame["type"] == "message" || frame["type"] == "receipt", "{frame}");
        }
    })
}

#[test]
fn r6_4_no_direct_conversation_is_made_against_a_block() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        assert_eq!(fleet.api(&asha, 0).put(&path(bikram.id), &json!({})).await?.status, 204);
        for (one, other) in [(&asha, &bikram), (&bikram, &asha)] {
            for gateway in [0, 1] {
                let body = json!({ "kind": "direct", "user_id": other.id });
                let answer = fleet.api(one, gateway).post("conversations", &body).await?;
                assert_eq!(answer.code(), "403 forbidden");
            }
        }
        assert_eq!(fleet.api(&asha, 0).delete(&path(bikram.id)).await?.status, 204);
        fleet.direct(&bikram, &asha).await.map(drop)
    })
}

#[test]
fn r6_4_two_between_whom_there_is_a_block_are_not_there_for_each_other() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        fleet.group(&asha, &[&bikram, &chandra]).await?;
        let (mut one, mut other) = (
            fleet.ready_socket(&asha, 0, Encoding::Json).await?,
            fleet.ready_socket(&bikram, 1, Encoding::Json).await?,
        );
        ensure!(one.watch(&[bikram.id, chandra.id]).await?[0].is_online);
        ensure!(other.watch(&[asha.id]).await?[0].is_online);
        assert_eq!(fleet.api(&bikram, 1).put(&path(asha.id), &json!({})).await?.status, 204);
        let away = |person: &Person| Presence { user_id: person.id, is_online: false, last_seen_at: None };
        assert_eq!(next(&mut one).await?, away(&bikram));
        assert_eq!(next(&mut other).await?, away(&asha));
        other.goodbye().await?;
        let mut back = fleet.ready_socket(&bikram, 0, Encoding::MessagePack).await?;
        assert_eq!(back.watch(&[asha.id]).await?, [away(&asha)]);
        let _there = fleet.ready_socket(&chandra, 1, Encoding::Json).await?;
        assert_eq!(next(&mut one).await?.user_id, chandra.id, "nothing was said of the other one");

        assert_eq!(fleet.api(&bikram, 0).delete(&path(asha.id)).await?.status, 204);
        let seen = [next(&mut one).await?, next(&mut back).await?];
        assert_eq!(seen.map(|presence| (presence.user_id, presence.is_online)), [(bikram.id, true), (asha.id, true)]);
        Ok(())
    })
}
