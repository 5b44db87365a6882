//! Inboxes and sessions against a real Redis: what a resume promises, and what is said when it can't be kept.

use anyhow::Result;
use chat_dev::test_servers::{TestServers, unique_namespace};
use chat_shared::{
    ids::{DeviceId, Epoch, GatewayId, SessionId, UserId},
    inbox::{Ended, Inboxes, Page, Registration, Replaced, Routed, Routing, Session},
    limits,
    position::{Cursor, Lsn},
    wire::Resume,
};

async fn inboxes() -> Result<Inboxes> {
    Ok(Inboxes::connect(&TestServers::from_env()?.redis_url, &unique_namespace()).await?)
}

fn session() -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() }
}

fn again(session: Session) -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), ..session }
}

fn at(registration: &Registration, cursor: u64) -> Resume {
    Resume { epoch: registration.epoch, cursor: Cursor(cursor) }
}

/// Routes events `first..=last`, named by their number, to one user.
async fn route(inboxes: &Inboxes, user_id: UserId, numbers: std::ops::RangeInclusive<u64>) -> Result<Vec<Routed>> {
    let events: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let routings: Vec<_> =
        events.iter().map(|event| Routing { user_id, event: event.as_bytes(), delivered: None, lsn: None }).collect();
    Ok(inboxes.route(&routings).await?)
}

/// The cursors after `cursor`, or none if they are lost. Checks that each entry is the event of its number.
async fn cursors(inboxes: &Inboxes, user_id: UserId, epoch: Epoch, cursor: u64) -> Result<Option<Vec<u64>>> {
    let page = inboxes.read(user_id, epoch, Cursor(cursor), 1000).await?;
    let Page::Entries(entries) = page else { return Ok(None) };
    for entry in &entries {
        assert_eq!(entry.event, entry.cursor.0.to_string().into_bytes());
    }
    Ok(Some(entries.iter().map(|entry| entry.cursor.0).collect()))
}

#[tokio::test]
async fn a_user_who_was_never_connected_has_no_inbox() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    assert_eq!(route(&inboxes, user_id, 1..=2).await?, [Routed::NoInbox, Routed::NoInbox]);
    let registered = inboxes.register(user_id, session(), None).await?;
    assert_eq!((registered.head, registered.cursor, registered.is_resumed), (Cursor(0), Cursor(0), false));
    Ok(())
}

#[tokio::test]
async fn a_broken_inbox_fails_no_others_and_can_be_reset() -> Result<()> {
    let namespace = unique_namespace();
    let url = TestServers::from_env()?.redis_url;
    let inboxes = Inboxes::connect(&url, &namespace).await?;
    let [broken, whole] = [(); 2].map(|()| UserId::random());
    let epoch = inboxes.register(broken, session(), None).await?.epoch;
    inboxes.register(whole, session(), None).await?;
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let entries = format!("{namespace}:{{{}}}:entries", broken.as_uuid().simple());
    redis::cmd("SET").arg(entries).arg("spoilt").exec_async(&mut connection).await?;
    let to = |user_id| Routing { user_id, event: b"event", delivered: None, lsn: None };
    let routed = inboxes.route(&[to(broken), to(whole), to(broken)]).await?;
    assert!(
        matches!(&routed[..], [Routed::Broken, Routed::At { cursor: Cursor(1), .. }, Routed::Broken]),
        "{routed:?}"
    );
    let error = inboxes.register(broken, session(), None).await.expect_err("its entries are no stream");
    assert!(error.is_of_user(), "{error}");

    inboxes.reset(broken).await?;
    assert_eq!(inboxes.route(&[to(broken)]).await?, [Routed::NoInbox]);
    assert_ne!(inboxes.register(broken, session(), None).await?.epoch, epoch);
    assert!(matches!(&inboxes.route(&[to(broken)]).await?[..], [Routed::At { cursor: Cursor(1), .. }]));
    Ok(())
}

