//! What is known of deliveries and notifications, against a real Redis: told once, only forward, and never guessed.

use std::time::Duration;

use anyhow::Result;
use chat_dev::test_servers::{TestServers, unique_namespace};
use chat_shared::{
    clock::{Clock, Timestamp},
    ids::{BusinessId, ConversationId, DeviceId, GatewayId, MessageId, SessionId, UserId},
    inbox::{Claim, Ended, Inboxes, Notice, Occasion, Page, Routed, Routing, Session, Standing, Unconfirmed},
    jobs::ReadUpTo,
    limits,
    position::{Cursor, Seq},
};

async fn inboxes() -> Result<Inboxes> {
    Ok(inboxes_and_namespace().await?.0)
}

async fn inboxes_and_namespace() -> Result<(Inboxes, String)> {
    let namespace = unique_namespace();
    Ok((Inboxes::connect(&TestServers::from_env()?.redis_url, &namespace).await?, namespace))
}

fn session() -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() }
}

async fn route_delivery(inboxes: &Inboxes, user_id: UserId, conversation: ConversationId, seq: u64) -> Result<Routed> {
    let routing = Routing { user_id, event: b"delivery", delivered: Some((conversation, Seq(seq))), lsn: None };
    Ok(inboxes.route(&[routing]).await?.remove(0))
}

#[tokio::test]
async fn deliveries_only_go_forward_r8_5() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, one, other) = (UserId::random(), ConversationId::random(), ConversationId::random());
    assert_eq!(route_delivery(&inboxes, user_id, one, 7).await?, Routed::NoInbox);
    assert_eq!(inboxes.delivered(user_id, &[one]).await?, [None], "nothing is kept of users without an inbox");
    let epoch = inboxes.register(user_id, session(), None).await?.epoch;
    for (conversation, seq, is_news) in
        [(one, 3, true), (one, 3, false), (other, 1, true), (one, 2, false), (one, 10, true), (one, 9, false)]
    {
        let routed = route_delivery(&inboxes, user_id, conversation, seq).await?;
        assert_eq!(matches!(routed, Routed::At { .. }), is_news, "{seq}");
    }
    let asked = [other, ConversationId::random(), one];
    assert_eq!(inboxes.delivered(user_id, &asked).await?, [Some(Seq(1)), None, Some(Seq(10))]);
    assert!(inboxes.delivered(user_id, &[]).await?.is_empty());
    let Page::Entries(entries) = inboxes.read(user_id, epoch, Cursor(0), 10).await? else { panic!("lost") };
    assert_eq!(entries.len(), 3, "one for each that was news");
    Ok(())
}

#[tokio::test]
async fn a_message_moves_no_delivery() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, conversation_id) = (UserId::random(), ConversationId::random());
    inboxes.register(user_id, session(), None).await?;
    inboxes.route(&[Routing { user_id, event: b"message", delivered: None, lsn: None }]).await?;
    assert_eq!(inboxes.delivered(user_id, &[conversation_id]).await?, [None]);
    Ok(())
}

#[tokio::test]
async fn that_there_are_no_devices_counts_only_while_nothing_else_is_known() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    let may_notify = async || {
        let routed =
            inboxes.route(&[Routing { user_id, event: b"message", delivered: None, lsn: None }]).await?.remove(0);
        let Routed::At { may_notify, .. } = routed else { anyhow::bail!("the inbox is gone") };
        anyhow::Ok(may_notify)
    };
    inboxes.note_devices(user_id, false).await?;
    inboxes.register(user_id, session(), None).await?;
    assert!(may_notify().await?, "there was nowhere to note it");
    inboxes.note_devices(user_id, false).await?;
    assert!(!may_notify().await?);
    inboxes.note_devices(user_id, true).await?;
    assert!(may_notify().await?);
    // A worker that had looked before the device was registered.
    inboxes.note_devices(user_id, false).await?;
    assert!(may_notify().await?);
    Ok(())
}

fn notice(device_id: DeviceId, message_id: MessageId) -> Notice {
    let sent_at = Clock::System.now();
    Notice { user_id: UserId::random(), device_id, occasion: Occasion::Message(message_id), sent_at }
}

fn another() -> Occasion {
    Occasion::Message(MessageId::random())
}

