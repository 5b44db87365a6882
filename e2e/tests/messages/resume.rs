//! Promise 4: a resume is complete or says so.

use anyhow::{Context, Result};
use chat_client::ClientOptions;
use chat_e2e::{Socket, TestFleet, database, on_shared_fleet, said};
use chat_shared::{
    ids::{DeviceId, Epoch},
    limits::{INBOX_ENTRIES_MAX, TEXT_BYTES_MAX},
    position::Cursor,
    wire::{Encoding, Resume},
};
use tokio::task::JoinSet;

/// The numbers and cursors of the next messages.
async fn pushed(socket: &mut Socket, count: usize) -> Result<Vec<(u64, u64)>> {
    let mut pushed = Vec::new();
    while pushed.len() < count {
        let frame = socket.frame_where(|frame| frame["type"] == "message").await?;
        let seq = frame["message"]["seq"].as_u64().context("a message has a number")?;
        pushed.push((seq, frame["cursor"].as_u64().context("a message has its place in the inbox")?));
    }
    Ok(pushed)
}

#[test]
fn promise_4_a_resume_at_the_other_gateway_brings_exactly_what_was_missed() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let device_id = DeviceId::random();
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = socket.hello(device_id, None).await?;
        let epoch = ready.epoch.context("Redis is there, so there is an inbox")?;
        let api = fleet.api(&asha, 0);
        for number in 1..=5 {
            api.say(conversation_id, &said(number)).await?;
        }
        let before = pushed(&mut socket, 5).await?;
        drop(socket);
        for number in 6..=12 {
            api.say(conversation_id, &said(number)).await?;
        }
        // Seen up to the third only: what was pushed and not taken in counts as missed.
        let cursor = before[2].1;
        for gateway in [1, 0] {
            let mut socket = fleet.socket(&bikram, gateway, Encoding::MessagePack).await?;
            let ready = socket.hello(device_id, Some(Resume { epoch, cursor: Cursor(cursor) })).await?;
            assert_eq!((ready.epoch, ready.resumed), (Some(epoch), true));
            let expected: Vec<_> = (4..=12).zip(cursor + 1..).collect();
            assert_eq!(pushed(&mut socket, 9).await?, expected);
        }
        let mut socket = fleet.socket(&bikram, 1, Encoding::Json).await?;
        let ready = socket.hello(device_id, Some(Resume { epoch, cursor: Cursor(cursor + 9) })).await?;
        assert_eq!((ready.resumed, ready.cursor), (true, Cursor(cursor + 9)), "nothing was missed");
        api.say(conversation_id, &said(13)).await?;
        assert_eq!(pushed(&mut socket, 1).await?, [(13, cursor + 10)]);
        Ok(())
    })
}

#[test]
fn promise_4_texts_that_grow_when_written_as_json_do_not_end_a_resume() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let device_id = DeviceId::random();
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = socket.hello(device_id, None).await?;
        let resume = Resume { epoch: ready.epoch.context("there is an inbox")?, cursor: ready.cursor };
        drop(socket);
        // JSON writes each of these characters as six, so that a page of them is more than an outbox holds.
        let text = "\u{1}".repeat(TEXT_BYTES_MAX);
        let api = fleet.api(&asha, 0);
        for _ in 0..16 {
            api.say(conversation_id, &text).await?;
        }
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        assert!(socket.hello(device_id, Some(resume)).await?.resumed);
        let seqs: Vec<_> = pushed(&mut socket, 16).await?.into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(seqs, (1..=16).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn promise_4_a_position_that_is_not_the_inboxs_is_told_so() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut first = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let epoch = first.hello(DeviceId::random(), None).await?.epoch.context("there is an inbox")?;
        fleet.api(&asha, 0).say(conversation_id, &said("one")).await?;
        let head = pushed(&mut first, 1).await?[0].1;
        let resume = async |epoch, cursor| {
            let mut socket = fleet.socket(&bikram, 1, Encoding::Json).await?;
            socket.hello(DeviceId::random(), Some(Resume { epoch, cursor: Cursor(cursor) })).await
        };
        for cursor in [head, 0] {
            let ready = resume(Epoch::random(), cursor).await?;
            assert!(!ready.resumed, "cursor {cursor} with head {head}");
            assert_eq!(
                (ready.epoch, ready.cursor),
                (Some(epoch), Cursor(head)),
                "live pushes go on from the inbox' end"
            );
        }
        // A cursor above the head shows that the inbox has lost entries: it is made anew.
        let ready = resume(epoch, head + 1).await?;
        assert!(!ready.resumed && ready.epoch != Some(epoch));
        assert_eq!(ready.cursor, Cursor(0));
        let ready = resume(epoch, u64::MAX >> 12).await?;
        assert!(!ready.resumed);
        Ok(())
    })
}

#[test]
fn promise_4_more_missed_than_an_inbox_holds_is_told_so_and_filled_from_history() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let conversation_id = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let options = fleet.options(&bikram, 0);
        let mut away = TestFleet::connect_with(options.clone()).await?;
        fleet.api(&asha, 0).say(conversation_id, &said("before")).await?;
        away.expect([1]).await?;
        let position = away.client.close().await;
        let inbox = position.inbox.context("a client that was connected knows its place")?;

        // Another device of theirs stays, so it can be seen when everything stands in the inbox. It begins after what
        // the list shows, which is what has been stored.
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 1).await?;
        let mut stays = fleet.connect(&bikram, 1).await?;
        let missed = u64::try_from(INBOX_ENTRIES_MAX)? + 44;
        let mut senders = JoinSet::new();
        for (api, share) in [(fleet.api(&asha, 0), missed / 2), (fleet.api(&chandra, 1), missed - missed / 2)] {
            senders.spawn(async move {
                for number in 0..share {
                    api.say(conversation_id, &said(number)).await?;
                }
                anyhow::Ok(())
            });
        }
        senders.join_all().await.into_iter().collect::<Result<()>>()?;
        stays.expect(2..=missed + 1).await?;

        let mut socket = fleet.socket(&bikram, 1, Encoding::Json).await?;
        assert!(!socket.hello(DeviceId::random(), Some(inbox)).await?.resumed);
        drop(socket);
        let back = ClientOptions { resume_from: Some(position), ..options };
        let mut back = TestFleet::connect_with(back).await?;
        back.reloaded().await?;
        back.expect(2..=missed + 1).await?;
        Ok(())
    })
}