#[tokio::test]
async fn routed_events_get_dense_cursors_and_name_each_gateway_once() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, other, first) = (UserId::random(), UserId::random(), session());
    let registered = inboxes.register(user_id, first, None).await?;
    inboxes.register(user_id, Session { gateway_id: first.gateway_id, ..session() }, None).await?;
    let elsewhere = session();
    inboxes.register(user_id, elsewhere, None).await?;
    let others = inboxes.register(other, session(), None).await?;
    assert_ne!(others.epoch, registered.epoch);

    let mut gateways = vec![first.gateway_id, elsewhere.gateway_id];
    gateways.sort_unstable();
    for (routed, cursor) in route(&inboxes, user_id, 1..=5).await?.into_iter().zip(1..) {
        let expected = Routed::At {
            epoch: registered.epoch,
            cursor: Cursor(cursor),
            gateways: gateways.clone(),
            may_notify: true,
        };
        assert_eq!(routed, expected);
    }
    assert_eq!(cursors(&inboxes, user_id, registered.epoch, 0).await?, Some(vec![1, 2, 3, 4, 5]));
    assert_eq!(cursors(&inboxes, user_id, registered.epoch, 3).await?, Some(vec![4, 5]));
    assert_eq!(cursors(&inboxes, user_id, registered.epoch, 5).await?, Some(vec![]));
    assert_eq!(inboxes.read(user_id, registered.epoch, Cursor(1), 2).await?, inboxes_page(&[2, 3]));
    assert_eq!(cursors(&inboxes, other, others.epoch, 0).await?, Some(vec![]));
    Ok(())
}

fn inboxes_page(numbers: &[u64]) -> Page {
    let entry = |number: &u64| chat_shared::inbox::InboxEntry {
        cursor: Cursor(*number),
        event: number.to_string().into_bytes(),
    };
    Page::Entries(numbers.iter().map(entry).collect())
}

#[tokio::test]
async fn an_inbox_is_bounded_by_bytes_too() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    let registered = inboxes.register(user_id, session(), None).await?;
    let large = vec![7; 8 * 1024];
    let fitting = limits::INBOX_BYTES_MAX / large.len();
    for _ in 0..fitting {
        inboxes.route(&[Routing { user_id, event: &large, delivered: None, lsn: None }; 3]).await?;
    }
    let head = 3 * fitting as u64;
    // The oldest one is beside the bound.
    let oldest = head - fitting as u64;
    let count = async |cursor| match inboxes.read(user_id, registered.epoch, Cursor(cursor), 1000).await? {
        Page::Entries(entries) => anyhow::Ok(Some(entries.len())),
        Page::Lost => Ok(None),
    };
    assert_eq!(count(oldest - 1).await?, Some(fitting + 1));
    assert_eq!(count(oldest - 2).await?, None, "they went, in order");
    assert!(inboxes.register(user_id, session(), Some(at(&registered, oldest - 1))).await?.is_resumed);
    assert!(!inboxes.register(user_id, session(), Some(at(&registered, oldest - 2))).await?.is_resumed);

    let device = session();
    inboxes.register(user_id, device, None).await?;
    let small = route(&inboxes, user_id, head + 1..=head + 300).await?;
    assert_eq!(small.len(), 300);
    let kept = limits::INBOX_ENTRIES_MAX as u64;
    assert_eq!(
        cursors(&inboxes, user_id, registered.epoch, head + 300 - kept).await?.map(|kept| kept.len() as u64),
        Some(kept)
    );
    Ok(())
}

#[tokio::test]
async fn an_event_of_any_bytes_comes_out_as_it_went_in() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    let registered = inboxes.register(user_id, session(), None).await?;
    let event: Vec<u8> = (0..=255).collect();
    inboxes
        .route(&[
            Routing { user_id, event: &event, delivered: None, lsn: None },
            Routing { user_id, event: b"", delivered: None, lsn: None },
        ])
        .await?;
    let Page::Entries(entries) = inboxes.read(user_id, registered.epoch, Cursor(0), 10).await? else {
        panic!("lost");
    };
    assert_eq!(entries.iter().map(|entry| &entry.event[..]).collect::<Vec<_>>(), [&event[..], b""]);
    Ok(())
}