#[tokio::test]
async fn a_notification_is_claimed_once_for_each_device() -> Result<()> {
    let inboxes = inboxes().await?;
    let phone = notice(DeviceId::random(), MessageId::random());
    let tablet = Notice { device_id: DeviceId::random(), ..phone };
    assert_eq!(inboxes.claim(phone).await?, Claim::Taken);
    assert_eq!(inboxes.claim(phone).await?, Claim::Unknown, "the first claimant may have sent it");
    assert_eq!(inboxes.claim(tablet).await?, Claim::Taken);
    assert_eq!(inboxes.claim(Notice { occasion: another(), ..phone }).await?, Claim::Taken);
    assert_eq!(inboxes.claim(Notice { user_id: UserId::random(), ..phone }).await?, Claim::Taken);

    inboxes.give_claim_back(phone).await?;
    assert_eq!(inboxes.claim(phone).await?, Claim::Taken, "it surely was not sent");
    for _ in 0..2 {
        inboxes.conclude_claim(phone).await?;
        assert_eq!(inboxes.claim(phone).await?, Claim::Sent);
    }
    assert_eq!(inboxes.claim(tablet).await?, Claim::Unknown, "the other device's is its own");
    Ok(())
}

#[tokio::test]
async fn each_assignment_of_a_conversation_is_claimed_once() -> Result<()> {
    let inboxes = inboxes().await?;
    let conversation_id = ConversationId::random();
    let first = notice(DeviceId::random(), MessageId::random());
    let of = |version| Notice { occasion: Occasion::Assignment { conversation_id, version }, ..first };
    assert_eq!(inboxes.claim(of(2)).await?, Claim::Taken);
    assert_eq!(inboxes.claim(of(3)).await?, Claim::Taken, "another assignment is its own");
    inboxes.conclude_claim(of(2)).await?;
    assert_eq!(inboxes.claim(of(2)).await?, Claim::Sent);
    assert_eq!(inboxes.claim(of(3)).await?, Claim::Unknown);
    inboxes.give_claim_back(of(3)).await?;
    assert_eq!(inboxes.claim(of(3)).await?, Claim::Taken);
    // A client chooses the ids of its messages.
    let same_id = conversation_id.as_uuid().try_into()?;
    assert_eq!(inboxes.claim(Notice { occasion: Occasion::Message(same_id), ..first }).await?, Claim::Taken);
    Ok(())
}

#[tokio::test]
async fn customers_that_wait_are_claimed_once_in_ten_minutes_for_each_device_and_business() -> Result<()> {
    let inboxes = inboxes().await?;
    let business_id = BusinessId::random();
    let occasion = Occasion::Waiting(business_id);
    let now = Notice { occasion, ..notice(DeviceId::random(), MessageId::random()) };
    let before = |seconds: u64| Notice { sent_at: now.sent_at.before(Duration::from_secs(seconds)), ..now };
    assert_eq!(inboxes.claim(before(300)).await?, Claim::Taken);
    inboxes.conclude_claim(before(300)).await?;
    assert_eq!(inboxes.claim(now).await?, Claim::Sent, "five minutes later");
    assert_eq!(inboxes.claim(Notice { device_id: DeviceId::random(), ..now }).await?, Claim::Taken);
    let other = Occasion::Waiting(BusinessId::random());
    assert_eq!(inboxes.claim(Notice { occasion: other, ..now }).await?, Claim::Taken);
    inboxes.conclude_claim(before(601)).await?;
    assert_eq!(inboxes.claim(now).await?, Claim::Taken, "more than ten minutes later");
    let same_id = business_id.as_uuid().try_into()?;
    assert_eq!(inboxes.claim(Notice { occasion: Occasion::Message(same_id), ..now }).await?, Claim::Taken);
    Ok(())
}

