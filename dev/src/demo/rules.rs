//! Rules that people expect: joining and coming back, blocking, and reading on another device.

use anyhow::{Context, Result, ensure};
use chat_client::{
    ids::{ConversationId, DeviceId},
    wire::{NotificationAddress, RegisterDevice},
};

use super::{
    narrator::{Narrator, Promise},
    scenes::refused,
    stage::{SECOND, Stage},
};
use crate::{
    person::Person,
    push_services::{APP_IDS, Received},
};

/// One leaves a group, is not added back, and comes back alone.
pub async fn leaves_and_returns(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let group = stage.group()?;
    let (asha, chandra) = (&stage.asha, &stage.chandra);
    told.check(Promise::UnreadIsItsDefinition, {
        unread(chandra, group).await.and_then(|unread| {
            ensure!(unread == 0, "{unread} messages are unread for Chandra, who joined after them");
            Ok("Chandra joined after others had written, and has 0 unread messages")
        })
    });
    chandra.rest()?.remove_participant(group, chandra.user_id).await?;
    told.tell("Chandra leaves the group");
    let outcome = async {
        refused("add a user back who left", asha.rest()?.add_participants(group, [chandra.user_id]).await)?;
        let back = chandra.rest()?.add_participants(group, [chandra.user_id]).await?;
        ensure!(back.participants.len() == 3, "{} take part after Chandra came back", back.participants.len());
        let unread = unread(chandra, group).await?;
        ensure!(unread == 0, "{unread} messages are unread that Chandra had read before");
        Ok("Asha can't add her back; Chandra comes back by herself, and what she had read is read")
    };
    told.check(Promise::NotYours, outcome.await);
    stage.say(told, &stage.asha, group, "There you are again.").await?;
    stage.check_shown(told).await;
    Ok(())
}

async fn unread(person: &Person, room: ConversationId) -> Result<u64> {
    Ok(person.rest()?.conversation(room).await?.unread)
}

/// One blocks another, who reaches her neither directly nor by a group of two; the group that both are in goes on.
pub async fn a_block(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let group = stage.group()?;
    let (bikram, chandra) = (&stage.bikram, &stage.chandra);
    chandra.rest()?.block(bikram.user_id).await?;
    told.tell("Chandra blocks Bikram");
    let outcome = async {
        let rest = bikram.rest()?;
        refused("write to Chandra, who blocks him", rest.create_direct(chandra.user_id).await)?;
        refused("make a group of two with her", rest.create_group([chandra.user_id]).await)?;
        Ok("Bikram can make neither a direct conversation with her nor a group of two, 2 of 2 attempts")
    };
    told.check(Promise::NotYours, outcome.await);
    stage.refusals += 2;
    stage.say(told, &stage.bikram, group, "Is Saturday still on?").await?;
    stage.check_shown(told).await;
    stage.chandra.rest()?.unblock(stage.bikram.user_id).await?;
    told.tell("in the group of three all goes on; Chandra ends the block");
    Ok(())
}

/// One is notified on the phone, reads on another device, and the phone takes its notification down.
pub async fn reads_elsewhere(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let direct = stage.direct()?;
    let (device_id, token) = (DeviceId::random(), format!("{:064x}", rand::random::<u128>()));
    let address = NotificationAddress::Fcm { token: token.clone() };
    let phone = RegisterDevice { address, app_id: APP_IDS[0].to_owned(), locale: None };
    stage.bikram.rest()?.register_device(device_id, &phone).await?;
    stage.bikram.leave().await?;
    told.tell("Bikram has a phone that is registered, and closes the app");
    let kept = stage.say(told, &stage.asha, direct, "Don't forget the sugar!").await?;
    let outcome = async {
        let (id, message_id) = (direct.as_uuid().to_string(), kept.key.message_id.as_uuid().to_string());
        let is_of_phone = |it: &&Received| it.token == token && it.conversation_id.as_deref() == Some(id.as_str());
        let services = stage.fleet.push_services();
        let find_alert = |all: &[Received]| {
            let alerts = all.iter().filter(is_of_phone).filter(|it| it.is_alert);
            alerts.filter(|it| it.message_id.as_deref() == Some(message_id.as_str())).map(|it| it.badge).next()
        };
        services.wait_for("the notification of the message", find_alert).await?;
        told.tell("the phone shows a notification of it");
        let mut tablet = stage.bikram.other_device();
        tablet.arrive(stage.gateways_from(SECOND)).await?;
        tablet.client()?.mark_read(direct, kept.key.message_id).await?;
        let find_silent = |all: &[Received]| {
            let silent = all.iter().filter(is_of_phone).filter(|it| !it.is_alert);
            silent.filter_map(|it| it.read_seq).find(|read_seq| *read_seq >= kept.seq.0)
        };
        let read_seq = services.wait_for("the silent update of the phone", find_silent).await?;
        tablet.leave().await?;
        Ok(format!(
            "he reads number {} on a tablet, and a silent update tells the phone: read to {read_seq}",
            kept.seq.0
        ))
    };
    told.check(Promise::OneNotification, outcome.await);
    stage.bikram.arrive(stage.gateways_from(SECOND)).await.context("Bikram opens the app again")?;
    stage.bikram.rest()?.remove_device(device_id).await?;
    stage.check_shown(told).await;
    Ok(())
}
