//! How far the others have got: one tick, two, and two coloured.

use anyhow::{Context, Result, ensure};
use chat_client::ClientOptions;
use chat_e2e::{
    Answer, Person, Socket, TestFleet, database, eventually, on_shared_fleet, realtime::mark_read, said,
    socket::send_message,
};
use chat_shared::{
    ids::{ConversationId, DeviceId, MessageId},
    position::{Cursor, Seq},
    wire::{Encoding, Receipt, ReceiptKind, Resume},
};
use serde_json::json;

/// Sends so many messages; their ids.
async fn send(
    fleet: &TestFleet,
    sender: &Person,
    conversation_id: ConversationId,
    count: u64,
) -> Result<Vec<MessageId>> {
    let mut ids = Vec::new();
    for number in 1..=count {
        ids.push(fleet.api(sender, 0).say(conversation_id, &said(number)).await?.message_id);
    }
    Ok(ids)
}

/// What the database has of a participant.
async fn stored(fleet: &TestFleet, person: &Person, conversation_id: ConversationId) -> Result<(i64, bool)> {
    let url = &fleet.urls().postgres;
    let of = format!("conversation_id = '{}' and user_id = '{}'", conversation_id.as_uuid(), person.id.as_uuid());
    let read_seq = database::count(url, &format!("select read_seq from participants where {of}")).await?;
    let matching = format!(
        "select count(*) from participants p join messages m on m.message_id = p.last_read_message_id
         and m.conversation_id = p.conversation_id and m.seq = p.read_seq where p.{}",
        of.replace(" and ", " and p.")
    );
    Ok((read_seq, database::count(url, &matching).await? == 1))
}

async fn wait_until_stored(
    fleet: &TestFleet,
    person: &Person,
    conversation_id: ConversationId,
    read_seq: i64,
) -> Result<()> {
    eventually(&format!("reading up to {read_seq} to be stored, with its message"), || async {
        Ok((stored(fleet, person, conversation_id).await? == (read_seq, true)).then_some(()))
    })
    .await
}

fn brief(receipt: &Receipt) -> (ReceiptKind, u64) {
    (receipt.kind, receipt.seq.0)
}

#[test]
fn r8_5_reading_is_stored_and_told_to_the_others_and_to_ones_own_devices() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let ids = send(fleet, &asha, group, 3).await?;
        let mut phone = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        let mut tablet = fleet.ready_socket(&bikram, 1, Encoding::MessagePack).await?;
        let mut others = [
            fleet.ready_socket(&asha, 1, Encoding::Json).await?,
            fleet.ready_socket(&chandra, 0, Encoding::Json).await?,
        ];
        phone.mark_read(group, ids[1]).await?;
        for (socket, unread) in others.iter_mut().map(|other| (other, None)).chain([(&mut tablet, Some(1))]) {
            let receipt = socket.receipt().await?;
            assert_eq!((receipt.conversation_id, receipt.user_id), (group, bikram.id));
            assert_eq!((brief(&receipt), receipt.message_id), ((ReceiptKind::Read, 2), Some(ids[1])));
            assert_eq!(receipt.unread, unread, "only the reader learns what is left");
        }
        wait_until_stored(fleet, &bikram, group, 2).await?;
        let own = fleet.api(&bikram, 1).listed(group).await?;
        assert_eq!((own.read_seq, own.last_read_message_id, own.unread), (Seq(2), Some(ids[1]), 1));
        let seen = fleet.api(&asha, 1).listed(group).await?;
        let progress = seen.progress.iter().find(|progress| progress.user_id == bikram.id).context("he takes part")?;
        assert_eq!((progress.read_seq, progress.last_read_message_id), (Seq(2), Some(ids[1])));
        assert_eq!((progress.delivered_seq, seen.progress.len()), (None, 2), "a group, without oneself");
        Ok(())
    })
}

#[test]
fn r8_5_reading_goes_only_forward() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let ids = send(fleet, &asha, conversation_id, 4).await?;
        let mut sender = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let mut sockets = [
            fleet.ready_socket(&bikram, 0, Encoding::Json).await?,
            fleet.ready_socket(&bikram, 1, Encoding::Json).await?,
        ];
        sockets[0].mark_read(conversation_id, ids[2]).await?;
        for socket in &mut sockets {
            for behind in [0, 2, 1] {
                socket.mark_read(conversation_id, ids[behind]).await?;
            }
        }
        assert_eq!(fleet.api(&bikram, 1).mark_read(conversation_id, ids[0]).await?.status, 204);
        wait_until_stored(fleet, &bikram, conversation_id, 3).await?;
        assert_eq!(fleet.api(&bikram, 1).mark_read(conversation_id, ids[3]).await?.status, 204);
        let mut told = Vec::new();
        while told.last() != Some(&4) {
            told.push(sender.receipt().await?.seq.0);
        }
        ensure!(told.is_sorted() && told[0] == 3, "nothing behind is told: {told:?}");
        wait_until_stored(fleet, &bikram, conversation_id, 4).await
    })
}

