//! Without Redis live chat goes on, and what was missed enters the inboxes when it is back.

use std::collections::BTreeSet;

use anyhow::Result;
use chat_dev::wait;
use chat_shared::inbox::Routed;

use crate::{
    installation::{DEADLINE, Installation, Private},
    people::{Conversation, Gateway, inbox},
};

#[tokio::test]
async fn while_redis_hangs_events_go_to_all_gateways_once_and_enter_the_inboxes_later() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let (user_id, registration) = gateway.user(&installation).await?;
    let mut conversation = Conversation::of(&[user_id]);
    conversation.append(&installation.log, &[]).await?;
    gateway.numbered().await?;

    servers.redis.pause()?;
    let mut unnumbered = Vec::new();
    for round in 1..=10 {
        conversation.append(&installation.log, &[]).await?;
        while unnumbered.len() < round {
            unnumbered.extend(gateway.unnumbered().await?.iter().map(|event| event.seq.0));
        }
    }
    assert_eq!(unnumbered, (2..=11).collect::<Vec<_>>(), "each once");
    assert!(notifier.is_ready().await, "live delivery works");

    servers.redis.resume()?;
    let mut numbered = BTreeSet::new();
    while numbered.len() < 10 {
        numbered.extend(gateway.numbered().await?.iter().map(|got| got.event.seq.0));
    }
    let found: BTreeSet<_> = inbox(&installation, user_id, &registration).await?.into_iter().collect();
    assert_eq!(found, (1..=11).collect());
    assert_eq!(notifier.count("chat_notifier_unnumbered_total").await?, 10);
    assert!(notifier.count("chat_notifier_redis_failures_total").await? < 3, "one found out for all");
    notifier.stop().await
}

#[tokio::test]
async fn a_notifier_starts_and_delivers_without_redis_and_finds_it_when_it_comes() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    servers.redis.stop().await?;
    let _notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let mut conversation = Conversation::of(&[chat_shared::ids::UserId::random()]);
    conversation.append(&installation.log, &[]).await?;
    assert_eq!(gateway.unnumbered().await?.len(), 1);

    servers.redis.start().await?;
    let user = wait::until("Redis is found", DEADLINE, async || Ok(gateway.user(&installation).await.ok()));
    let (user_id, _) = user.await?;
    let mut conversation = Conversation::of(&[user_id]);
    conversation.append(&installation.log, &[]).await?;
    // It may go out unnumbered first, if the notifier has not found Redis yet.
    assert_eq!(gateway.numbered().await?[0].event.conversation_id, conversation.id);
    Ok(())
}

#[tokio::test]
async fn a_flushed_redis_disturbs_nobody_who_connects_again() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    for _ in 0..3 {
        let (user_id, registration) = gateway.user(&installation).await?;
        let mut conversation = Conversation::of(&[user_id]);
        conversation.append(&installation.log, &[]).await?;
        let got = gateway.numbered().await?;
        assert_eq!(got[0].event.conversation_id, conversation.id);
        assert_eq!(inbox(&installation, user_id, &registration).await?, [1]);
        let mut connection = redis::Client::open(servers.redis.url())?.get_multiplexed_async_connection().await?;
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await?;
        let routed = installation
            .inboxes
            .route(&[chat_shared::inbox::Routing { user_id, event: b"", delivered: None, lsn: None }])
            .await?;
        assert_eq!(routed, [Routed::NoInbox]);
    }
    assert_eq!(notifier.count("chat_notifier_redis_failures_total").await?, 0);
    Ok(())
}

#[tokio::test]
async fn while_redis_is_full_events_go_to_all_gateways_and_enter_the_inboxes_when_there_is_room() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let (user_id, registration) = gateway.user(&installation).await?;
    let mut conversation = Conversation::of(&[user_id]);
    let mut connection = redis::Client::open(servers.redis.url())?.get_multiplexed_async_connection().await?;
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory");
    let () = limit.clone().arg(1).query_async(&mut connection).await?;
    conversation.append(&installation.log, &[]).await?;
    assert_eq!(gateway.unnumbered().await?.len(), 1);
    wait::until("a word about it", DEADLINE, async || Ok(notifier.said().contains("Redis is full").then_some(())))
        .await?;
    let () = limit.clone().arg("256mb").query_async(&mut connection).await?;
    assert_eq!(gateway.numbered().await?.len(), 1);
    assert_eq!(inbox(&installation, user_id, &registration).await?, [1]);
    notifier.stop().await
}