#[tokio::test]
async fn a_device_resumes_where_it_was_on_another_gateway() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone) = (UserId::random(), session());
    let before = inboxes.register(user_id, phone, None).await?;
    route(&inboxes, user_id, 1..=3).await?;
    inboxes.unregister(user_id, Ended::Session(phone.session_id)).await?;
    let routed = route(&inboxes, user_id, 4..=7).await?;
    assert!(routed.iter().all(|routed| matches!(routed, Routed::At { gateways, .. } if gateways.is_empty())));

    let after = inboxes.register(user_id, again(phone), Some(at(&before, 3))).await?;
    assert_eq!((after.epoch, after.head, after.cursor), (before.epoch, Cursor(7), Cursor(3)));
    assert!(after.is_resumed && after.replaced.is_empty());
    assert_eq!(cursors(&inboxes, user_id, after.epoch, after.cursor.0).await?, Some(vec![4, 5, 6, 7]));
    Ok(())
}

#[tokio::test]
async fn a_resume_that_can_not_be_complete_says_so() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone) = (UserId::random(), session());
    let before = inboxes.register(user_id, phone, None).await?;
    route(&inboxes, user_id, 1..=3).await?;
    let wrong_epoch = Some(Resume { epoch: Epoch::random(), cursor: Cursor(2) });
    for impossible in [None, wrong_epoch] {
        let after = inboxes.register(user_id, again(phone), impossible).await?;
        assert_eq!((after.is_resumed, after.cursor), (false, Cursor(3)), "{impossible:?}");
    }
    for possible in 0..=3 {
        assert!(inboxes.register(user_id, again(phone), Some(at(&before, possible))).await?.is_resumed, "{possible}");
    }
    assert_eq!(inboxes.read(user_id, Epoch::random(), Cursor(2), 10).await?, Page::Lost);
    assert_eq!(inboxes.read(user_id, before.epoch, Cursor(4), 10).await?, Page::Lost);
    assert_eq!(inboxes.read(UserId::random(), before.epoch, Cursor(0), 10).await?, Page::Lost);
    Ok(())
}

#[tokio::test]
async fn a_full_inbox_drops_its_oldest_and_who_needed_them_is_told() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone) = (UserId::random(), session());
    let before = inboxes.register(user_id, phone, None).await?;
    let entries_max = limits::INBOX_ENTRIES_MAX as u64;
    route(&inboxes, user_id, 1..=entries_max + 2).await?;
    assert_eq!(inboxes.read(user_id, before.epoch, Cursor(1), 1000).await?, Page::Lost);
    let rest = cursors(&inboxes, user_id, before.epoch, 2).await?;
    assert_eq!(rest.map(|cursors| cursors.len()), Some(limits::INBOX_ENTRIES_MAX));
    assert!(!inboxes.register(user_id, again(phone), Some(at(&before, 1))).await?.is_resumed);
    assert!(inboxes.register(user_id, again(phone), Some(at(&before, 2))).await?.is_resumed);
    Ok(())
}

#[tokio::test]
async fn what_every_device_has_confirmed_is_dropped() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone, laptop) = (UserId::random(), session(), session());
    let registered = inboxes.register(user_id, phone, None).await?;
    inboxes.register(user_id, laptop, None).await?;
    let epoch = registered.epoch;
    route(&inboxes, user_id, 1..=6).await?;

    inboxes.confirm(user_id, epoch, phone.device_id, Cursor(5)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 0).await?, Some(vec![1, 2, 3, 4, 5, 6]), "the laptop needs them");
    inboxes.confirm(user_id, Epoch::random(), laptop.device_id, Cursor(5)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 0).await?, Some(vec![1, 2, 3, 4, 5, 6]), "another epoch's cursor");
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(3)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 0).await?, None);
    assert_eq!(cursors(&inboxes, user_id, epoch, 3).await?, Some(vec![4, 5, 6]));
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(1)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 3).await?, Some(vec![4, 5, 6]), "nothing goes back");

    assert!(!inboxes.register(user_id, again(laptop), Some(at(&registered, 2))).await?.is_resumed);
    assert!(inboxes.register(user_id, again(laptop), Some(at(&registered, 3))).await?.is_resumed);
    inboxes.confirm(user_id, epoch, phone.device_id, Cursor(6)).await?;
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(6)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 6).await?, Some(vec![]));
    assert!(inboxes.register(user_id, again(laptop), Some(at(&registered, 6))).await?.is_resumed);
    assert!(!inboxes.register(user_id, again(laptop), Some(at(&registered, 5))).await?.is_resumed);
    route(&inboxes, user_id, 7..=7).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 6).await?, Some(vec![7]));
    Ok(())
}

