//! Events reach inboxes and gateways.

use std::collections::BTreeSet;

use anyhow::Result;
use async_nats::jetstream;
use chat_dev::wait;
use chat_shared::{delivery::Delivery, ids::UserId, log::Slot, position::Cursor};

use crate::{
    installation::{DEADLINE, Installation},
    people::{Conversation, Gateway, inbox},
};

#[tokio::test]
async fn an_event_reaches_the_inbox_and_the_gateway_of_everyone_concerned_and_nobody_else() -> Result<()> {
    let installation = Installation::shared().await?;
    let notifier = installation.notifier("notifier").await?;
    let (mut here, mut there) = (Gateway::listen(&installation).await?, Gateway::listen(&installation).await?);
    let (anna, annas) = here.user(&installation).await?;
    let (binod, _) = here.user(&installation).await?;
    let (chandra, chandras) = there.user(&installation).await?;
    let (stranger, strangers) = there.user(&installation).await?;
    let never_connected = UserId::random();

    let mut conversation = Conversation::of(&[anna, binod, never_connected]);
    conversation.append(&installation.log, &[chandra]).await?;
    let events = here.numbered().await?;
    assert_eq!(events.len(), 1, "one message for both users of the gateway");
    let users: BTreeSet<_> = events[0].recipients.iter().map(|recipient| recipient.user_id).collect();
    assert_eq!(users, BTreeSet::from([anna, binod]));
    assert!(events[0].recipients.iter().all(|recipient| recipient.cursor == Cursor(1)));
    assert!(events[0].recipients.iter().any(|recipient| recipient.epoch == annas.epoch));
    let events = there.numbered().await?;
    assert_eq!(events[0].recipients.iter().map(|recipient| recipient.user_id).collect::<Vec<_>>(), [chandra]);

    for _ in 0..20 {
        conversation.append(&installation.log, &[]).await?;
    }
    let mut cursors = vec![1];
    while cursors.len() < 21 {
        for got in here.numbered().await? {
            let annas = got.recipients.iter().find(|recipient| recipient.user_id == anna);
            cursors.extend(annas.map(|recipient| recipient.cursor.0));
            assert_eq!(Some(got.event.seq.0), cursors.last().copied());
        }
    }
    assert_eq!(cursors, (1..=21).collect::<Vec<_>>());
    assert_eq!(inbox(&installation, anna, &annas).await?, (1..=21).collect::<Vec<_>>());
    assert_eq!(inbox(&installation, chandra, &chandras).await?, [1]);
    assert_eq!(inbox(&installation, stranger, &strangers).await?, Vec::<u64>::new());
    assert_eq!(notifier.count("chat_notifier_routed_total").await?, 21);
    assert_eq!(notifier.count("chat_notifier_retries_total").await?, 0);
    notifier.stop().await
}

#[tokio::test]
async fn beacons_go_to_all_gateways() -> Result<()> {
    let installation = Installation::shared().await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let _notifier = installation.notifier("notifier").await?;
    for _ in 0..2 {
        assert_eq!(gateway.next().await?, Delivery::Beacon);
    }
    Ok(())
}

#[tokio::test]
async fn an_entry_that_is_no_event_does_not_block_the_others() -> Result<()> {
    let installation = Installation::shared().await?;
    let notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let (user_id, registration) = gateway.user(&installation).await?;
    let mut conversation = Conversation::of(&[user_id]);
    let subject = installation.log.subject(conversation.id);
    // Another conversation of the same slot, so that the first one's numbers are not disturbed.
    installation.client.publish(subject.replace(".message.", ".message.x"), "nonsense".into()).await?;
    conversation.append(&installation.log, &[]).await?;
    assert_eq!(gateway.numbered().await?.len(), 1);
    assert_eq!(inbox(&installation, user_id, &registration).await?, [1]);
    wait::until("the count", DEADLINE, async || {
        Ok((notifier.count("chat_notifier_unreadable_total").await? > 0).then_some(()))
    })
    .await?;
    assert!(notifier.said().contains("an entry of the log is delivered to nobody"));
    Ok(())
}

#[tokio::test]
async fn an_event_on_a_subject_that_is_not_its_own_reaches_no_inbox_r6_4() -> Result<()> {
    let installation = Installation::shared().await?;
    let notifier = installation.notifier("notifier").await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let (user_id, registration) = gateway.user(&installation).await?;
    let mut conversation = Conversation::of(&[user_id]);
    let facts = format!("{}.{}.fact", installation.namespace, Slot::of(conversation.id));
    for subject in [format!("{}.gateway.fact", installation.namespace), facts] {
        let forged = conversation.next(&[]).encode();
        jetstream::new(installation.client.clone()).publish(subject, forged.into()).await?.await?;
    }
    conversation.append(&installation.log, &[]).await?;
    assert_eq!(gateway.numbered().await?.len(), 1);
    assert_eq!(inbox(&installation, user_id, &registration).await?, [3]);
    assert_eq!(
        notifier.count("chat_notifier_unreadable_total").await?,
        1,
        "the other one is in nobody's part of the log"
    );
    Ok(())
}

#[tokio::test]
async fn what_was_accepted_while_no_notifier_ran_is_delivered_when_one_starts() -> Result<()> {
    let installation = Installation::shared().await?;
    let mut gateway = Gateway::listen(&installation).await?;
    let (user_id, registration) = gateway.user(&installation).await?;
    let mut conversation = Conversation::of(&[user_id]);
    for _ in 0..150 {
        conversation.append(&installation.log, &[]).await?;
    }
    let notifier = installation.notifier("notifier").await?;
    let mut seqs = Vec::new();
    while seqs.len() < 150 {
        seqs.extend(gateway.numbered().await?.iter().map(|got| got.event.seq.0));
    }
    assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
    assert_eq!(inbox(&installation, user_id, &registration).await?, seqs);
    notifier.stop().await
}
