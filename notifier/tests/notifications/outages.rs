//! Servers that are away: nothing is lost, and live delivery doesn't mind.

use anyhow::Result;
use chat_dev::wait;
use chat_shared::{ids::UserId, wire::Platform};

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
