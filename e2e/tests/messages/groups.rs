//! Who may be in a conversation, and who is told of it.

use anyhow::Result;
use chat_e2e::{Person, on_shared_fleet, said};
use chat_shared::wire::{Conversation, ConversationKind, Role};
use serde_json::json;
use tokio::task::JoinSet;

#[test]
fn r2_1_a_direct_conversation_has_exactly_two_and_is_one_for_the_pair() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let mut requests = JoinSet::new();
        for number in 0..8 {
            let (by, with) = if number % 3 == 0 { (&asha, &bikram) } else { (&bikram, &asha) };
            let (api, body) = (fleet.api(by, number % 2), json!({ "kind": "direct", "user_id": with.id }));
            requests.spawn(async move { api.post("conversations", &body).await });
        }
        let answers = requests.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1, "it was made once");
        let made = answers.into_iter().map(chat_e2e::Answer::ok).collect::<Result<Vec<Conversation>>>()?;
        let conversation = &made[0];
        assert!(made.iter().all(|other| other.conversation_id == conversation.conversation_id));
        assert_eq!(conversation.kind, ConversationKind::Direct);
        assert_eq!(conversation.participants.len(), 2);

        let api = fleet.api(&asha, 0);
        let participants = format!("conversations/{}/participants", conversation.conversation_id.as_uuid());
        let third = json!({ "user_ids": [chandra.id] });
        assert_eq!(api.post(&participants, &third).await?.code(), "409 conflict");
        for who in [&asha, &bikram] {
            let path = format!("{participants}/{}", who.id.as_uuid());
            assert_eq!(api.delete(&path).await?.code(), "409 conflict");
        }
        let alone = json!({ "kind": "direct", "user_id": asha.id });
        assert_eq!(api.post("conversations", &alone).await?.code(), "400 invalid");
        Ok(())
    })
}

#[test]
fn r2_2_a_group_has_two_to_eight_even_when_they_race() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let people: [Person; 10] = fleet.people()?;
        let [owner, others @ ..] = &people;
        let api = fleet.api(owner, 0);
        for (count, code) in [(0, "400 invalid"), (1, "201"), (7, "201"), (8, "400 invalid")] {
            let user_ids: Vec<_> = others[..count].iter().map(|person| person.id).collect();
            let answer = api.post("conversations", &json!({ "kind": "group", "user_ids": user_ids })).await?;
            assert_eq!(answer.code(), code, "{count} others");
        }

        let group = fleet.group(owner, &[&others[0]]).await?;
        let path = format!("conversations/{}/participants", group.as_uuid());
        let mut requests = JoinSet::new();
        for (number, person) in others[1..].iter().enumerate() {
            let (api, path, body) = (fleet.api(owner, number % 2), path.clone(), json!({ "user_ids": [person.id] }));
            requests.spawn(async move { anyhow::Ok(api.post(&path, &body).await?.code()) });
        }
        let mut codes = requests.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        codes.sort();
        assert_eq!(codes, ["200", "200", "200", "200", "200", "200", "409 conflict", "409 conflict"]);
        let path = format!("conversations/{}", group.as_uuid());
        let conversation: Conversation = api.get(&path).await?.ok()?;
        assert_eq!((conversation.participants.len(), conversation.version), (8, 7));
        Ok(())
    })
}

