//! The list of conversations, and the pages of their messages.

use anyhow::{Context, Result};
use chat_e2e::{database, eventually, on_shared_fleet, said};
use chat_shared::{
    ids::ConversationId,
    wire::{ConversationPage, Message},
};
use serde_json::json;

fn numbers(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.seq.0).collect()
}

#[test]
fn r5_5_r4_5_history_is_chronological_both_ways_page_by_page() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for number in 1..=25 {
            let (sender, gateway) = if number % 2 == 0 { (&asha, 0) } else { (&bikram, 1) };
            fleet.api(sender, gateway).say(conversation_id, &said(number)).await?;
        }
        // Once while part of it may be in the log only, and once when all of it is stored.
        for _ in 0..2 {
            let api = fleet.api(&asha, 1);
            let table: [(&str, std::ops::RangeInclusive<u64>, bool); 11] = [
                ("", 1..=25, false),
                ("limit=10", 16..=25, true),
                ("before=16&limit=10", 6..=15, true),
                ("before=6&limit=10", 1..=5, false),
                ("before=2&limit=1", 1..=1, false),
                ("after=0&limit=10", 1..=10, true),
                ("after=10&limit=10", 11..=20, true),
                ("after=20&limit=10", 21..=25, false),
                ("after=15&limit=10", 16..=25, false),
                ("limit=100000", 1..=25, false),
                ("before=99999999", 1..=25, false),
            ];
            for (query, expected, has_more) in table {
                let page = api.history(conversation_id, query).await?;
                assert_eq!(numbers(&page.messages), expected.collect::<Vec<_>>(), "{query}");
                assert_eq!((page.has_more, page.last_seq.0, page.floor_seq.0), (has_more, 25, 0), "{query}");
                assert!(page.messages.is_sorted_by_key(|message| message.sent_at), "{query}");
                assert!(page.messages.iter().all(|message| message.text == said(message.seq.0)), "{query}");
            }
            for query in ["before=1", "before=0", "after=25", "after=99999999"] {
                let page = api.history(conversation_id, query).await?;
                assert_eq!((page.messages.len(), page.has_more), (0, false), "{query}");
            }
            database::wait_until_stored(&fleet.urls().postgres, conversation_id, 25).await?;
        }
        Ok(())
    })
}

#[test]
fn r5_4_the_list_shows_last_message_time_and_unread_latest_first() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, chandra, deepa] = fleet.people()?;
        let with_bikram = fleet.direct(&asha, &bikram).await?;
        let with_chandra = fleet.direct(&chandra, &asha).await?;
        let group = fleet.group(&deepa, &[&asha, &bikram]).await?;
        let empty = fleet.direct(&asha, &deepa).await?;
        // The empty one was made last but one message follows in each other conversation, so it sinks to the end.
        let mut last = Vec::new();
        for (conversation_id, sender, count) in
            [(group, &deepa, 3), (with_chandra, &chandra, 2), (with_bikram, &asha, 4)]
        {
            let mut accepted = None;
            for number in 1..=count {
                accepted = Some(fleet.api(sender, 1).say(conversation_id, &said(number)).await?);
            }
            database::wait_until_stored(&fleet.urls().postgres, conversation_id, count).await?;
            last.push((conversation_id, count, accepted.context("at least one was sent")?));
        }
        last.reverse();

        let api = fleet.api(&asha, 0);
        let whole: ConversationPage = api.get("conversations").await?.ok()?;
        assert!(whole.next_cursor.is_none());
        let order: Vec<ConversationId> = whole.conversations.iter().map(|found| found.conversation_id).collect();
        assert_eq!(order, [with_bikram, with_chandra, group, empty]);
        for (found, (_, count, accepted)) in whole.conversations.iter().zip(&last) {
            let message = found.last_message.as_ref().context("there is a last message")?;
            assert_eq!((message.message_id, message.sent_at), (accepted.message_id, accepted.sent_at));
            assert_eq!((&message.text, found.last_activity_at), (&said(count), accepted.sent_at));
            assert_eq!(found.last_seq.0, *count);
        }
        let unread: Vec<u64> = whole.conversations.iter().map(|found| found.unread).collect();
        assert_eq!(unread, [0, 2, 3, 0], "one's own messages are read");
        assert!(whole.conversations[3].last_message.is_none());

        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page: ConversationPage = api.get(&format!("conversations?limit=1{cursor}")).await?.ok()?;
            assert_eq!(page.conversations.len(), 1);
            paged.append(&mut page.conversations);
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, whole.conversations, "page by page it is the same list");
        Ok(())
    })
}

#[test]
fn promise_6_messages_of_others_are_unread_until_they_are_read() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let path = format!("conversations/{}", conversation_id.as_uuid());
        for (sender, counts) in
            [(&asha, (0, 1)), (&asha, (0, 2)), (&bikram, (1, 2)), (&bikram, (2, 2)), (&asha, (2, 3))]
        {
            let accepted = fleet.api(sender, 0).say(conversation_id, &said("one more")).await?;
            eventually("the list's knowledge of the message", || async {
                let found = fleet.api(&asha, 1).get(&path).await?.body;
                Ok((found["last_seq"] == json!(accepted.seq)).then_some(()))
            })
            .await?;
            let unread_of = async |person| anyhow::Ok(fleet.api(person, 1).get(&path).await?.body["unread"].as_u64());
            assert_eq!((unread_of(&asha).await?, unread_of(&bikram).await?), (Some(counts.0), Some(counts.1)));
        }
        Ok(())
    })
}
