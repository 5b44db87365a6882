//! Gateways that end without a word.

use std::collections::BTreeSet;

use anyhow::Result;
use chat_dev::wait;
use chat_shared::{delivery::Delivery, ids::UserId, wire::Platform};

use crate::{
    people::{Conversation, Gateway},
    stage::{DEADLINE, Stage},
};

#[tokio::test]
async fn users_of_a_gateway_that_is_gone_are_offline_and_notified_of_what_is_unconfirmed_r8_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifiers = [stage.notifier().await?, stage.notifier().await?];
    let (mut doomed, mut other) = (Gateway::open(&stage).await?, Gateway::open(&stage).await?);
    let (asha, ben, chandra) = (UserId::random(), UserId::random(), UserId::random());
    for user_id in [ben, chandra] {
        stage.device(user_id, Platform::Fcm, None).await?;
        doomed.connect(&stage, user_id, None).await?;
    }
    other.connect(&stage, chandra, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    doomed.numbered().await?;

    stage.inboxes.release_lease(doomed.gateway_id).await?;
    let mut told = Vec::new();
    while told.len() < 2 {
        let changes = other.next(|delivery| match delivery {
            Delivery::PresenceChanged(changes) => Some(changes),
            _ => None,
        });
        for change in changes.await? {
            let presence = change.presence;
            if told.iter().all(|(user_id, _)| *user_id != presence.user_id) {
                told.push((presence.user_id, presence.is_online));
            }
            assert_eq!(presence.last_seen_at.is_some(), !presence.is_online);
        }
    }
    told.sort_unstable();
    let mut expected = [(ben, false), (chandra, true)];
    expected.sort_unstable();
    assert_eq!(told, expected, "who is connected elsewhere stays online");
    stage.services.wait_for("a notification", |received| (!received.is_empty()).then_some(())).await?;
    assert_eq!(stage.all_received().await?.len(), 1);
    assert_eq!(stage.inboxes.departed().await?, []);
    for notifier in notifiers {
        notifier.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_inbox_holds_back_no_others() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (doomed, mut other) = (Gateway::open(&stage).await?, Gateway::open(&stage).await?);
    let broken = [(); 3].map(|()| UserId::random());
    let whole = UserId::random();
    for user_id in broken.into_iter().chain([whole]) {
        doomed.connect(&stage, user_id, None).await?;
    }
    for (user_id, key) in broken.into_iter().zip(["meta", "sessions", "devices"]) {
        stage.spoil(user_id, key).await?;
    }
    stage.inboxes.release_lease(doomed.gateway_id).await?;
    let mut offline = BTreeSet::new();
    while offline.len() < 4 {
        let changes = other.next(|delivery| match delivery {
            Delivery::PresenceChanged(changes) => Some(changes),
            _ => None,
        });
        offline.extend(changes.await?.iter().map(|change| change.presence.user_id));
    }
    assert!(offline.contains(&whole));
    wait::until("the gateway is forgotten", DEADLINE, async || {
        Ok(stage.inboxes.departed().await?.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(notifier.count("chat_notifier_inboxes_reset_total").await?, 3);
    notifier.stop().await
}