#[test]
fn r8_5_a_user_who_sends_has_read_what_the_device_had_shown() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        // A message that waited for a connection, and one written when all before it were on the screen.
        for (number, encoding, late) in [(0, Encoding::Json, true), (1, Encoding::MessagePack, false)] {
            let mut receiver = fleet.ready_socket(&asha, 1 - number, encoding).await?;
            let mut sender = fleet.ready_socket(&bikram, number, encoding).await?;
            send(fleet, &asha, conversation_id, 3).await?;
            let last = fleet.api(&asha, 0).history(conversation_id, "limit=1").await?.last_seq;
            let (seen, read) = if late { (Seq(last.0 - 2), Seq(last.0 - 2)) } else { (last, last.next()) };
            let mut command = send_message(conversation_id, MessageId::random(), &said("yes"));
            command["seen_seq"] = json!(seen);
            assert_eq!(sender.ask(command).await?["type"], "accepted");
            let push = receiver.frame_where(|frame| frame["message"]["seq"] == json!(last.next())).await?;
            assert_eq!(push["seen_seq"], json!(seen));
            let url = &fleet.urls().postgres;
            database::wait_until_read(url, bikram.id, conversation_id, read.0.cast_signed()).await?;
            database::wait_until_stored(url, conversation_id, last.0 + 1).await?;
            let progress = fleet.api(&asha, 0).listed(conversation_id).await?.progress[0];
            let unread = fleet.api(&bikram, 0).listed(conversation_id).await?.unread;
            assert_eq!((progress.read_seq, unread), (read, if late { 2 } else { 0 }));
        }
        Ok(())
    })
}

#[test]
fn r8_5_what_is_not_in_the_conversation_or_not_ones_own_cannot_be_marked() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let here = fleet.direct(&asha, &bikram).await?;
        let elsewhere = fleet.group(&asha, &[&bikram]).await?;
        let (ids, others) = (send(fleet, &asha, here, 2).await?, send(fleet, &asha, elsewhere, 1).await?);
        let mut watching = fleet.ready_socket(&asha, 1, Encoding::Json).await?;
        let cases = [
            (&bikram, here, others[0], "another conversation's"),
            (&bikram, here, MessageId::random(), "nobody's"),
            (&bikram, ConversationId::random(), ids[0], "of no conversation"),
            (&stranger, here, ids[0], "a stranger's mark"),
            (&stranger, elsewhere, others[0], "a stranger's mark in a group"),
        ];
        for gateway in [0, 1] {
            for (person, conversation_id, message_id, what) in cases {
                let mut socket = fleet.ready_socket(person, gateway, Encoding::Json).await?;
                assert_eq!(socket.ask(mark_read(conversation_id, message_id)).await?["code"], "not_found", "{what}");
                let answer: Answer = fleet.api(person, gateway).mark_read(conversation_id, message_id).await?;
                assert_eq!(answer.code(), "404 not_found", "{what}");
            }
        }
        let mut socket = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        for wrong in [
            json!({ "type": "mark_read", "conversation_id": here }),
            json!({ "type": "mark_read", "conversation_id": here, "message_id": 7 }),
        ] {
            assert_eq!(socket.ask(wrong).await?["code"], "invalid");
        }
        socket.mark_read(here, ids[1]).await?;
        let receipt = watching.receipt().await?;
        assert_eq!(
            (receipt.conversation_id, brief(&receipt)),
            (here, (ReceiptKind::Read, 2)),
            "the first that is told"
        );
        Ok(())
    })
}

#[test]
fn r8_5_a_burst_of_marks_becomes_few_receipts() -> Result<()> {
    const MESSAGES: u64 = 40;
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let ids = send(fleet, &asha, conversation_id, MESSAGES).await?;
        let mut sender = fleet.ready_socket(&asha, 1, Encoding::Json).await?;
        let mut reader = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        for (reference, message_id) in (1000..).zip(&ids) {
            let mut command = mark_read(conversation_id, *message_id);
            command["ref"] = json!(reference);
            reader.command(&command).await?;
        }
        let mut done = 0;
        while done < MESSAGES {
            done += u64::from(reader.frame().await?["type"] == "done");
        }
        let mut told = vec![sender.receipt().await?.seq.0];
        while told.last() != Some(&MESSAGES) {
            told.push(sender.receipt().await?.seq.0);
        }
        ensure!(told.is_sorted_by(|before, after| before < after), "only forward: {told:?}");
        ensure!(told.len() < ids.len() / 2, "merged before they were told: {told:?}");
        Ok(())
    })
}

