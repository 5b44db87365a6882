//! Servers that are away: nothing is lost, and live delivery doesn't mind.

use anyhow::Result;
use chat_dev::{push_services::Behaviour, wait};
use chat_shared::{ids::UserId, inbox::Page, position::Cursor, wire::Platform};

use crate::{
    people::{Conversation, Gateway},
    stage::{DEADLINE, Stage},
};

#[tokio::test]
async fn without_postgres_a_notifier_starts_and_delivers_and_notifies_when_it_is_there() -> Result<()> {
    let (stage, postgres) = Stage::with_own_postgres().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    gateway.connect(&stage, asha, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    postgres.stop().await?;
    let notifier = stage.notifier().await?;
    conversation.message(&stage, asha).await?;
    gateway.numbered().await?;
    wait::until("a word about it", DEADLINE, async || {
        Ok(notifier.said().contains("notifications wait for PostgreSQL").then_some(()))
    })
    .await?;
    postgres.start().await?;
    notifier.wait_for("sent", 1).await?;

    postgres.kill().await?;
    conversation.message(&stage, asha).await?;
    gateway.numbered().await?;
    wait::until("a job that rests", DEADLINE, async || {
        Ok((notifier.count("chat_notifier_job_retries_total").await? > 0).then_some(()))
    })
    .await?;
    postgres.start().await?;
    notifier.wait_for("sent", 2).await?;
    assert_eq!(stage.all_received().await?.len(), 2);
    notifier.stop().await?;
    postgres.stop().await
}

#[tokio::test]
async fn while_redis_hangs_notifications_wait_and_are_sent_once_when_it_answers() -> Result<()> {
    let (stage, redis) = Stage::with_own_redis().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    stage.device(ben, Platform::Webhook, None).await?;
    stage.services.behave(Platform::Fcm, Behaviour::Failing { status: 503, retry_after: None });
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    notifier.wait_for("sent", 1).await?;
    let retries = async || notifier.count("chat_notifier_job_retries_total").await;
    let before = retries().await?;

    redis.pause()?;
    stage.services.behave(Platform::Fcm, Behaviour::Normal);
    conversation.message(&stage, asha).await?;
    wait::until("a job that rests", DEADLINE, async || Ok((retries().await? > before + 1).then_some(()))).await?;
    assert_eq!(stage.services.received(Platform::Fcm).len(), 0, "nobody knows who has what");
    redis.resume()?;
    notifier.wait_for("sent", 4).await?;
    assert_eq!(stage.all_received().await?.len(), 4, "two messages by two");
    notifier.stop().await
}

#[tokio::test]
async fn an_unreachable_queue_repeats_no_message() -> Result<()> {
    const MESSAGES: usize = 5;
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let (_, registration) = gateway.connect(&stage, asha, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    stage.detach_the_queue().await?;
    for _ in 0..MESSAGES {
        conversation.message(&stage, asha).await?;
        gateway.numbered().await?;
    }
    stage.settled().await?;
    let held = async || notifier.count("chat_notifier_jobs_held").await;
    assert_eq!(held().await?, MESSAGES as u64);
    assert_eq!(notifier.count("chat_notifier_retries_total").await?, 0);
    let Page::Entries(entries) = stage.inboxes.read(asha, registration.epoch, Cursor(0), 1000).await? else {
        anyhow::bail!("the inbox is lost")
    };
    assert_eq!(entries.len(), MESSAGES, "each once");

    stage.delete_the_queue().await?;
    notifier.wait_for("sent", MESSAGES as u64).await?;
    assert_eq!(stage.all_received().await?.len(), MESSAGES);
    assert_eq!(held().await?, 0);
    assert_eq!(notifier.count("chat_notifier_jobs_dropped_total").await?, 0);
    notifier.stop().await
}

#[tokio::test]
async fn jobs_held_at_a_stop_are_counted_as_lost() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    stage.detach_the_queue().await?;
    conversation.message(&stage, asha).await?;
    stage.settled().await?;
    notifier.stop().await?;
    assert!(notifier.said().contains("the notifier ends before the queue of notifications is back"));
    Ok(())
}

#[tokio::test]
async fn a_deleted_queue_is_made_again() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    stage.delete_the_queue().await?;
    wait::until("the queue", DEADLINE, async || Ok(stage.jobs.waiting().await.ok())).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    Conversation::of(&stage, &[asha, ben]).await?.message(&stage, asha).await?;
    notifier.wait_for("sent", 1).await?;
    notifier.stop().await
}

#[tokio::test]
async fn a_full_queue_stops_nobodys_messages_and_what_it_drops_is_counted() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    gateway.connect(&stage, asha, None).await?;
    stage.fill_the_queue().await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    for _ in 0..2 {
        conversation.message(&stage, asha).await?;
        gateway.numbered().await?;
    }
    stage.settled().await?;
    assert_eq!(notifier.count("chat_notifier_jobs_dropped_total").await?, 2);
    assert_eq!(notifier.count("chat_notifier_retries_total").await?, 0);
    assert_eq!(notifier.said().matches("the queue of notifications is full").count(), 1, "not at every drop");
    notifier.stop().await
}

#[tokio::test]
async fn without_any_provider_nobody_is_notified_and_that_is_said() -> Result<()> {
    let stage = Stage::set().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    gateway.connect(&stage, asha, None).await?;
    let notifier = stage.notifier_without_providers().await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    conversation.message(&stage, asha).await?;
    gateway.numbered().await?;
    stage.settled().await?;
    assert_eq!(notifier.count("chat_notifier_jobs_added_total").await?, 0);
    assert!(notifier.said().contains("nobody is notified"));
    notifier.stop().await
}
