//! Providers that fail, devices that are gone, answers that never came.

use std::time::Duration;

use anyhow::Result;
use chat_dev::push_services::Behaviour;
use chat_dev::wait;
use chat_shared::{clock::Clock, ids::UserId, wire::Platform};
use time::OffsetDateTime;

use crate::{
    people::Conversation,
    stage::{DEADLINE, Stage},
};

#[tokio::test]
async fn when_a_provider_fails_and_comes_back_everybody_is_notified_once() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    stage.device(ben, Platform::Apns, None).await?;
    stage.services.behave(Platform::Fcm, Behaviour::Failing { status: 503, retry_after: None });
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    for _ in 0..3 {
        conversation.message(&stage, asha).await?;
    }
    notifier.wait_for("sent", 3).await?;
    wait::until("failures enough to leave it alone", DEADLINE, async || {
        let failures = "chat_notifier_provider_requests_total{provider=\"fcm\",verdict=\"later\"}";
        Ok((notifier.count(failures).await? >= 5).then_some(()))
    })
    .await?;
    assert_eq!(stage.services.received(Platform::Fcm).len(), 0);
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    notifier.wait_for("sent", 6).await?;
    assert_eq!(stage.all_received().await?.len(), 6, "three by each");
    assert_eq!(stage.services.received(Platform::Apns).len(), 3);
    notifier.stop().await
}

#[tokio::test]
async fn a_device_that_is_gone_is_removed_and_the_others_are_not() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    let gone = stage.device(ben, Platform::Fcm, None).await?;
    stage.device(ben, Platform::Webhook, None).await?;
    stage.services.kill_token(&gone.token);
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    notifier.wait_for("gone", 1).await?;
    assert_eq!(stage.all_received().await?.len(), 1);
    assert_eq!(stage.devices(ben).await?, 1);
    conversation.message(&stage, asha).await?;
    assert_eq!(stage.all_received().await?.len(), 2);
    assert_eq!(notifier.outcomes("gone").await?, 1);
    notifier.stop().await
}

#[tokio::test]
async fn while_a_provider_refuses_the_credentials_no_device_is_removed() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    for _ in 0..6 {
        stage.device(ben, Platform::Fcm, None).await?;
    }
    stage.services.behave(Platform::Fcm, Behaviour::Failing { status: 403, retry_after: None });
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    wait::until("a provider that is left alone", DEADLINE, async || {
        Ok((notifier.count("chat_notifier_provider_open{provider=\"fcm\"}").await? == 1).then_some(()))
    })
    .await?;
    assert!(notifier.count("chat_notifier_provider_denied_total{provider=\"fcm\"}").await? >= 5);
    assert!(notifier.said().contains("doesn't accept the credentials"));
    assert_eq!(stage.devices(ben).await?, 6);
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    notifier.wait_for("sent", 6).await?;
    notifier.stop().await
}

#[tokio::test]
async fn most_of_many_devices_that_are_said_to_be_gone_stay() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    for _ in 0..15 {
        let device = stage.device(ben, Platform::Webhook, None).await?;
        stage.services.kill_token(&device.token);
    }
    Conversation::of(&stage, &[asha, ben]).await?.message(&stage, asha).await?;
    notifier.wait_for("gone", 10).await?;
    notifier.wait_for("refused", 5).await?;
    stage.settled().await?;
    assert_eq!(stage.devices(ben).await?, 5);
    let held_back = "chat_notifier_provider_removals_held_back_total{provider=\"webhook\"}";
    assert_eq!(notifier.count(held_back).await?, 5);
    assert!(notifier.said().contains("they are not removed"));
    notifier.stop().await
}

#[tokio::test]
async fn a_device_that_registered_after_its_token_had_died_stays() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben, chandra) = (UserId::random(), UserId::random(), UserId::random());
    let now = OffsetDateTime::from(Clock::System.now());
    for (user_id, at) in [(ben, now + time::Duration::HOUR), (chandra, now - time::Duration::HOUR)] {
        let device = stage.device(user_id, Platform::Apns, None).await?;
        stage.services.kill_token(&device.token);
        stage.registered_at(user_id, at).await?;
    }
    Conversation::of(&stage, &[asha, ben, chandra]).await?.message(&stage, asha).await?;
    notifier.wait_for("gone", 2).await?;
    stage.settled().await?;
    assert_eq!((stage.devices(ben).await?, stage.devices(chandra).await?), (1, 0));
    notifier.stop().await
}

#[tokio::test]
async fn what_may_have_been_sent_is_never_sent_again() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    stage.services.behave(Platform::Fcm, Behaviour::SilentAfterTaking);
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let message_id = conversation.message(&stage, asha).await?;
    notifier.wait_for("unknown", 1).await?;
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    stage.repeat(&conversation.job(message_id, ben, asha)).await?;
    assert_eq!(stage.all_received().await?.len(), 1);
    notifier.stop().await
}

#[tokio::test]
async fn a_notifier_killed_between_sending_and_recording_notifies_nobody_twice() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    stage.services.behave(Platform::Fcm, Behaviour::Slow(Duration::from_secs(8)));
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let message_id = conversation.message(&stage, asha).await?;
    stage.services.wait_for("a notification", |received| (!received.is_empty()).then_some(())).await?;
    notifier.process.kill().await?;
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    notifier.start().await?;
    // The job in hand comes back only after a minute; another notifier would be given it as this one is.
    stage.repeat(&conversation.job(message_id, ben, asha)).await?;
    notifier.wait_for("unknown", 1).await?;
    assert_eq!(stage.services.received(Platform::Fcm).len(), 1);
    notifier.stop().await
}