#[test]
fn r8_6_a_direct_message_is_accepted_then_delivered_then_read() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (mut phone, mut tablet) = (fleet.connect(&asha, 0).await?, fleet.connect(&asha, 1).await?);
        let first = phone.say(conversation_id, &said("one tick")).await?;
        let before = fleet.api(&asha, 0).listed(conversation_id).await?;
        ensure!(before.progress.iter().all(|progress| progress.delivered_seq.is_none_or(|seq| seq == Seq(0))));

        let mut other = fleet.connect(&bikram, 1).await?;
        let second = phone.say(conversation_id, &said("two ticks")).await?;
        while other.message().await?.seq != second.seq {}
        for sender in [&mut phone, &mut tablet] {
            let receipt = sender.receipt().await?;
            assert_eq!((receipt.user_id, brief(&receipt)), (bikram.id, (ReceiptKind::Delivered, 2)));
            assert_eq!((receipt.message_id, receipt.unread), (None, None));
        }
        for gateway in [0, 1] {
            let listed = fleet.api(&asha, gateway).listed(conversation_id).await?;
            assert_eq!(listed.progress[0].delivered_seq, Some(Seq(2)));
        }
        other.client.mark_read(conversation_id, first.message_id).await?;
        other.client.mark_read(conversation_id, second.message_id).await?;
        for sender in [&mut phone, &mut tablet] {
            let mut receipt = sender.receipt().await?;
            while brief(&receipt) != (ReceiptKind::Read, 2) {
                assert_eq!(brief(&receipt), (ReceiptKind::Read, 1));
                receipt = sender.receipt().await?;
            }
            assert_eq!(receipt.message_id, Some(second.message_id));
        }
        Ok(())
    })
}

#[test]
fn r8_6_in_groups_nothing_is_told_of_delivery() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        let (mut sender, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        let direct = fleet.direct(&asha, &bikram).await?;
        sender.say(group, &said("all")).await?;
        sender.say(direct, &said("you")).await?;
        for _both in 0..2 {
            other.message().await?;
        }
        let receipt = sender.receipt().await?;
        assert_eq!((receipt.conversation_id, brief(&receipt)), (direct, (ReceiptKind::Delivered, 1)));
        Ok(())
    })
}

/// Reads messages until one has this number; its cursor.
async fn message(socket: &mut Socket, seq: u64) -> Result<Cursor> {
    let frame = socket.frame_where(|frame| frame["message"]["seq"] == seq).await?;
    Ok(Cursor(frame["cursor"].as_u64().context("there is an inbox")?))
}

#[test]
fn r8_6_what_came_before_the_connection_broke_and_is_confirmed_by_the_resume_is_delivered() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut sender = fleet.connect(&asha, 0).await?;
        let device_id = DeviceId::random();
        let mut phone = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let epoch = phone.hello(device_id, None).await?.epoch.context("there is an inbox")?;
        sender.say(conversation_id, &said("one")).await?;
        let cursor = message(&mut phone, 1).await?;
        drop(phone);
        // Nobody has confirmed it yet: what is missed comes first, and the confirmation of both.
        sender.say(conversation_id, &said("two")).await?;
        let mut phone = fleet.socket(&bikram, 1, Encoding::Json).await?;
        assert!(phone.hello(device_id, Some(Resume { epoch, cursor })).await?.resumed);
        let cursor = message(&mut phone, 2).await?;
        phone.command(&json!({ "type": "confirm", "cursor": cursor })).await?;
        loop {
            let receipt = sender.receipt().await?;
            assert_eq!((receipt.user_id, receipt.kind), (bikram.id, ReceiptKind::Delivered));
            if receipt.seq == Seq(2) {
                return Ok(());
            }
        }
    })
}

#[test]
fn r8_6_receipts_that_came_while_one_was_away_come_with_the_resume() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let options = ClientOptions { device_id: DeviceId::random(), ..fleet.options(&asha, 0) };
        let mut away = TestFleet::connect_with(options.clone()).await?;
        let sent = away.say(conversation_id, &said("are you there?")).await?;
        away.expect([1]).await?;
        let position = away.client.close().await;
        ensure!(position.inbox.is_some(), "a client that was connected knows its place");

        let mut other = fleet.connect(&bikram, 1).await?;
        let mut control = fleet.connect(&asha, 1).await?;
        fleet.api(&asha, 0).say(conversation_id, &said("hello?")).await?;
        while other.message().await?.seq != Seq(2) {}
        assert_eq!(brief(&control.receipt().await?), (ReceiptKind::Delivered, 2));
        other.client.mark_read(conversation_id, sent.message_id).await?;
        assert_eq!(brief(&control.receipt().await?), (ReceiptKind::Read, 1));

        let gateways = fleet.options(&asha, 1).gateways;
        let back = ClientOptions { resume_from: Some(position), gateways, ..options };
        let mut back = TestFleet::connect_with(back).await?;
        assert!(back.connected().await?, "it resumes");
        let mut told = [brief(&back.receipt().await?), brief(&back.receipt().await?)];
        told.sort_by_key(|(_, seq)| *seq);
        assert_eq!(told, [(ReceiptKind::Read, 1), (ReceiptKind::Delivered, 2)]);
        Ok(())
    })
}

#[test]
fn r8_5_a_client_marks_many_at_once_and_the_furthest_counts() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut reader = fleet.connect(&bikram, 1).await?;
        send(fleet, &asha, conversation_id, 10).await?;
        let mut marks = tokio::task::JoinSet::new();
        for message in reader.expect(1..=10).await? {
            let client = reader.client.clone();
            marks.spawn(async move { client.mark_read(conversation_id, message.message_id).await });
        }
        for marked in marks.join_all().await {
            marked?;
        }
        reader.unread_total(0).await?;
        wait_until_stored(fleet, &bikram, conversation_id, 10).await
    })
}
