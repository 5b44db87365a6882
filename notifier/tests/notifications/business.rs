//! Customers of a business and its agents are notified.

use anyhow::Result;
use chat_dev::push_services::Received;
use chat_shared::{ids::UserId, wire::Platform};
use time::{Duration, OffsetDateTime};

use crate::{
    people::{Conversation, Gateway},
    stage::Stage,
};

/// The sender that a notification names, wherever its platform has that.
fn sender_id(received: &Received) -> Option<&str> {
    let payload = &received.payload;
    let fields = if received.platform == Platform::Fcm { &payload["data"] } else { payload };
    fields["sender_id"].as_str()
}

#[tokio::test]
async fn no_notification_of_a_customer_names_an_agent_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let day = stage.content_key().await?;
    let notifier = stage.notifier_with(&[("CHAT_NOTIFICATION_CONTENT", "text")]).await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (customer, agent) = (UserId::random(), UserId::random());
    for platform in Platform::ALL {
        stage.device(customer, platform, None).await?;
    }
    let (mut conversation, business_id) = Conversation::business(&stage, customer).await?;
    conversation.assign(&stage, agent).await?;
    conversation.text(&stage, agent, day, "What can I do for you?").await?;
    notifier.wait_for("sent", 4).await?;
    // The next one is pushed to a session, which ends.
    let (held, _) = gateway.connect(&stage, customer, None).await?;
    conversation.text(&stage, agent, day, "Are you there?").await?;
    gateway.numbered().await?;
    gateway.end(&stage, held).await?;
    notifier.wait_for("sent", 8).await?;

    let received = stage.all_received().await?;
    assert_eq!(received.len(), 8, "the assignment is none of them");
    for (received, text) in received.iter().zip(["What can I do for you?", "Are you there?"].into_iter().cycle()) {
        assert_eq!(sender_id(received), Some(&*business_id.as_uuid().to_string()), "{:?}", received.platform);
        assert!(!received.payload.to_string().contains(&agent.as_uuid().to_string()));
        assert_eq!(received.body.as_deref(), Some(text), "it is opened with the id of the agent");
    }
    notifier.stop().await
}

#[tokio::test]
async fn an_agent_is_notified_once_of_a_case_with_what_was_written_before_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (customer, agent) = (UserId::random(), UserId::random());
    for platform in Platform::ALL {
        stage.device(agent, platform, None).await?;
    }
    let (mut conversation, _) = Conversation::business(&stage, customer).await?;
    conversation.message(&stage, customer).await?;
    conversation.message(&stage, customer).await?;
    conversation.assign(&stage, agent).await?;
    notifier.wait_for("sent", 4).await?;

    stage.forget_what_was_routed().await?;
    let restarted = stage.notifier().await?;
    stage.repeat(&conversation.assigned(agent, customer)).await?;
    let received = stage.all_received().await?;
    assert_eq!(received.len(), 4, "each device once, however often it is routed");
    for received in &received {
        assert!(received.is_alert);
        assert_eq!(received.title.as_deref(), Some("New message"));
        assert_eq!(received.conversation_id, Some(conversation.id.as_uuid().to_string()));
        assert_eq!((received.message_id.as_ref(), received.seq, received.badge), (None, Some(2), Some(2)));
        assert_eq!(sender_id(received), Some(&*customer.as_uuid().to_string()));
    }
    let message_id = conversation.message(&stage, customer).await?.as_uuid().to_string();
    let received = stage.all_received().await?;
    let of_message = received.iter().filter(|received| received.message_id.as_ref() == Some(&message_id));
    assert_eq!((received.len(), of_message.count()), (8, 4), "later messages are notified by themselves");
    notifier.stop().await?;
    restarted.stop().await
}

#[tokio::test]
async fn an_agent_is_notified_of_a_case_only_if_it_calls_for_that_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let customer = UserId::random();
    let mut agents = Vec::new();
    for _ in 0..4 {
        let agent = UserId::random();
        stage.device(agent, Platform::Fcm, None).await?;
        agents.push(agent);
    }
    let mut conversations = Vec::new();
    for agent in &agents {
        let (mut conversation, _) = Conversation::business(&stage, customer).await?;
        conversation.message(&stage, customer).await?;
        conversation.assign(&stage, *agent).await?;
        conversations.push(conversation);
    }
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    conversations[0].store_read(&stage, agents[0]).await?;
    conversations[1].mute(&stage, agents[1], now + Duration::HOUR).await?;
    conversations[2].remove(&stage, agents[2]).await?;
    let (mut without_messages, _) = Conversation::business(&stage, customer).await?;
    without_messages.assign(&stage, agents[3]).await?;

    let notifier = stage.notifier().await?;
    for (outcome, count) in [("read", 1), ("muted", 1), ("left", 1), ("sent", 2)] {
        notifier.wait_for(outcome, count).await?;
    }
    let mut seqs: Vec<_> = stage.all_received().await?.into_iter().map(|received| received.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [Some(0), Some(1)], "also a customer who has written nothing yet waits");
    notifier.stop().await
}

#[tokio::test]
async fn a_case_that_a_session_of_the_agent_left_unconfirmed_is_notified_once_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (customer, agent) = (UserId::random(), UserId::random());
    stage.device(agent, Platform::Fcm, None).await?;
    let (held, _) = gateway.connect(&stage, agent, None).await?;
    let (mut conversation, _) = Conversation::business(&stage, customer).await?;
    conversation.message(&stage, customer).await?;
    conversation.assign(&stage, agent).await?;
    gateway.numbered().await?;
    assert_eq!(stage.all_received().await?.len(), 0);
    gateway.end(&stage, held).await?;
    let received = stage.all_received().await?;
    assert_eq!((received.len(), received[0].seq, received[0].message_id.as_ref()), (1, Some(1), None));
    notifier.stop().await
}