#[tokio::test]
async fn a_claim_outlives_every_job_of_its_message() -> Result<()> {
    let (inboxes, namespace) = inboxes_and_namespace().await?;
    let newest = notice(DeviceId::random(), MessageId::random());
    let key = format!("{namespace}:{{{}}}:notified", newest.user_id.as_uuid().simple());
    let mut connection =
        redis::Client::open(TestServers::from_env()?.redis_url)?.get_multiplexed_async_connection().await?;
    inboxes.claim(newest).await?;
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await?;
    let day = i64::try_from(limits::NOTIFICATION_TTL.as_millis())?;
    assert!(left > day, "{left} ms");

    // An older message's claim ends earlier, and does not shorten the others.
    let older = Notice { occasion: another(), sent_at: Timestamp(newest.sent_at.0 - day / 2), ..newest };
    inboxes.claim(older).await?;
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await?;
    assert!(left > day, "{left} ms");
    let expired = Notice { occasion: another(), sent_at: Timestamp(newest.sent_at.0 - 2 * day), ..newest };
    inboxes.claim(expired).await?;
    inboxes.conclude_claim(expired).await?;
    inboxes.claim(newest).await?;
    let kept: Vec<Vec<u8>> = redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(&mut connection).await?;
    assert_eq!(kept.len(), 2, "of the message that is too old nothing is left");
    assert_eq!(inboxes.claim(older).await?, Claim::Unknown);
    Ok(())
}

#[tokio::test]
async fn claims_of_a_user_are_bounded() -> Result<()> {
    let (inboxes, namespace) = inboxes_and_namespace().await?;
    let first = notice(DeviceId::random(), MessageId::random());
    let bound = limits::INBOX_ENTRIES_MAX * limits::NOTIFICATION_DEVICES_MAX;
    let nth = |n: usize| Notice {
        occasion: another(),
        sent_at: Timestamp(first.sent_at.0 + i64::try_from(n).unwrap_or(i64::MAX)),
        ..first
    };
    inboxes.claim(first).await?;
    for part in (1..=bound).collect::<Vec<_>>().chunks(256) {
        futures_util::future::try_join_all(part.iter().map(|n| inboxes.claim(nth(*n)))).await?;
    }
    let key = format!("{namespace}:{{{}}}:notified", first.user_id.as_uuid().simple());
    let mut connection =
        redis::Client::open(TestServers::from_env()?.redis_url)?.get_multiplexed_async_connection().await?;
    let kept: usize = redis::cmd("ZCARD").arg(&key).query_async(&mut connection).await?;
    assert_eq!(kept, bound);
    assert_eq!(inboxes.claim(first).await?, Claim::Taken, "the oldest made room");
    Ok(())
}

#[tokio::test]
async fn of_many_who_claim_at_once_one_sends() -> Result<()> {
    let inboxes = inboxes().await?;
    let notice = notice(DeviceId::random(), MessageId::random());
    let claims = futures_util::future::try_join_all((0..50).map(|_| inboxes.claim(notice))).await?;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Taken).count(), 1);
    assert!(claims.iter().all(|claim| *claim != Claim::Sent));
    Ok(())
}

#[tokio::test]
async fn a_users_standing_is_what_any_device_confirmed_and_since_when_all_are_away() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone, laptop) = (UserId::random(), session(), session());
    let nobody = inboxes.standing(user_id).await?;
    assert_eq!(nobody, Standing { now: nobody.now, ..Standing::default() });
    let epoch = inboxes.register(user_id, phone, None).await?.epoch;
    inboxes.register(user_id, laptop, None).await?;
    inboxes.route(&[Routing { user_id, event: b"message", delivered: None, lsn: None }; 5]).await?;
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(4)).await?;
    inboxes.confirm(user_id, epoch, phone.device_id, Cursor(2)).await?;
    let here = inboxes.standing(user_id).await?;
    assert_eq!((here.epoch, here.confirmed, here.last_seen_at), (Some(epoch), Some(Cursor(4)), None));
    inboxes.unregister(user_id, Ended::Session(phone.session_id)).await?;
    assert_eq!(inboxes.standing(user_id).await?.last_seen_at, None, "the laptop is there");
    let gone = inboxes.unregister(user_id, Ended::Session(laptop.session_id)).await?;
    let away = inboxes.standing(user_id).await?;
    assert_eq!(away.last_seen_at, Some(gone.now));
    assert!(away.now >= gone.now && gone.now >= here.now);
    assert_eq!(away.confirmed, Some(Cursor(4)));
    inboxes.register(user_id, phone, None).await?;
    assert_eq!(inboxes.standing(user_id).await?.last_seen_at, None, "and back");
    Ok(())
}

