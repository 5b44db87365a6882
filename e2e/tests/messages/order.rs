//! Promise 3: one order, without holes and repeats, and time along it.

use std::collections::HashSet;

use anyhow::{Context, Result};
use chat_e2e::{Online, Person, database, on_shared_fleet, said};
use chat_shared::{ids::ConversationId, wire::Accepted};
use tokio::task::JoinSet;

/// Messages of each writer; together more than a page of history.
const EACH: usize = 25;

#[test]
fn promise_3_eight_writers_on_two_gateways_make_one_dense_order() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let people: [Person; 8] = fleet.people()?;
        let [owner, others @ ..] = &people;
        let conversation_id = fleet.group(owner, &others.iter().collect::<Vec<_>>()).await?;
        // All are there before the first writes, so all are handed everything.
        let mut online = Vec::new();
        for (number, person) in people.iter().enumerate() {
            online.push(fleet.connect(person, number % 2).await?);
        }
        let mut writers = JoinSet::new();
        for (number, online) in online.into_iter().enumerate() {
            writers.spawn(write_and_read(online, conversation_id, number));
        }
        let all = EACH * people.len();
        let mut numbers = HashSet::new();
        while let Some(written) = writers.join_next().await {
            for accepted in written?? {
                assert!(numbers.insert(accepted.seq.0), "two messages have the number {}", accepted.seq.0);
            }
        }
        let last = u64::try_from(all)?;
        assert_eq!(numbers, (1..=last).collect());

        let api = fleet.api(owner, 1);
        let mut page = api.history(conversation_id, "after=0&limit=100").await?;
        let mut messages = page.messages;
        while page.has_more {
            let after = messages.last().context("a page that has more has a last message")?.seq.0;
            page = api.history(conversation_id, &format!("after={after}&limit=100")).await?;
            messages.append(&mut page.messages);
        }
        assert!(messages.iter().map(|message| message.seq.0).eq(1..=last));
        assert!(messages.is_sorted_by_key(|message| message.sent_at), "time runs backwards along the numbers");
        assert_eq!(messages.iter().map(|message| message.message_id).collect::<HashSet<_>>().len(), all);
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, last).await
    })
}

/// Writes some messages, several at a time, and reads everybody's in order.
async fn write_and_read(mut online: Online, conversation_id: ConversationId, writer: usize) -> Result<Vec<Accepted>> {
    let mut sends = JoinSet::new();
    for number in 0..EACH {
        let client = online.client.clone();
        sends.spawn(async move { client.send(conversation_id, said(format!("{number} of {writer}"))).await });
    }
    let accepted = sends.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    online.expect(1..=u64::try_from(EACH * 8)?).await?;
    Ok(accepted)
}
