//! Instances take over from each other, and nothing is lost on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use async_nats::jetstream;
use chat_dev::wait;
use chat_shared::ids::ConversationId;
use futures_util::TryStreamExt;

use crate::{
    installation::{DEADLINE, Installation, Private},
    people::{Conversation, Gateway},
};

/// Conversations that each write their next event when the last one has arrived.
struct Chatter {
    conversations: BTreeMap<ConversationId, Conversation>,
    repeats: usize,
    silence_max: Duration,
}

impl Chatter {
    async fn start(installation: &Installation, gateway: &Gateway, count: usize) -> Result<Self> {
        let mut conversations = BTreeMap::new();
        for _ in 0..count {
            let members = [gateway.user(installation).await?.0, gateway.user(installation).await?.0];
            let mut conversation = Conversation::of(&members);
            conversation.append(&installation.log, &[]).await?;
            conversations.insert(conversation.id, conversation);
        }
        Ok(Self { conversations, repeats: 0, silence_max: Duration::ZERO })
    }

    /// Goes on until another `count` events have arrived, and one of each conversation. A conversation waits for its
    /// event before it writes the next, so one that was lost would be waited for in vain.
    async fn go_on(&mut self, installation: &Installation, gateway: &mut Gateway, count: usize) -> Result<()> {
        let mut arrived = 0;
        let mut silent: BTreeSet<_> = self.conversations.keys().copied().collect();
        let mut last = Instant::now();
        while arrived < count || !silent.is_empty() {
            for got in gateway.numbered().await? {
                let Some(conversation) = self.conversations.get_mut(&got.event.conversation_id) else { continue };
                if got.event.seq.0 < conversation.seq {
                    self.repeats += 1;
                    continue;
                }
                assert_eq!((got.event.seq.0, got.recipients.len()), (conversation.seq, 2));
                conversation.append(&installation.log, &[]).await?;
                arrived += 1;
                silent.remove(&conversation.id);
                self.silence_max = self.silence_max.max(last.elapsed());
                last = Instant::now();
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_lost_when_one_of_two_instances_stops() -> Result<()> {
    let installation = Installation::shared().await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let first = installation.notifier("first").await?;
    let mut chatter = Chatter::start(&installation, &gateway, 40).await?;
    chatter.go_on(&installation, &mut gateway, 200).await?;
    let second = installation.notifier("second").await?;
    chatter.go_on(&installation, &mut gateway, 200).await?;
    assert_eq!(second.count("chat_notifier_routed_total").await?, 0, "one instance at a time");
    let before = chatter.silence_max;
    first.stop().await?;
    chatter.go_on(&installation, &mut gateway, 400).await?;
    println!("stopped: silence {:?} (before {before:?}), repeats {}", chatter.silence_max, chatter.repeats);
    // Of those that arrived since, the first had one of each conversation on its way.
    assert!(second.count("chat_notifier_routed_total").await? >= 400 - 40);
    second.stop().await
}

#[tokio::test]
async fn nothing_is_lost_when_one_of_two_instances_is_killed() -> Result<()> {
    let installation = Installation::shared().await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let first = installation.notifier("first").await?;
    let mut chatter = Chatter::start(&installation, &gateway, 40).await?;
    chatter.go_on(&installation, &mut gateway, 200).await?;
    let second = installation.notifier("second").await?;
    first.kill().await?;
    chatter.go_on(&installation, &mut gateway, 400).await?;
    println!("killed: silence {:?}, repeats {}", chatter.silence_max, chatter.repeats);
    second.stop().await
}

#[tokio::test]
async fn nothing_is_lost_when_the_only_instance_is_killed_again_and_again() -> Result<()> {
    let installation = Installation::shared().await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let notifier = installation.notifier("only").await?;
    let mut chatter = Chatter::start(&installation, &gateway, 40).await?;
    for _ in 0..3 {
        chatter.go_on(&installation, &mut gateway, 100).await?;
        notifier.kill().await?;
        notifier.start().await?;
    }
    chatter.go_on(&installation, &mut gateway, 100).await?;
    println!("killed thrice: silence {:?}, repeats {}", chatter.silence_max, chatter.repeats);
    notifier.stop().await
}

#[tokio::test]
async fn a_batch_in_hand_is_delivered_by_the_next_instance_when_one_is_killed() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let first = installation.notifier("first").await?;
    let mut conversation = Conversation::of(&[gateway.user(&installation).await?.0]);
    conversation.append(&installation.log, &[]).await?;
    gateway.numbered().await?;

    // While Redis hangs, the batch stays in hand.
    servers.redis.pause()?;
    conversation.append(&installation.log, &[]).await?;
    let context = jetstream::new(installation.client.clone());
    let stream = context.get_stream(installation.log.name()).await?;
    wait::until("the batch to be read", DEADLINE, async || {
        let mut consumers = stream.consumers();
        let mut in_hand = 0;
        while let Some(info) = consumers.try_next().await? {
            in_hand += info.num_ack_pending;
        }
        Ok((in_hand == 1).then_some(()))
    })
    .await?;
    first.kill().await?;
    servers.redis.resume()?;
    let second = installation.notifier("second").await?;
    let killed = Instant::now();
    while gateway.numbered().await?.iter().all(|got| got.event.seq.0 != 2) {}
    println!("killed with a batch in hand: delivered after {:?}", killed.elapsed());
    second.stop().await
}

#[tokio::test]
async fn delivery_goes_on_after_nats_was_killed_and_restarted() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let notifier = installation.notifier("notifier").await?;
    let mut conversation = Conversation::of(&[gateway.user(&installation).await?.0]);
    conversation.append(&installation.log, &[]).await?;
    gateway.numbered().await?;
    servers.nats.kill().await?;
    wait::until("unreadiness", DEADLINE, async || Ok((!notifier.is_ready().await).then_some(()))).await?;
    servers.nats.start().await?;
    let started = Instant::now();
    wait::until("readiness", DEADLINE, async || Ok(notifier.is_ready().await.then_some(()))).await?;
    conversation.append(&installation.log, &[]).await?;
    while gateway.numbered().await?.iter().all(|got| got.event.seq.0 != 2) {}
    println!("NATS restarted: delivered after {:?}", started.elapsed());
    notifier.stop().await
}
