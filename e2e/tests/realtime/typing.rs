//! Who writes, as the others see it while it lasts.

use anyhow::{Result, ensure};
use chat_e2e::{on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    wire::{Encoding, Typing},
};
use serde_json::json;

const fn typing(conversation_id: ConversationId, user_id: UserId, is_typing: bool) -> Typing {
    Typing { conversation_id, user_id, is_typing }
}

#[test]
fn r8_3_typing_reaches_the_others_at_both_gateways_and_nobody_else() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra, stranger] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram, &chandra]).await?;
        let theirs = fleet.direct(&asha, &stranger).await?;
        let mut phone = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let mut own_tablet = fleet.ready_socket(&asha, 1, Encoding::Json).await?;
        let mut outside = fleet.ready_socket(&stranger, 1, Encoding::Json).await?;
        let mut others = [
            fleet.ready_socket(&bikram, 0, Encoding::Json).await?,
            fleet.ready_socket(&bikram, 1, Encoding::MessagePack).await?,
            fleet.ready_socket(&chandra, 1, Encoding::Json).await?,
        ];
        assert_eq!(phone.set_typing(group, true).await?["type"], "done");
        for socket in &mut others {
            assert_eq!(socket.typing().await?, typing(group, asha.id, true));
        }
        assert_eq!(phone.set_typing(group, false).await?["type"], "done");
        for socket in &mut others {
            assert_eq!(socket.typing().await?, typing(group, asha.id, false));
        }
        // What the typist's own devices and outsiders hear first is something else.
        assert_eq!(others[0].set_typing(group, true).await?["type"], "done");
        for own in [&mut phone, &mut own_tablet] {
            assert_eq!(own.typing().await?, typing(group, bikram.id, true));
        }
        assert_eq!(phone.set_typing(theirs, true).await?["type"], "done");
        assert_eq!(outside.typing().await?, typing(theirs, asha.id, true));
        Ok(())
    })
}

#[test]
fn r8_4_typing_ends_by_itself_even_if_the_typist_is_gone() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut near = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        let mut far = fleet.connect(&bikram, 1).await?;
        let mut phone = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        assert_eq!(phone.set_typing(conversation_id, true).await?["type"], "done");
        drop(phone);
        for is_typing in [true, false] {
            assert_eq!(near.typing().await?, typing(conversation_id, asha.id, is_typing));
            assert_eq!(far.typing().await?, typing(conversation_id, asha.id, is_typing));
        }
        Ok(())
    })
}

#[test]
fn r8_4_typing_is_ended_by_the_message() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut other = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
        let mut phone = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        for round in 1..=2 {
            assert_eq!(phone.set_typing(conversation_id, true).await?["type"], "done");
            assert_eq!(other.typing().await?, typing(conversation_id, asha.id, true), "round {round}");
            phone.send(conversation_id, MessageId::random(), &said(round)).await?;
            // The end comes with the message, which is long before it would come by itself: next to each other.
            let is_news = |frame: &serde_json::Value| frame["type"] == "typing" || frame["type"] == "message";
            let mut news = [other.frame_where(is_news).await?, other.frame_where(is_news).await?];
            news.sort_by_key(|frame| frame["type"].as_str().map(str::to_owned));
            assert_eq!(news[0]["message"]["seq"], round);
            assert!(!serde_json::from_value::<Typing>(news[1]["typing"].take())?.is_typing);
        }
        Ok(())
    })
}

#[test]
fn r8_3_a_client_tells_and_is_told_with_every_key() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (writer, mut reader) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        for _key in 0..40 {
            writer.client.set_typing(conversation_id, true);
        }
        assert_eq!(reader.typing().await?, typing(conversation_id, asha.id, true));
        writer.say(conversation_id, &said("done")).await?;
        assert_eq!(reader.typing().await?, typing(conversation_id, asha.id, false));
        reader.expect([1]).await?;
        Ok(())
    })
}

#[test]
fn r8_3_who_says_it_too_often_is_told_so_and_can_still_send() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut phone = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        let mut codes = Vec::new();
        for number in 0..60 {
            let reply = phone.set_typing(conversation_id, number % 2 == 0).await?;
            if reply["type"] == "rejected" {
                ensure!(reply["retry_after_ms"].is_u64(), "it says when to try again: {reply}");
                codes.push(reply["code"].as_str().unwrap_or_default().to_owned());
            }
        }
        ensure!(!codes.is_empty() && codes.iter().all(|code| code == "rate_limited"), "60 at once: {codes:?}");
        ensure!(codes.len() < 60, "the first are let through");
        assert_eq!(phone.send(conversation_id, MessageId::random(), &said("hello")).await?["type"], "accepted");
        Ok(())
    })
}

#[test]
fn r8_3_typing_where_one_takes_no_part_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut inside = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
        let mut outside = fleet.ready_socket(&stranger, 0, Encoding::Json).await?;
        for elsewhere in [conversation_id, ConversationId::random()] {
            assert_eq!(outside.set_typing(elsewhere, true).await?["code"], "not_found");
        }
        let wrong = json!({ "type": "set_typing", "conversation_id": conversation_id });
        assert_eq!(outside.ask(wrong).await?["code"], "invalid");
        let mut phone = fleet.ready_socket(&asha, 0, Encoding::Json).await?;
        phone.set_typing(conversation_id, true).await?;
        assert_eq!(inside.typing().await?, typing(conversation_id, asha.id, true), "the first that is heard");
        Ok(())
    })
}
