//! Facts that nothing follows, against a real NATS: written together, read in their slot, and in nobody's way.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream;
use chat_dev::test_servers::{TestServers, unique_namespace};
use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact, Participants, ParticipantsChanged, ReadAdvanced},
    ids::{ConversationId, MessageId, UserId},
    log::{self, Appended, ConsumerSpec, Log, Outcome, Replicas, SLOTS, Slot},
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(30);

struct Scene {
    client: async_nats::Client,
    log: Log,
}

impl Scene {
    async fn set() -> Result<Self> {
        let client = log::connect(&TestServers::from_env()?.nats_url, "log-test", |_| {}).await?;
        let log = Log::open(&client, &unique_namespace(), Replicas { count: 1, bytes_max: 16 << 20 }).await?;
        Ok(Self { client, log })
    }
}

fn event(conversation_id: ConversationId, seq: u64, previous: StreamSeq, fact: Fact) -> Event {
    Event {
        conversation_id,
        kind: ConversationKind::Group,
        seq: Seq(seq),
        sent_at: Timestamp(0),
        previous,
        participants: Participants::default(),
        fact,
    }
}

fn mark(conversation_id: ConversationId) -> Event {
    let read = ReadAdvanced { user_id: UserId::random(), message_id: MessageId::random(), read_seq: Seq(1) };
    event(conversation_id, 1, StreamSeq::ZERO, Fact::ReadAdvanced(read))
}

fn change(conversation_id: ConversationId, seq: u64, previous: StreamSeq) -> Event {
    let change = ParticipantsChanged::default();
    event(conversation_id, seq, previous, Fact::ParticipantsChanged(change))
}

#[tokio::test]
async fn facts_of_many_conversations_are_written_together_r8_6() -> Result<()> {
    let scene = Scene::set().await?;
    let marks: Vec<Event> = (0..300).map(|_| mark(ConversationId::random())).collect();
    scene.log.append_facts(&[]).await?;
    scene.log.append_facts(&marks).await?;
    assert_eq!(scene.log.state().await?.last, StreamSeq(300));
    let stream = jetstream::new(scene.client.clone()).get_stream(scene.log.name()).await?;
    let (mut writes, mut found) = (BTreeSet::new(), Vec::new());
    for at in 1..=300 {
        let message = stream.get_raw_message(at).await.context("the log has no holes")?;
        let write = message.headers.get("Nats-Batch-Id").context("it was written with others")?;
        writes.insert(write.as_str().to_owned());
        found.push(Event::decode(&message.payload)?);
    }
    assert_eq!(writes.len(), 2, "256 and the rest");
    assert_eq!(found, marks, "in the order given");
    Ok(())
}

#[tokio::test]
async fn a_fact_is_read_where_its_conversation_is_read_and_nowhere_else() -> Result<()> {
    let scene = Scene::set().await?;
    let conversations: Vec<_> = (0..20).map(|_| ConversationId::random()).collect();
    let marks: Vec<Event> = conversations.iter().map(|conversation_id| mark(*conversation_id)).collect();
    scene.log.append_facts(&marks[..1]).await?;
    scene.log.append_facts(&marks[1..]).await?;
    let part = 4;
    for number in 0..part {
        let slots: Vec<Slot> = Slot::part(number, part).collect();
        let mut expected: Vec<_> =
            conversations.iter().filter(|conversation_id| slots.contains(&Slot::of(**conversation_id))).collect();
        let spec = ConsumerSpec {
            name: format!("part-{number}"),
            slots,
            is_pinned: false,
            batch_max: 20,
            gather_max: Duration::ZERO,
            ack_pending_max: 1000,
            ack_wait: Duration::from_secs(20),
        };
        let mut consumer = scene.log.consumer(spec).await?;
        while !expected.is_empty() {
            for entry in tokio::time::timeout(DEADLINE, consumer.batch()).await.context("one is missing")? {
                let found = entry.event()?;
                let place = expected.iter().position(|conversation_id| **conversation_id == found.conversation_id);
                expected.swap_remove(place.context("it belongs to another part, or came twice")?);
                entry.settle(Outcome::Done).await;
            }
        }
    }
    assert_eq!(SLOTS % part, 0);
    Ok(())
}

#[tokio::test]
async fn a_fact_moves_no_head_and_meets_no_expectation() -> Result<()> {
    let scene = Scene::set().await?;
    let conversation_id = ConversationId::random();
    let first = change(conversation_id, 0, StreamSeq::ZERO);
    let Appended::At(at) = scene.log.append(&first, "first").await? else { panic!("it is the first") };
    scene.log.append_facts(&[mark(conversation_id), mark(conversation_id)]).await?;
    assert_eq!(scene.log.last(conversation_id).await?, Some((at, first.clone())));
    assert_eq!(scene.log.newest(conversation_id).await?, Some((at, first)));
    let second = change(conversation_id, 1, at);
    assert_eq!(scene.log.append(&second, "second").await?, Appended::At(StreamSeq(4)));
    Ok(())
}