#[tokio::test]
async fn a_device_that_never_comes_back_does_not_keep_the_inbox_full() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone) = (UserId::random(), session());
    let lost = inboxes.register(user_id, session(), None).await?;
    let epoch = lost.epoch;
    inboxes.register(user_id, phone, None).await?;
    let head = limits::INBOX_ENTRIES_MAX as u64 + 1;
    route(&inboxes, user_id, 1..=head).await?;
    inboxes.confirm(user_id, epoch, phone.device_id, Cursor(head)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 1).await?, None);
    assert_eq!(cursors(&inboxes, user_id, epoch, head).await?, Some(vec![]));
    Ok(())
}

#[tokio::test]
async fn the_cursors_of_at_most_32_devices_are_kept() -> Result<()> {
    let inboxes = inboxes().await?;
    let user_id = UserId::random();
    let behind = session();
    let registered = inboxes.register(user_id, behind, None).await?;
    let epoch = registered.epoch;
    assert!(inboxes.register(user_id, behind, Some(at(&registered, 0))).await?.is_resumed);
    inboxes.unregister(user_id, Ended::Session(behind.session_id)).await?;
    route(&inboxes, user_id, 1..=3).await?;
    // The 33rd device takes the place of the one furthest behind, which then holds nothing back.
    let mut devices = Vec::new();
    for number in 0..32 {
        let device = session();
        let resume = Some(at(&registered, 3)).filter(|_| number % 2 == 0);
        assert_eq!(inboxes.register(user_id, device, resume).await?.is_resumed, resume.is_some());
        devices.push(device);
    }
    route(&inboxes, user_id, 4..=4).await?;
    for device in &devices {
        inboxes.confirm(user_id, epoch, device.device_id, Cursor(4)).await?;
    }
    assert_eq!(cursors(&inboxes, user_id, epoch, 3).await?, None);
    assert_eq!(cursors(&inboxes, user_id, epoch, 4).await?, Some(vec![]));
    // The one that lost its place counts again as soon as it confirms, and resumes.
    route(&inboxes, user_id, 5..=6).await?;
    inboxes.confirm(user_id, epoch, behind.device_id, Cursor(5)).await?;
    assert_eq!(inboxes.standing(user_id).await?.confirmed, Some(Cursor(5)));
    assert_eq!(cursors(&inboxes, user_id, epoch, 4).await?, Some(vec![5, 6]));
    assert!(inboxes.register(user_id, again(behind), Some(at(&registered, 5))).await?.is_resumed);
    Ok(())
}

#[tokio::test]
async fn promise_7_a_device_that_has_to_reload_confirms_nothing_by_connecting() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone, laptop) = (UserId::random(), session(), session());
    let confirmed = async || anyhow::Ok(inboxes.standing(user_id).await?.confirmed);
    let first = inboxes.register(user_id, phone, None).await?;
    assert_eq!(confirmed().await?, None);
    assert!(inboxes.confirm(user_id, first.epoch, phone.device_id, None).await?, "the inbox is kept, and no more");
    assert_eq!(confirmed().await?, None);
    assert!(inboxes.confirm(user_id, first.epoch, phone.device_id, Cursor(0)).await?);
    assert_eq!(confirmed().await?, Some(Cursor(0)), "it has loaded everything");

    route(&inboxes, user_id, 1..=3).await?;
    let newer = again(phone);
    assert_eq!(inboxes.register(user_id, newer, None).await?.cursor, Cursor(3));
    assert_eq!(confirmed().await?, Some(Cursor(0)));
    assert!(inboxes.register_again(user_id, newer, Some(at(&first, 3)), false).await?.is_resumed);
    assert_eq!(confirmed().await?, Some(Cursor(0)), "nor by being registered again");

    inboxes.register(user_id, laptop, Some(at(&first, 2))).await?;
    assert_eq!(confirmed().await?, Some(Cursor(2)), "a resume confirms");
    Ok(())
}

