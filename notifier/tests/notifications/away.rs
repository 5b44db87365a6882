//! Users who are away are notified, once, unless something speaks against it.

use anyhow::Result;
use chat_dev::{push_services::Behaviour, wait};
use chat_shared::{
    ids::UserId,
    inbox::Registration,
    wire::{Platform, Resume},
};
use time::{Duration, OffsetDateTime};

use crate::{
    people::{Conversation, Gateway, Held},
    stage::{DEADLINE, Notifier, Stage},
};

#[tokio::test]
async fn who_is_away_is_notified_once_on_each_device_promise_7() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    let mut devices = Vec::new();
    for platform in Platform::ALL {
        devices.push(stage.device(ben, platform, Some("ne-NP")).await?);
    }
    stage.device(asha, Platform::Fcm, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let message_id = conversation.message(&stage, asha).await?;
    notifier.wait_for("sent", 4).await?;

    stage.forget_what_was_routed().await?;
    let restarted = stage.notifier().await?;
    stage.repeat(&conversation.job(message_id, ben, asha)).await?;
    let received = stage.all_received().await?;
    assert_eq!(received.len(), 4, "each device once, however often it is routed, and the sender not at all");
    for (received, device) in received.iter().zip(&devices) {
        assert_eq!(received.token, device.token);
        assert!(received.is_alert);
        assert_eq!(received.title.as_deref(), Some("नयाँ सन्देश"));
        assert_eq!(received.body.as_deref().unwrap_or_default(), "", "what was written stays here");
        assert_eq!(received.badge, Some(1), "the message counts, though it is not stored yet");
        assert_eq!(received.conversation_id, Some(conversation.id.as_uuid().to_string()));
        assert_eq!(received.message_id, Some(message_id.as_uuid().to_string()));
        let collapse_key = (received.platform != Platform::Fcm).then_some(22);
        assert_eq!(received.collapse_key.as_ref().map(String::len), collapse_key);
    }
    assert_eq!(stage.inboxes.badge(ben).await?, Some(1));
    notifier.stop().await?;
    restarted.stop().await
}

#[tokio::test]
async fn nobody_is_notified_of_what_is_read_muted_or_none_of_their_business_r5_3() -> Result<()> {
    let stage = Stage::set().await?;
    let [sender, reader, muter, left, poor, patient] = [(); 6].map(|()| UserId::random());
    for user_id in [reader, muter, left, patient] {
        stage.device(user_id, Platform::Fcm, None).await?;
    }
    let mut conversation = Conversation::of(&stage, &[sender, reader, muter, left, poor, patient]).await?;
    conversation.message(&stage, sender).await?;
    conversation.store_read(&stage, reader).await?;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    conversation.mute(&stage, muter, now + Duration::HOUR).await?;
    conversation.mute(&stage, patient, now - Duration::SECOND).await?;
    conversation.remove(&stage, left).await?;

    let notifier = stage.notifier().await?;
    for outcome in ["read", "muted", "left", "no_device", "sent"] {
        notifier.wait_for(outcome, 1).await?;
    }
    let received = stage.all_received().await?;
    assert_eq!(received.len(), 1, "whose mute is over");
    notifier.stop().await
}

#[tokio::test]
async fn nobody_is_notified_of_a_blocked_direct_conversation_nor_of_what_waits_since_before_r6_4() -> Result<()> {
    let stage = Stage::set().await?;
    let [asha, ben, chandra] = [(); 3].map(|()| UserId::random());
    for user_id in [asha, ben] {
        stage.device(user_id, Platform::Fcm, None).await?;
    }
    let mut direct = Conversation::direct(&stage, [asha, ben]).await?;
    let mut others =
        [Conversation::of(&stage, &[asha, ben]).await?, Conversation::direct(&stage, [ben, chandra]).await?];
    stage.services.behave(Platform::Fcm, Behaviour::Failing { status: 503, retry_after: None });
    direct.message(&stage, asha).await?;
    let notifier = stage.notifier().await?;
    wait::until("a notification that waits", DEADLINE, async || {
        Ok((notifier.count("chat_notifier_job_retries_total").await? > 0).then_some(()))
    })
    .await?;
    stage.block(ben, asha).await?;
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    // What was on its way as they were blocked concerns either of the two.
    direct.message(&stage, ben).await?;
    notifier.wait_for("blocked", 2).await?;
    let mut sent = Vec::new();
    for (conversation, sender_id) in others.iter_mut().zip([asha, chandra]) {
        sent.push(conversation.message(&stage, sender_id).await?.as_uuid().to_string());
    }
    notifier.wait_for("sent", 2).await?;
    let mut received: Vec<_> = stage.all_received().await?.into_iter().filter_map(|it| it.message_id).collect();
    sent.sort_unstable();
    received.sort_unstable();
    assert_eq!(received, sent, "groups and others go on");
    notifier.stop().await
}

