//! What phones and browsers are told of messages that nobody took: once, and only then.

use anyhow::{Result, ensure};
use chat_dev::push_services::Behaviour;
use chat_e2e::{MARK, Setup, database, eventually, on_own_fleet, on_shared_fleet, said};
use chat_shared::{
    ids::{DeviceId, MessageId},
    wire::{DeviceList, Encoding, Platform, RegisterDevice},
};
use serde_json::json;

use crate::phone::{self, Phone, is_one_concluded};

fn text(message_id: MessageId) -> String {
    message_id.as_uuid().to_string()
}

#[test]
fn who_is_away_is_notified_once_on_each_platform_and_without_the_text() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let mut phones = Vec::new();
        for platform in Platform::ALL {
            phones.push(Phone::register(fleet, &own, platform).await?);
        }
        let mut sent = Vec::new();
        for number in 1..=2 {
            let message_id = api.say(conversation_id, &said(number)).await?.message_id;
            sent.push(message_id);
            for phone in &phones {
                let received = phone.shows(fleet, message_id).await?;
                let id = conversation_id.as_uuid().to_string();
                assert_eq!((received.conversation_id, received.seq), (Some(id), Some(number)));
                assert_eq!(received.badge, Some(number), "what is unread by then");
                ensure!(!received.payload.to_string().contains(MARK), "the text is nobody's but the two's");
                ensure!(received.ttl.is_some() && received.is_urgent || phone.platform == Platform::Webhook);
            }
        }
        let keys = |phone: &Phone| -> Vec<_> { phone.received(fleet).into_iter().map(|it| it.collapse_key).collect() };
        for phone in &phones {
            assert_eq!(phone.shown(fleet), [text(sent[0]), text(sent[1])], "each once, by {}", phone.platform.as_str());
            let keys = keys(phone);
            assert_eq!(keys[0], keys[1], "a newer one takes the place of the one before");
            assert_eq!(keys[0].is_none(), phone.platform == Platform::Fcm, "but at FCM, where the app sees to it");
        }
        // The sender has no part in it.
        let senders = Phone::register(fleet, &api, Platform::Webhook).await?;
        let last = fleet.api(&bikram, 0).say(conversation_id, &said("back")).await?;
        senders.shows(fleet, last.message_id).await?;
        assert_eq!(senders.shown(fleet), [text(last.message_id)]);
        ensure!(phones.iter().all(|phone| phone.shown(fleet).len() == 2));
        Ok(())
    })
}

#[test]
fn who_has_it_on_the_screen_is_not_notified_and_after_they_leave_they_are() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let phone = Phone::register(fleet, &own, Platform::Fcm).await?;
        let mut client = fleet.connect(&bikram, 1).await?;
        for number in 1..=3 {
            api.say(conversation_id, &said(number)).await?;
        }
        client.expect(1..=3).await?;
        // Closing confirms what was taken.
        client.client.close().await;
        let sent = api.say(conversation_id, &said("are you gone?")).await?;
        phone.shows(fleet, sent.message_id).await?;
        assert_eq!(phone.shown(fleet), [text(sent.message_id)]);
        Ok(())
    })
}

#[test]
fn what_was_pushed_and_not_confirmed_when_the_connection_ended_is_notified_once() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let phone = Phone::register(fleet, &own, Platform::Apns).await?;
        let ways = [(true, 0, Encoding::Json), (false, 1, Encoding::MessagePack)];
        for (is_polite, gateway, encoding) in ways {
            let mut socket = fleet.ready_socket(&bikram, gateway, encoding).await?;
            let mut sent = Vec::new();
            for number in 0..2 {
                sent.push(api.say(conversation_id, &said(number)).await?.message_id);
            }
            let last = text(sent[1]);
            let frame = socket.frame_where(|frame| frame["message"]["message_id"] == last).await?;
            // Of two, the first is confirmed.
            let confirmed = frame["cursor"].as_u64().unwrap_or_default() - 1;
            socket.ask(json!({ "type": "confirm", "cursor": confirmed })).await?;
            if is_polite {
                socket.goodbye().await?;
            } else {
                drop(socket);
            }
            phone.shows(fleet, sent[1]).await?;
            let shown = phone.shown(fleet);
            ensure!(!shown.contains(&text(sent[0])), "what was confirmed is not shown");
            assert_eq!(shown.iter().filter(|shown| **shown == last).count(), 1);
        }
        Ok(())
    })
}

#[test]
fn promise_7_a_connection_that_ends_right_after_ready_swallows_no_notification() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        for (gateway, reader, encoding) in [(0, &bikram, Encoding::Json), (1, &chandra, Encoding::MessagePack)] {
            let conversation_id = fleet.direct(&asha, reader).await?;
            let phone = Phone::register(fleet, &fleet.api(reader, gateway), Platform::Fcm).await?;
            fleet.ready_socket(reader, gateway, encoding).await?.goodbye().await?;
            let sent = fleet.api(&asha, 1 - gateway).say(conversation_id, &said("are you there?")).await?;
            // Within the grace of a user who just left. The device has to reload, and is gone before it has.
            drop(fleet.ready_socket(reader, gateway, encoding).await?);
            phone.shows(fleet, sent.message_id).await?;
        }
        Ok(())
    })
}

#[test]
fn what_was_read_is_not_notified_and_lowers_the_badge_of_the_other_devices() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let phone = Phone::register(fleet, &own, Platform::Apns).await?;
        let first = api.say(direct, &said("one")).await?;
        phone.shows(fleet, first.message_id).await?;
        // Badges count what is stored, and the message itself.
        database::wait_until_stored(&fleet.urls().postgres, direct, 1).await?;
        let second = api.say(group, &said("two")).await?;
        assert_eq!(phone.shows(fleet, second.message_id).await?.badge, Some(2), "of all conversations");
        assert_eq!(own.mark_read(direct, first.message_id).await?.status, 204);
        phone.badge(fleet, 1).await?;
        assert_eq!(own.mark_read(group, second.message_id).await?.status, 204);
        phone.badge(fleet, 0).await
    })
}