#[test]
fn r1_2_everybody_is_told_who_joins_and_leaves() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, member, newcomer] = fleet.people()?;
        let mut owners = fleet.connect(&owner, 0).await?;
        let (mut members, mut newcomers) = (fleet.connect(&member, 1).await?, fleet.connect(&newcomer, 1).await?);
        let group = fleet.group(&owner, &[&member]).await?;
        for device in [&mut owners, &mut members] {
            let change = device.change().await?;
            assert_eq!((change.conversation_id, change.version, change.participants.len()), (group, 1, 2));
        }
        owners.say(group, &said("before you came")).await?;

        let participants = format!("conversations/{}/participants", group.as_uuid());
        let body = json!({ "user_ids": [newcomer.id, member.id] });
        let grown: Conversation = fleet.api(&owner, 1).post(&participants, &body).await?.ok()?;
        assert_eq!((grown.participants.len(), grown.version), (3, 2));
        for device in [&mut owners, &mut members, &mut newcomers] {
            let change = device.change().await?;
            assert_eq!((change.version, change.added), (2, vec![newcomer.id]));
        }
        let page = fleet.api(&newcomer, 1).history(group, "").await?;
        assert_eq!(page.messages[0].text, said("before you came"), "a newcomer reads what was written before");

        // The owner leaves, and the longest-standing member succeeds them.
        let path = format!("{participants}/{}", owner.id.as_uuid());
        assert_eq!(fleet.api(&owner, 0).delete(&path).await?.status, 204);
        for device in [&mut owners, &mut members, &mut newcomers] {
            let change = device.change().await?;
            assert_eq!((change.version, change.removed), (3, vec![owner.id]));
            assert_eq!((change.participants[0].user_id, change.participants[0].role), (member.id, Role::Owner));
        }
        Ok(())
    })
}

#[test]
fn r6_4_a_user_is_put_into_no_group_by_a_user_whom_the_user_has_blocked() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, third] = fleet.people()?;
        let (old, new) = (fleet.group(&bikram, &[&asha]).await?, fleet.group(&bikram, &[&third]).await?);
        let block = format!("blocks/{}", bikram.id.as_uuid());
        assert_eq!(fleet.api(&asha, 0).put(&block, &json!({})).await?.status, 204);
        let (api, path) = (fleet.api(&bikram, 1), format!("conversations/{}/participants", new.as_uuid()));
        for user_ids in [vec![asha.id], vec![third.id, asha.id]] {
            let made = api.post("conversations", &json!({ "kind": "group", "user_ids": user_ids })).await?;
            assert_eq!(made.code(), "403 forbidden");
            let added = api.post(&path, &json!({ "user_ids": user_ids })).await?;
            assert_eq!(added.code(), "403 forbidden");
        }
        let mut device = fleet.connect(&asha, 0).await?;
        api.say(old, &said("the old group goes on")).await?;
        assert_eq!(device.message().await?.text, said("the old group goes on"));
        Ok(())
    })
}

#[test]
fn a_user_who_left_a_group_comes_back_alone_and_one_who_was_removed_does_not() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, member, leaver] = fleet.people()?;
        let group = fleet.group(&owner, &[&member, &leaver]).await?;
        let path = format!("conversations/{}/participants", group.as_uuid());
        let (own, body) = (format!("{path}/{}", leaver.id.as_uuid()), json!({ "user_ids": [leaver.id] }));
        let (owners, leavers) = (fleet.api(&owner, 0), fleet.api(&leaver, 1));
        assert_eq!(leavers.delete(&own).await?.status, 204);
        assert_eq!(owners.post(&path, &body).await?.code(), "403 forbidden");
        let mut device = fleet.connect(&member, 0).await?;
        let back: Conversation = leavers.post(&path, &body).await?.ok()?;
        assert_eq!(back.participants.len(), 3);
        let change = device.change().await?;
        assert_eq!((change.added, change.returned), (vec![leaver.id], vec![leaver.id]));
        assert_eq!(owners.delete(&own).await?.status, 204);
        assert_eq!(leavers.post(&path, &body).await?.code(), "404 not_found");
        assert_eq!(owners.post(&path, &body).await?.status, 200);
        Ok(())
    })
}

#[test]
fn r6_4_only_the_owner_adds_and_removes_others() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [owner, member, third, stranger] = fleet.people()?;
        let group = fleet.group(&owner, &[&member, &third]).await?;
        let participants = format!("conversations/{}/participants", group.as_uuid());
        let api = fleet.api(&member, 1);
        let addition = api.post(&participants, &json!({ "user_ids": [stranger.id] })).await?;
        assert_eq!(addition.code(), "403 forbidden");
        for who in [&owner, &third] {
            let removal = api.delete(&format!("{participants}/{}", who.id.as_uuid())).await?;
            assert_eq!(removal.code(), "403 forbidden");
        }
        Ok(())
    })
}
