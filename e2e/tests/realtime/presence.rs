//! Who is there, as others see it through whichever gateway.

use anyhow::{Result, ensure};
use chat_e2e::{Person, Setup, Socket, TestFleet, eventually, on_own_fleet, on_shared_fleet, realtime::watch_presence};
use chat_shared::{
    ids::{DeviceId, UserId},
    wire::{Encoding, Presence, PresenceList},
};
use serde_json::json;

async fn arrive(fleet: &TestFleet, person: &Person, gateway: usize) -> Result<Socket> {
    fleet.ready_socket(person, gateway, Encoding::Json).await
}

/// The next user whom the watcher is told of; several come one by one here.
async fn next(watcher: &mut Socket) -> Result<(UserId, bool)> {
    let users = watcher.presence().await?;
    ensure!(users.len() == 1, "more than one changed: {users:?}");
    Ok((users[0].user_id, users[0].is_online))
}

async fn ask(fleet: &TestFleet, asker: &Person, gateway: usize, user_ids: &[UserId]) -> Result<Vec<Presence>> {
    let user_ids: Vec<_> = user_ids.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
    let list = fleet.api(asker, gateway).get(&format!("presence?user_ids={}", user_ids.join(","))).await?;
    Ok(list.ok::<PresenceList>()?.users)
}

#[test]
fn r8_1_who_connects_is_online_at_once_for_a_watcher_at_the_other_gateway_and_offline_when_they_leave() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for (watching, watched) in [(0, 1), (1, 0), (0, 0)] {
            let [asha, bikram] = fleet.people()?;
            fleet.direct(&asha, &bikram).await?;
            let mut watcher = arrive(fleet, &asha, watching).await?;
            let never = Presence { user_id: bikram.id, is_online: false, last_seen_at: None };
            assert_eq!(watcher.watch(&[bikram.id, asha.id]).await?[0], never);

            let phone = arrive(fleet, &bikram, watched).await?;
            assert_eq!(next(&mut watcher).await?, (bikram.id, true));
            for gateway in [0, 1] {
                let there = Presence { user_id: bikram.id, is_online: true, last_seen_at: None };
                assert_eq!(ask(fleet, &asha, gateway, &[bikram.id]).await?, [there]);
            }
            phone.goodbye().await?;
            let gone = watcher.presence().await?[0];
            assert_eq!((gone.user_id, gone.is_online), (bikram.id, false));
            ensure!(gone.last_seen_at.is_some(), "they were seen a moment ago");
            assert_eq!(ask(fleet, &asha, watched, &[bikram.id, asha.id]).await?[0], gone);
        }
        Ok(())
    })
}

#[test]
fn r8_1_several_devices_at_several_gateways_count_as_one() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        fleet.group(&asha, &[&bikram, &chandra]).await?;
        let mut watcher = arrive(fleet, &asha, 1).await?;
        watcher.watch(&[bikram.id, chandra.id]).await?;
        let phone = arrive(fleet, &bikram, 0).await?;
        assert_eq!(next(&mut watcher).await?, (bikram.id, true));
        let tablet = arrive(fleet, &bikram, 1).await?;
        phone.goodbye().await?;
        // Whatever that gateway had to say of him, it said before it says this.
        let other = arrive(fleet, &chandra, 0).await?;
        assert_eq!(next(&mut watcher).await?, (chandra.id, true), "nothing changed about somebody with two devices");
        tablet.goodbye().await?;
        assert_eq!(next(&mut watcher).await?, (bikram.id, false));
        other.goodbye().await
    })
}

#[test]
fn r8_1_a_quick_return_is_not_seen() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        fleet.group(&asha, &[&bikram, &chandra]).await?;
        let mut watcher = arrive(fleet, &asha, 1).await?;
        let device_id = DeviceId::random();
        let mut phone = fleet.socket(&bikram, 0, Encoding::Json).await?;
        phone.hello(device_id, None).await?;
        let breaks = arrive(fleet, &chandra, 0).await?;
        let there = watcher.watch(&[bikram.id, chandra.id]).await?;
        ensure!(there.iter().all(|presence| presence.is_online), "both are there: {there:?}");
        for gateway in [1, 0] {
            drop(phone);
            phone = fleet.socket(&bikram, gateway, Encoding::Json).await?;
            phone.hello(device_id, None).await?;
        }
        // Hers breaks after his, so she is missed after he would be; and of him nothing is said.
        drop(breaks);
        assert_eq!(next(&mut watcher).await?, (chandra.id, false));
        phone.goodbye().await?;
        assert_eq!(next(&mut watcher).await?, (bikram.id, false));
        Ok(())
    })
}

#[test]
fn r8_2_who_says_nothing_for_30_s_is_offline() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        // The client sends heartbeats; the socket doesn't.
        let mut watcher = fleet.connect(&asha, 1).await?;
        watcher.client.watch_presence(vec![bikram.id]).await?;
        assert!(!watcher.presence().await?[0].is_online);
        let mut silent = arrive(fleet, &bikram, 0).await?;
        assert!(watcher.presence().await?[0].is_online);
        let (closed, gone) = tokio::join!(silent.close_code(), watcher.presence());
        assert_eq!(closed?, (4002, "heartbeat_missed".to_owned()));
        assert_eq!(gone?.iter().map(|gone| (gone.user_id, gone.is_online)).collect::<Vec<_>>(), [(bikram.id, false)]);
        assert!(!ask(fleet, &asha, 0, &[bikram.id]).await?[0].is_online);
        Ok(())
    })
}