#[test]
fn a_token_that_its_provider_calls_dead_is_forgotten_and_the_others_still_work() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let kept = Phone::register(fleet, &own, Platform::Webhook).await?;
        for platform in Platform::ALL {
            let dead = Phone::register(fleet, &own, platform).await?;
            fleet.push_services().kill_token(&dead.token);
            let sent = api.say(conversation_id, &said(platform.as_str())).await?;
            dead.is_forgotten(&own).await?;
            kept.shows(fleet, sent.message_id).await?;
            ensure!(dead.received(fleet).is_empty());
        }
        let left: DeviceList = own.get("devices").await?.ok()?;
        assert_eq!(left.devices.iter().map(|device| device.device_id).collect::<Vec<_>>(), [kept.device_id]);
        Ok(())
    })
}

#[test]
fn a_device_that_was_removed_or_is_another_users_now_is_not_notified() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let conversation_id = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let (api, bikrams, chandras) = (fleet.api(&asha, 0), fleet.api(&bikram, 1), fleet.api(&chandra, 1));
        let control = Phone::register(fleet, &bikrams, Platform::Webhook).await?;
        let removed = Phone::register(fleet, &bikrams, Platform::Webhook).await?;
        let path = format!("devices/{}", removed.device_id.as_uuid());
        assert_eq!(fleet.api(&chandra, 0).delete(&path).await?.status, 204, "of somebody else's nothing is said");
        assert_eq!(bikrams.get("devices").await?.ok::<DeviceList>()?.devices.len(), 2);
        assert_eq!(bikrams.delete(&path).await?.status, 204);

        // A phone that is passed on: the token is whose it was registered for last.
        let passed_on = Phone::register(fleet, &bikrams, Platform::Fcm).await?;
        let address = chat_shared::wire::NotificationAddress::Fcm { token: passed_on.token.clone() };
        let device = RegisterDevice { address, app_id: "com.example.chat".to_owned(), locale: None };
        let path = format!("devices/{}", DeviceId::random().as_uuid());
        assert_eq!(chandras.put(&path, &device).await?.status, 200);

        let sent = api.say(conversation_id, &said("whose is it?")).await?;
        control.shows(fleet, sent.message_id).await?;
        passed_on.shows(fleet, sent.message_id).await?;
        let only_hers = fleet.api(&chandra, 0).say(conversation_id, &said("mine")).await?;
        control.shows(fleet, only_hers.message_id).await?;
        assert_eq!(passed_on.shown(fleet), [text(sent.message_id)], "she isn't notified of her own");
        ensure!(removed.received(fleet).is_empty());
        Ok(())
    })
}

#[test]
fn a_provider_that_fails_for_a_while_loses_nothing_and_sends_nothing_that_was_read_or_muted_meanwhile() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let direct = fleet.direct(&asha, &bikram).await?;
        let (read, muted) = (fleet.group(&asha, &[&bikram]).await?, fleet.group(&asha, &[&bikram]).await?);
        let (api, own) = (fleet.api(&asha, 0), fleet.api(&bikram, 1));
        let failing = Phone::register(fleet, &own, Platform::Fcm).await?;
        let working = Phone::register(fleet, &own, Platform::Webhook).await?;
        fleet.push_services().behave(Platform::Fcm, Behaviour::Down);
        let mut sent = Vec::new();
        for conversation_id in [read, muted, direct] {
            let message_id = api.say(conversation_id, &said("later")).await?.message_id;
            working.shows(fleet, message_id).await?;
            sent.push(message_id);
        }
        ensure!(failing.received(fleet).is_empty());
        assert_eq!(own.mark_read(read, sent[0]).await?.status, 204);
        assert_eq!(
            own.put(&format!("conversations/{}/mute", muted.as_uuid()), &json!({ "for_good": true })).await?.status,
            204
        );
        database::wait_until_read(&fleet.urls().postgres, bikram.id, read, 1).await?;
        fleet.push_services().behave(Platform::Fcm, Behaviour::Normal);
        failing.shows(fleet, sent[2]).await?;
        eventually("looking again at all of them", || async {
            let (read, muted) = (is_one_concluded(fleet, "read").await?, is_one_concluded(fleet, "muted").await?);
            Ok((read && muted).then_some(()))
        })
        .await?;
        assert_eq!(failing.shown(fleet), [text(sent[2])], "not what was read, not what is muted, and nothing twice");
        assert_eq!(working.shown(fleet).len(), 3);
        Ok(())
    })
}

#[test]
fn an_address_made_for_another_platform_is_no_other_address() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let own = fleet.api(&person, 0);
        let (_, address) = phone::address(fleet, Platform::Webhook)?;
        let device_id = DeviceId::random();
        let path = format!("devices/{}", device_id.as_uuid());
        let mut device = RegisterDevice { address, app_id: "com.example.chat".to_owned(), locale: None };
        assert_eq!(own.put(&path, &device).await?.status, 200);
        (_, device.address) = phone::address(fleet, Platform::WebPush)?;
        assert_eq!(own.put(&path, &device).await?.status, 200, "a device may change its address");
        let list: DeviceList = own.get("devices").await?.ok()?;
        assert_eq!(list.devices.len(), 1);
        assert_eq!((list.devices[0].device_id, list.devices[0].platform), (device_id, Platform::WebPush));
        Ok(())
    })
}