#[tokio::test]
async fn who_is_connected_is_not_notified_and_costs_no_job() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    for user_id in [asha, ben] {
        gateway.connect(&stage, user_id, None).await?;
    }
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    gateway.numbered().await?;
    assert_eq!(stage.all_received().await?.len(), 0);
    assert_eq!(notifier.count("chat_notifier_jobs_added_total").await?, 0);
    notifier.stop().await
}

#[tokio::test]
async fn who_comes_back_within_the_grace_and_confirms_is_not_notified() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let (held, registration) = gateway.connect(&stage, ben, None).await?;
    gateway.end(&stage, held).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    let resume = Resume { epoch: registration.epoch, cursor: registration.cursor };
    chat_dev::wait::until("the job", crate::stage::DEADLINE, async || {
        Ok((notifier.count("chat_notifier_jobs_added_total").await? == 1).then_some(()))
    })
    .await?;
    let device_id = held.session.device_id;
    let (_, registration) = gateway.connect(&stage, ben, Some((device_id, resume))).await?;
    assert!(registration.is_resumed);
    assert!(stage.inboxes.confirm(ben, registration.epoch, device_id, registration.head).await?);
    notifier.wait_for("delivered", 1).await?;
    assert_eq!(stage.all_received().await?.len(), 0);
    notifier.stop().await
}

/// One user who had an inbox and one who never had one get a message while they are away, and connect to reload before it
/// is notified.
async fn reloading(stage: &Stage, notifier: &Notifier, gateway: &Gateway) -> Result<[(Held, Registration); 2]> {
    let [asha, ben, chitra] = [(); 3].map(|()| UserId::random());
    for user_id in [ben, chitra] {
        stage.device(user_id, Platform::Fcm, None).await?;
    }
    let (held, registration) = gateway.connect(stage, ben, None).await?;
    assert!(stage.inboxes.confirm(ben, registration.epoch, held.session.device_id, registration.head).await?);
    gateway.end(stage, held).await?;
    let mut conversation = Conversation::of(stage, &[asha, ben, chitra]).await?;
    conversation.message(stage, asha).await?;
    wait::until("the jobs", DEADLINE, async || {
        Ok((notifier.count("chat_notifier_jobs_added_total").await? == 2).then_some(()))
    })
    .await?;
    let elsewhere = Gateway::open(stage).await?;
    let connected = [gateway.connect(stage, ben, None).await?, elsewhere.connect(stage, chitra, None).await?];
    assert!(connected.iter().all(|(_, registration)| !registration.is_resumed));
    Ok(connected)
}

#[tokio::test]
async fn promise_7_a_connection_that_ends_right_after_ready_swallows_no_notification() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let gateway = Gateway::open(&stage).await?;
    for (held, _) in reloading(&stage, &notifier, &gateway).await? {
        gateway.end(&stage, held).await?;
    }
    notifier.wait_for("sent", 2).await?;
    assert_eq!(stage.all_received().await?.len(), 2);
    notifier.stop().await
}

#[tokio::test]
async fn promise_7_who_has_reloaded_and_confirms_that_is_not_notified() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let gateway = Gateway::open(&stage).await?;
    for (held, registration) in reloading(&stage, &notifier, &gateway).await? {
        let Registration { epoch, cursor, .. } = registration;
        assert!(stage.inboxes.confirm(held.user_id, epoch, held.session.device_id, cursor).await?);
        gateway.end(&stage, held).await?;
    }
    notifier.wait_for("delivered", 2).await?;
    assert_eq!(stage.all_received().await?.len(), 0);
    notifier.stop().await
}

#[tokio::test]
async fn promise_7_a_notification_waits_no_longer_when_the_clock_of_redis_was_set_back() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let (held, _) = gateway.connect(&stage, ben, None).await?;
    gateway.end(&stage, held).await?;
    // Ben went when the clock was ten minutes ahead.
    let ahead = chat_shared::clock::Clock::System.now().after(std::time::Duration::from_mins(10));
    let meta = format!("{}:{{{}}}:meta", stage.namespace, ben.as_uuid().simple());
    let mut redis = redis::Client::open(&*stage.urls.redis)?.get_multiplexed_async_connection().await?;
    redis::cmd("HSET").arg(meta).arg("last_seen").arg(ahead.0).exec_async(&mut redis).await?;
    Conversation::of(&stage, &[asha, ben]).await?.message(&stage, asha).await?;
    notifier.wait_for("sent", 1).await?;
    notifier.stop().await
}