#[test]
fn r8_2_users_of_a_gateway_that_was_killed_are_offline_within_its_lease() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram, chandra, dipa] = fleet.people()?;
        fleet.group(&asha, &[&bikram, &chandra, &dipa]).await?;
        // One watches from the gateway that stays, one from the gateway that dies; clients go over, the socket doesn't.
        let (mut stays, mut moves) = (fleet.connect(&asha, 1).await?, fleet.connect(&dipa, 0).await?);
        let (_lost, _other) = (arrive(fleet, &bikram, 0).await?, fleet.connect(&chandra, 0).await?);
        for watcher in [&mut stays, &mut moves] {
            watcher.client.watch_presence(vec![bikram.id, chandra.id]).await?;
            let users = watcher.presence().await?;
            assert!(users.iter().all(|presence| presence.is_online), "{users:?}");
        }
        fleet.gateway(0).kill().await?;
        for watcher in [&mut stays, &mut moves] {
            let gone: Vec<_> = watcher.presence().await?.iter().map(|gone| (gone.user_id, gone.is_online)).collect();
            assert_eq!(gone, [(bikram.id, false)], "she has gone over to the other gateway");
        }
        fleet.gateway(0).start_ready().await
    })
}

#[test]
fn r8_1_strangers_and_too_many_are_refused_and_the_earlier_list_stands() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        let mut watcher = arrive(fleet, &asha, 0).await?;
        watcher.watch(&[bikram.id]).await?;
        let many: Vec<UserId> = (0..=100).map(|_| UserId::random()).collect();
        for (list, code) in [
            (vec![stranger.id], "not_found"),
            (vec![bikram.id, stranger.id], "not_found"),
            (vec![UserId::random()], "not_found"),
            (many.clone(), "invalid"),
        ] {
            assert_eq!(watcher.ask(watch_presence(&list)).await?["code"], code, "{} users", list.len());
            let ids: Vec<_> = list.iter().map(|user_id| user_id.as_uuid().to_string()).collect();
            for gateway in [0, 1] {
                let answer = fleet.api(&asha, gateway).get(&format!("presence?user_ids={}", ids.join(","))).await?;
                assert!(answer.code().ends_with(code), "{}", answer.code());
            }
        }
        for wrong in [json!({ "type": "watch_presence" }), json!({ "type": "watch_presence", "user_ids": ["x"] })] {
            assert_eq!(watcher.ask(wrong).await?["code"], "invalid");
        }
        for wrong in ["presence", "presence?user_ids=", "presence?user_ids=x"] {
            assert_eq!(fleet.api(&asha, 0).get(wrong).await?.code(), "400 invalid", "{wrong}");
        }
        let _phone = arrive(fleet, &bikram, 1).await?;
        assert_eq!(next(&mut watcher).await?, (bikram.id, true));
        Ok(())
    })
}

#[test]
fn r8_1_a_list_replaces_the_one_before_and_an_empty_one_ends_it() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        fleet.group(&asha, &[&bikram, &chandra]).await?;
        let (mut watcher, mut control) = (arrive(fleet, &asha, 0).await?, arrive(fleet, &asha, 0).await?);
        control.watch(&[bikram.id, chandra.id]).await?;
        watcher.watch(&[bikram.id]).await?;
        watcher.watch(&[chandra.id]).await?;
        let phone = arrive(fleet, &bikram, 1).await?;
        assert_eq!(next(&mut control).await?, (bikram.id, true), "all of that gateway who watch have been told");
        let _other = arrive(fleet, &chandra, 1).await?;
        assert_eq!(next(&mut watcher).await?, (chandra.id, true), "and nothing of whom it no longer watches");
        assert_eq!(next(&mut control).await?, (chandra.id, true));
        assert_eq!(watcher.ask(watch_presence(&[])).await?["type"], "done");
        phone.goodbye().await?;
        assert_eq!(next(&mut control).await?, (bikram.id, false));
        let all = watcher.watch(&[bikram.id, chandra.id]).await?;
        assert_eq!(all.len(), 2, "the first it hears is what it asked for: {all:?}");
        Ok(())
    })
}

#[test]
fn r8_1_who_shares_no_conversation_any_more_hears_nothing_more() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let group = fleet.group(&bikram, &[&asha]).await?;
        fleet.direct(&asha, &chandra).await?;
        let mut watcher = arrive(fleet, &asha, 1).await?;
        watcher.watch(&[bikram.id, chandra.id]).await?;
        let path = format!("conversations/{}/participants/{}", group.as_uuid(), asha.id.as_uuid());
        assert_eq!(fleet.api(&bikram, 0).delete(&path).await?.status, 204);
        let query = format!("presence?user_ids={}", bikram.id.as_uuid());
        assert_eq!(fleet.api(&asha, 0).get(&query).await?.code(), "404 not_found");
        // The gateway learns of it as everybody does. From then on nothing is told of him, whatever he does.
        let watcher = tokio::sync::Mutex::new(watcher);
        let is_silent = async || -> Result<bool> {
            arrive(fleet, &bikram, 0).await?.goodbye().await?;
            let other = arrive(fleet, &chandra, 0).await?;
            let mut heard = Vec::new();
            let mut watcher = watcher.lock().await;
            while heard.last() != Some(&(chandra.id, true)) {
                heard.extend(watcher.presence().await?.iter().map(|presence| (presence.user_id, presence.is_online)));
            }
            other.goodbye().await?;
            while heard.last() != Some(&(chandra.id, false)) {
                heard.extend(watcher.presence().await?.iter().map(|presence| (presence.user_id, presence.is_online)));
            }
            Ok(heard.iter().all(|(user_id, _)| *user_id == chandra.id))
        };
        eventually("silence about somebody who is no longer one's business", || async {
            Ok(is_silent().await?.then_some(()))
        })
        .await?;
        ensure!(is_silent().await?, "and it stays so");
        Ok(())
    })
}
