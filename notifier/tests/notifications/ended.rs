//! Sessions that end with pushes unconfirmed.

use anyhow::Result;
use chat_shared::{ids::UserId, position::Cursor, wire::Platform};

use crate::{
    people::{Conversation, Gateway},
    stage::Stage,
};

#[tokio::test]
async fn what_a_session_left_unconfirmed_is_notified_once() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let (held, registration) = gateway.connect(&stage, ben, None).await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(conversation.message(&stage, asha).await?.as_uuid().to_string());
        gateway.numbered().await?;
    }
    conversation.message(&stage, ben).await?;
    gateway.numbered().await?;
    let device_id = held.session.device_id;
    assert!(stage.inboxes.confirm(ben, registration.epoch, device_id, Cursor(1)).await?);
    gateway.end(&stage, held).await?;
    let received = stage.all_received().await?;
    let told: Vec<_> = received.into_iter().filter_map(|received| received.message_id).collect();
    assert_eq!(told.len(), 2, "the first is confirmed, the last is their own");
    assert!(told.iter().all(|message_id| sent[1..].contains(message_id)));
    // The next session ends before the device has confirmed anything, with one more message.
    let (held, registration) = gateway.connect(&stage, ben, None).await?;
    assert!(!registration.is_resumed);
    sent.push(conversation.message(&stage, asha).await?.as_uuid().to_string());
    gateway.numbered().await?;
    gateway.end(&stage, held).await?;
    let received = stage.all_received().await?;
    assert_eq!((received.len(), received[2].message_id.as_ref()), (3, sent.last()), "each once");
    notifier.stop().await
}

#[tokio::test]
async fn of_what_no_longer_fits_the_inbox_all_that_is_left_is_notified() -> Result<()> {
    let stage = Stage::set().await?;
    let mut gateway = Gateway::open(&stage).await?;
    let (asha, ben) = (UserId::random(), UserId::random());
    stage.device(ben, Platform::Fcm, None).await?;
    let (held, _) = gateway.connect(&stage, ben, None).await?;
    let notifier = stage.notifier().await?;
    let mut conversation = Conversation::of(&stage, &[asha, ben]).await?;
    let mut sent = Vec::new();
    for _ in 0..=chat_shared::limits::INBOX_ENTRIES_MAX {
        sent.push(conversation.message(&stage, asha).await?.as_uuid().to_string());
    }
    gateway.numbered().await?;
    stage.settled().await?;
    gateway.end(&stage, held).await?;
    let received = stage.all_received().await?;
    let mut told: Vec<_> = received.into_iter().filter_map(|received| received.message_id).collect();
    let mut left = sent.split_off(1);
    told.sort_unstable();
    left.sort_unstable();
    assert_eq!(told, left, "but for the first, which was crowded out, each once");
    notifier.stop().await
}