#[tokio::test]
async fn the_badge_is_what_was_told_last() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    assert_eq!(inboxes.badge(user_id).await?, None);
    for badge in [3, 120, 0] {
        inboxes.note_badge(user_id, badge).await?;
        assert_eq!(inboxes.badge(user_id).await?, Some(badge));
    }
    let other = UserId::random();
    inboxes.note_badge(other, 7).await?;
    assert_eq!(inboxes.badges(&[other, UserId::random(), user_id]).await?, [Some(7), None, Some(0)]);
    assert!(inboxes.badges(&[]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn how_far_a_user_has_read_is_known_of_128_conversations_and_only_goes_forward_r5_2() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, one, other) = (UserId::random(), ConversationId::random(), ConversationId::random());
    let up_to = |conversation_id, seq| ReadUpTo { conversation_id, read_seq: Seq(seq) };
    for (read, known) in [(3, 3), (2, 3), (10, 10), (9, 10)] {
        assert_eq!(inboxes.note_read(user_id, up_to(one, read)).await?, [up_to(one, known)]);
    }
    let both = inboxes.note_read(user_id, up_to(other, 1)).await?;
    assert!(both.len() == 2 && both.contains(&up_to(one, 10)) && both.contains(&up_to(other, 1)));
    assert_eq!(inboxes.note_read(UserId::random(), up_to(one, 1)).await?, [up_to(one, 1)], "each user's own");
    for _ in 0..126 {
        inboxes.note_read(user_id, up_to(ConversationId::random(), 1)).await?;
    }
    assert_eq!(inboxes.note_read(user_id, up_to(other, 2)).await?.len(), 128);
    let last = up_to(ConversationId::random(), 1);
    assert_eq!(inboxes.note_read(user_id, last).await?, [last], "one too many");
    Ok(())
}

#[tokio::test]
async fn of_each_conversation_the_message_that_was_notified_last_is_known_until_it_was_read() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, one, other) = (UserId::random(), ConversationId::random(), ConversationId::random());
    assert_eq!(inboxes.shown(user_id, one).await?, None);
    for (conversation_id, seq) in [(one, 1), (one, 2), (other, 7)] {
        inboxes.note_shown(user_id, conversation_id, Seq(seq)).await?;
    }
    assert_eq!(inboxes.shown(user_id, one).await?, Some(Seq(2)));
    inboxes.forget_shown(user_id, one).await?;
    assert_eq!(inboxes.shown(user_id, one).await?, None);
    assert_eq!(inboxes.shown(user_id, other).await?, Some(Seq(7)));
    for _ in 0..127 {
        inboxes.note_shown(user_id, ConversationId::random(), Seq(1)).await?;
    }
    assert_eq!(inboxes.shown(user_id, other).await?, Some(Seq(7)));
    inboxes.note_shown(user_id, one, Seq(3)).await?;
    assert_eq!(inboxes.shown(user_id, other).await?, None, "one too many");
    Ok(())
}

#[tokio::test]
async fn what_no_device_has_confirmed_is_told_of_many_users_at_once() -> Result<()> {
    let inboxes = inboxes().await?;
    let (behind, done, stranger) = (UserId::random(), UserId::random(), UserId::random());
    let mut epochs = Vec::new();
    for user_id in [behind, done] {
        let (phone, laptop) = (session(), session());
        let epoch = inboxes.register(user_id, phone, None).await?.epoch;
        inboxes.register(user_id, laptop, None).await?;
        inboxes.route(&[Routing { user_id, event: b"message", delivered: None, lsn: None }; 5]).await?;
        inboxes.confirm(user_id, epoch, phone.device_id, Cursor(1)).await?;
        let furthest = if user_id == done { 5 } else { 3 };
        inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(furthest)).await?;
        epochs.push(epoch);
    }
    let left = Unconfirmed { epoch: epochs[0], after: Cursor(3), up_to: Cursor(5) };
    assert_eq!(inboxes.unconfirmed(&[done, behind, stranger]).await?, [None, Some(left), None]);
    assert!(inboxes.unconfirmed(&[]).await?.is_empty());
    Ok(())
}
