//! Muted conversations: delivered, unread, not notified.

use std::time::Duration;

use anyhow::{Result, ensure};
use chat_e2e::{Api, Setup, database, eventually, on_own_fleet, on_shared_fleet, said};
use chat_shared::{
    clock::Clock,
    ids::ConversationId,
    wire::{Mute, Platform},
};
use serde_json::json;

use crate::phone::{Phone, is_one_concluded};

async fn mute(api: &Api, conversation_id: ConversationId, mute: Mute) -> Result<String> {
    Ok(api.put(&format!("conversations/{}/mute", conversation_id.as_uuid()), &mute).await?.code())
}

#[test]
fn r5_3_a_muted_conversation_is_delivered_and_unread_and_not_notified() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let muted = fleet.direct(&asha, &bikram).await?;
        let loud = fleet.group(&asha, &[&bikram]).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let phone = Phone::register(fleet, &own, Platform::Webhook).await?;
        assert_eq!(mute(&own, muted, Mute::ForGood).await?, "204");
        assert_eq!(own.listed(muted).await?.mute, Some(Mute::ForGood));
        assert_eq!(api.listed(muted).await?.mute, None, "it is his own setting");

        let quiet = api.say(muted, &said("quietly")).await?;
        let heard = api.say(loud, &said("loudly")).await?;
        phone.shows(fleet, heard.message_id).await?;
        // Badges and lists count what is stored.
        let postgres = &fleet.urls().postgres;
        database::wait_until_stored(postgres, loud, 1).await?;
        // What is not decided yet would be notified once the mute ends.
        eventually("the decision on the muted message", || async {
            Ok(is_one_concluded(fleet, "muted").await?.then_some(()))
        })
        .await?;
        assert_eq!(own.delete(&format!("conversations/{}/mute", muted.as_uuid())).await?.status, 204);
        assert_eq!(own.listed(muted).await?.mute, None);
        let last = api.say(muted, &said("aloud again")).await?;
        let shown = phone.shows(fleet, last.message_id).await?;
        assert_eq!(shown.badge, Some(3), "muted ones are unread too");
        let shown = phone.shown(fleet);
        ensure!(!shown.contains(&quiet.message_id.as_uuid().to_string()), "the muted one was shown");
        assert_eq!(shown.len(), 2);

        database::wait_until_stored(postgres, muted, 2).await?;
        let mut client = fleet.connect(&bikram, 0).await?;
        client.unread_total(3).await?;
        Ok(())
    })
}

#[test]
fn r5_3_a_mute_with_a_time_ends_by_itself() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let phone = Phone::register(fleet, &own, Platform::Webhook).await?;
        let until = Clock::System.now().after(Duration::from_secs(2));
        assert_eq!(mute(&own, conversation_id, Mute::Until(until)).await?, "204");
        assert_eq!(own.listed(conversation_id).await?.mute, Some(Mute::Until(until)));
        eventually("the end of the mute", || async {
            Ok(own.listed(conversation_id).await?.mute.is_none().then_some(()))
        })
        .await?;
        let sent = api.say(conversation_id, &said("aloud")).await?;
        phone.shows(fleet, sent.message_id).await?;
        Ok(())
    })
}

#[test]
fn r5_3_a_mute_that_makes_no_sense_or_is_not_ones_own_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let path = format!("conversations/{}/mute", conversation_id.as_uuid());
        let past = Clock::System.now();
        assert_eq!(mute(&fleet.api(&asha, 0), conversation_id, Mute::Until(past)).await?, "400 invalid");
        for wrong in [json!({ "until": "tomorrow" }), json!({ "until": i64::MAX }), json!(7), json!(null)] {
            assert_eq!(fleet.api(&asha, 0).put(&path, &wrong).await?.code(), "400 invalid", "{wrong}");
        }
        let outside = fleet.api(&stranger, 1);
        assert_eq!(mute(&outside, conversation_id, Mute::ForGood).await?, "404 not_found");
        assert_eq!(outside.delete(&path).await?.code(), "404 not_found");
        assert_eq!(mute(&outside, ConversationId::random(), Mute::ForGood).await?, "404 not_found");
        Ok(())
    })
}