#[tokio::test]
async fn the_badge_falls_also_while_what_was_read_is_not_stored_r5_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    for platform in Platform::ALL {
        stage.device(ben, platform, None).await?;
    }
    let mut conversations = Vec::new();
    for number in 1..=3 {
        let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
        conversation.message(&stage, asha).await?;
        notifier.wait_for("sent", 4 * number).await?;
        // The message is stored, and no receipt of ben's ever is.
        conversation.store_read(&stage, asha).await?;
        conversations.push(conversation);
    }
    assert_eq!(stage.inboxes.badge(ben).await?, Some(3));
    for (conversation, left) in conversations.iter().zip([2, 1, 0]) {
        conversation.read_unstored(&stage, ben).await?;
        let received = stage.all_received().await?;
        for platform in [Platform::Fcm, Platform::Apns, Platform::Webhook] {
            let silent = received.iter().filter(|received| received.platform == platform && !received.is_alert);
            let badges: Vec<_> = silent.filter_map(|received| received.badge).collect();
            assert_eq!(badges, (left..3).rev().collect::<Vec<_>>(), "{platform:?}");
        }
        assert_eq!(stage.inboxes.badge(ben).await?, Some(left));
    }
    notifier.stop().await
}

#[tokio::test]
async fn reading_elsewhere_lowers_the_badge_silently_r5_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Apns, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let mut other = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    other.message(&stage, asha).await?;
    notifier.wait_for("sent", 2).await?;
    // Stored, so that it counts in the badge of other conversations' notifications.
    other.store_read(&stage, asha).await?;
    conversation.message(&stage, asha).await?;
    notifier.wait_for("sent", 3).await?;
    assert_eq!(stage.services.received(Platform::Apns)[2].badge, Some(3));

    conversation.read(&stage, ben).await?;
    let received = stage.all_received().await?;
    assert_eq!(received.len(), 4);
    assert_eq!((received[3].is_alert, received[3].badge), (false, Some(1)));
    assert_eq!(stage.inboxes.badge(ben).await?, Some(1));
    conversation.read(&stage, ben).await?;
    assert_eq!(stage.all_received().await?.len(), 4, "what is shown is right already");
    notifier.stop().await
}

#[tokio::test]
async fn what_was_read_elsewhere_is_named_to_the_devices_that_show_it() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    for platform in Platform::ALL {
        stage.device(ben, platform, None).await?;
    }
    let mut conversations =
        [Conversation::of(&stage, &[asha, ben]).await?, Conversation::of(&stage, &[asha, ben]).await?];
    for conversation in &mut conversations {
        conversation.message(&stage, asha).await?;
    }
    notifier.wait_for("sent", 8).await?;
    for conversation in &conversations {
        conversation.read(&stage, ben).await?;
    }
    let received = stage.all_received().await?;
    for platform in Platform::ALL {
        let silent = received.iter().filter(|received| received.platform == platform && !received.is_alert);
        let mut read: Vec<_> = silent.map(|received| (received.conversation_id.clone(), received.read_seq)).collect();
        read.sort_unstable();
        let mut expected: Vec<_> =
            conversations.iter().map(|it| (Some(it.id.as_uuid().to_string()), Some(1))).collect();
        expected.sort_unstable();
        if platform == Platform::WebPush {
            expected.clear();
        }
        assert_eq!(read, expected, "{platform:?}");
    }
    notifier.stop().await
}

#[tokio::test]
async fn text_is_shown_if_that_is_wanted_and_it_can_be_opened() -> Result<()> {
    let stage = Stage::set().await?;
    let day = stage.content_key().await?;
    let notifier = stage.notifier_with(&[("CHAT_NOTIFICATION_CONTENT", "text")]).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.text(&stage, asha, day, "नमस्ते, Ben").await?;
    notifier.wait_for("sent", 1).await?;
    conversation.message(&stage, asha).await?;
    notifier.wait_for("sent", 2).await?;
    let bodies: Vec<_> = stage.all_received().await?.into_iter().map(|received| received.body).collect();
    assert_eq!(bodies[0].as_deref(), Some("नमस्ते, Ben"));
    assert_eq!(bodies[1].as_deref().unwrap_or_default(), "", "it is notified all the same");
    assert!(notifier.said().contains("its notification shows no text"));
    notifier.stop().await
}
