//! What is unread: the same number in the list, in the total, in the client, and by the definition.

use anyhow::{Context, Result, ensure};
use chat_client::{ClientOptions, Outgoing, positions::Seq};
use chat_e2e::{Online, Person, TestFleet, database, eventually, on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, DeviceId},
    wire::{ConversationPage, UnreadTotal},
};
use serde_json::json;

/// By the definition, from the rows themselves.
async fn defined(fleet: &TestFleet, person: &Person, conversation_id: ConversationId) -> Result<u64> {
    let statement = format!(
        "select count(*) from generate_series(1, (select last_seq from conversations where conversation_id = '{0}')) seq
         where seq > (select floor_seq from conversations where conversation_id = '{0}')
             and seq > (select read_seq from participants where conversation_id = '{0}' and user_id = '{1}')
             and not exists (
                 select from messages where conversation_id = '{0}' and messages.seq = seq.seq and sender_id = '{1}'
             )",
        conversation_id.as_uuid(),
        person.id.as_uuid()
    );
    Ok(database::count(&fleet.urls().postgres, &statement).await?.unsigned_abs())
}

/// Waits until everything says these numbers, and nothing another.
async fn agree(fleet: &TestFleet, person: &Person, client: &Online, expected: &[(ConversationId, u64)]) -> Result<()> {
    let total: u64 = expected.iter().map(|(_, unread)| unread).sum();
    let conversations = u64::try_from(expected.iter().filter(|(_, unread)| *unread > 0).count())?;
    eventually(&format!("agreement on {total} unread"), || async {
        let page: ConversationPage = fleet.api(person, 1).get("conversations").await?.ok()?;
        let totals: UnreadTotal = fleet.api(person, 0).get("unread").await?.ok()?;
        let mut agrees = totals == UnreadTotal { messages: total, conversations };
        agrees &= client.client.unread_total() == total;
        for (conversation_id, unread) in expected {
            let listed = page.conversations.iter().find(|listed| listed.conversation_id == *conversation_id);
            agrees &= listed.context("it is in the list")?.unread == *unread;
            agrees &= defined(fleet, person, *conversation_id).await? == *unread;
            agrees &= client.client.unread(*conversation_id) == Some(*unread);
        }
        Ok(agrees.then_some(()))
    })
    .await
    .with_context(|| {
        let client = &client.client;
        let of_each: Vec<_> = expected.iter().map(|(id, unread)| (client.unread(*id), *unread)).collect();
        format!("the client has {}, of each (and expected) {of_each:?}", client.unread_total())
    })
}

#[test]
fn r5_1_r5_2_list_total_client_and_definition_agree() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let group = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let mut readers = fleet.connect(&bikram, 0).await?;
        let tablet = fleet.connect(&bikram, 1).await?;
        let api = fleet.api(&asha, 1);
        let mut ids = Vec::new();
        for number in 1..=5 {
            ids.push(api.say(direct, &said(number)).await?.message_id);
            api.say(group, &said(number)).await?;
        }
        readers.unread_total(10).await?;
        for client in [&readers, &tablet] {
            agree(fleet, &bikram, client, &[(direct, 5), (group, 5)]).await?;
        }
        tablet.client.mark_read(direct, ids[2]).await?;
        readers.unread_total(7).await?;
        for client in [&readers, &tablet] {
            agree(fleet, &bikram, client, &[(direct, 2), (group, 5)]).await?;
        }
        // A message that waited for a connection: the device had shown three of the five when the user wrote it.
        let queued = Outgoing { seen_seq: Some(Seq(3)), ..Outgoing::new(group, said("me too")) };
        tablet.client.send_message(queued).await?;
        fleet.api(&chandra, 0).say(group, &said("and me")).await?;
        for client in [&readers, &tablet] {
            agree(fleet, &bikram, client, &[(direct, 2), (group, 3)]).await?;
        }
        // Own messages count for nobody, wherever the read mark is.
        let senders = fleet.connect(&asha, 0).await?;
        agree(fleet, &asha, &senders, &[(direct, 0), (group, 2)]).await?;
        let last = api.say(group, &said("thanks")).await?.message_id;
        for client in [&readers, &tablet] {
            agree(fleet, &bikram, client, &[(direct, 2), (group, 4)]).await?;
        }
        // A client that starts now has the own message from the list alone.
        let again = fleet.connect(&bikram, 0).await?;
        agree(fleet, &bikram, &again, &[(direct, 2), (group, 4)]).await?;
        again.client.mark_read(group, last).await?;
        agree(fleet, &bikram, &again, &[(direct, 2), (group, 0)]).await
    })
}

#[test]
fn r5_1_after_a_restart_with_a_resume_the_numbers_are_right_without_a_list() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let options = ClientOptions { device_id: DeviceId::random(), ..fleet.options(&bikram, 0) };
        let mut client = TestFleet::connect_with(options.clone()).await?;
        let api = fleet.api(&asha, 1);
        let first = api.say(conversation_id, &said(1)).await?;
        api.say(conversation_id, &said(2)).await?;
        client.expect([1, 2]).await?;
        let position = client.client.close().await;

        api.say(conversation_id, &said(3)).await?;
        assert_eq!(fleet.api(&bikram, 1).mark_read(conversation_id, first.message_id).await?.status, 204);
        let mut again = TestFleet::connect_with(ClientOptions { resume_from: Some(position), ..options }).await?;
        assert!(again.connected().await?, "it resumes");
        again.expect([3]).await?;
        again.unread_total(2).await?;
        agree(fleet, &bikram, &again, &[(conversation_id, 2)]).await
    })
}

#[test]
fn r5_1_a_new_participant_has_nothing_unread_and_a_returning_one_what_was_not_read() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let group = fleet.group(&asha, &[&chandra]).await?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let api = fleet.api(&asha, 0);
        for number in 1..=3 {
            api.say(group, &said(number)).await?;
        }
        api.say(direct, &said("soon")).await?;
        for (conversation_id, last) in [(group, 3), (direct, 1)] {
            database::wait_until_stored(&fleet.urls().postgres, conversation_id, last).await?;
        }
        let mut client = fleet.connect(&bikram, 1).await?;
        client.unread_total(1).await?;
        let path = format!("conversations/{}/participants", group.as_uuid());
        assert_eq!(api.post(&path, &json!({ "user_ids": [bikram.id] })).await?.status, 200);
        agree(fleet, &bikram, &client, &[(group, 0), (direct, 1)]).await?;
        api.say(group, &said(4)).await?;
        api.say(group, &said(5)).await?;
        client.unread_total(3).await?;
        assert_eq!(api.delete(&format!("{path}/{}", bikram.id.as_uuid())).await?.status, 204);
        client.unread_total(1).await?;
        agree(fleet, &bikram, &client, &[(direct, 1)]).await?;
        ensure!(client.client.unread(group).is_none(), "the user takes part no more");
        api.say(group, &said(6)).await?;
        assert_eq!(api.post(&path, &json!({ "user_ids": [bikram.id] })).await?.status, 200);
        client.unread_total(4).await?;
        agree(fleet, &bikram, &client, &[(group, 3), (direct, 1)]).await
    })
}