#[tokio::test]
async fn entries_stay_for_a_device_that_has_yet_to_confirm_while_its_session_lasts() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone, laptop) = (UserId::random(), session(), session());
    let epoch = inboxes.register(user_id, phone, None).await?.epoch;
    inboxes.register(user_id, laptop, None).await?;
    route(&inboxes, user_id, 1..=2).await?;
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(1)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 0).await?, Some(vec![1, 2]));
    inboxes.unregister(user_id, Ended::Session(phone.session_id)).await?;
    inboxes.confirm(user_id, epoch, laptop.device_id, Cursor(2)).await?;
    assert_eq!(cursors(&inboxes, user_id, epoch, 0).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_device_that_connects_again_replaces_its_older_session_only() -> Result<()> {
    let inboxes = inboxes().await?;
    let (user_id, phone, laptop) = (UserId::random(), session(), session());
    inboxes.register(user_id, phone, None).await?;
    inboxes.register(user_id, laptop, None).await?;
    let newer = again(phone);
    let registered = inboxes.register(user_id, newer, None).await?;
    assert_eq!(registered.replaced, [Replaced { session_id: phone.session_id, gateway_id: phone.gateway_id }]);
    // The older connection's end must not end the newer session.
    inboxes.unregister(user_id, Ended::Session(phone.session_id)).await?;
    let mut gateways = vec![newer.gateway_id, laptop.gateway_id];
    gateways.sort_unstable();
    let routed = route(&inboxes, user_id, 1..=1).await?;
    assert!(matches!(&routed[..], [Routed::At { gateways: found, .. }] if *found == gateways), "{routed:?}");
    Ok(())
}

#[tokio::test]
async fn r12_1_a_pushed_change_and_an_own_one_raise_the_minimum_lsn_of_a_user() -> Result<()> {
    let inboxes = inboxes().await?;
    let [pushed, other, business] = [UserId::random(), UserId::random(), UserId::random()].map(UserId::as_uuid);
    let user_id = UserId::try_from(pushed)?;
    let change = |lsn| Routing { user_id, event: b"event", delivered: None, lsn: Some(Lsn(lsn)) };
    // Also without an inbox: the user may list conversations before connecting.
    assert_eq!(inboxes.route(&[change(0xfff)]).await?, [Routed::NoInbox]);
    assert_eq!(inboxes.lsn_min(&[pushed]).await?, Some(Lsn(0xfff)));
    inboxes.register(user_id, session(), None).await?;
    let message = Routing { user_id, event: b"event", delivered: None, lsn: None };
    inboxes.route(&[change(0x1000), change(9), message]).await?;
    assert_eq!(inboxes.lsn_min(&[pushed]).await?, Some(Lsn(0x1000)), "the highest stays");
    assert_eq!(inboxes.lsn_min(&[other]).await?, None);
    inboxes.raise_lsn_min(&[business, pushed], Lsn(0x1001)).await?;
    inboxes.raise_lsn_min(&[pushed], Lsn(7)).await?;
    assert_eq!(inboxes.lsn_min(&[other, pushed]).await?, Some(Lsn(0x1001)));
    inboxes.raise_lsn_min(&[business], Lsn(u64::MAX)).await?;
    assert_eq!(
        inboxes.lsn_min(&[pushed, business]).await?,
        Some(Lsn(u64::MAX)),
        "the highest of all that are asked for"
    );
    Ok(())
}
