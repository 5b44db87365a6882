//! Consumers of the log against a real NATS: one instance at a time and in order, hand-overs, and what settling does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use chat_dev::{
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::ConversationId,
    log::{self, Appended, Consumer, ConsumerSpec, Entry, Log, Outcome, Replicas, Slot},
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(30);

/// A log of the test's own, as one process sees it.
async fn open(namespace: &str) -> Result<Log> {
    let client = log::connect(&TestServers::from_env()?.nats_url, "log-test", |_| {}).await?;
    Ok(Log::open(&client, namespace, Replicas { count: 1, bytes_max: 16 << 20 }).await?)
}

fn spec(is_pinned: bool) -> ConsumerSpec {
    ConsumerSpec {
        name: "reader".to_owned(),
        slots: Vec::new(),
        is_pinned,
        batch_max: 20,
        gather_max: Duration::ZERO,
        ack_pending_max: 1000,
        ack_wait: Duration::from_secs(2),
    }
}

/// Appends the next `count` events of each conversation, turn by turn.
async fn append(log: &Log, heads: &mut BTreeMap<ConversationId, (u64, StreamSeq)>, count: u64) -> Result<()> {
    for _ in 0..count {
        for (conversation_id, (seq, at)) in heads.iter_mut() {
            *seq += 1;
            let event = Event {
                conversation_id: *conversation_id,
                kind: ConversationKind::Group,
                seq: Seq(*seq),
                sent_at: Timestamp(0),
                previous: *at,
                participants: Participants::default(),
                fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
            };
            let appended = log.append(&event, &format!("{}:{seq}", conversation_id.as_uuid())).await?;
            let Appended::At(stream_seq) = appended else { anyhow::bail!("appended twice") };
            *at = stream_seq;
        }
    }
    Ok(())
}

fn conversations(count: usize) -> BTreeMap<ConversationId, (u64, StreamSeq)> {
    (0..count).map(|_| (ConversationId::random(), (0, StreamSeq::ZERO))).collect()
}

/// What has been seen of each conversation, in the order it came.
#[derive(Debug, Default)]
struct Seen(BTreeMap<ConversationId, Vec<u64>>);

impl Seen {
    async fn take(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            let event = entry.event()?;
            self.0.entry(event.conversation_id).or_default().push(event.seq.0);
            entry.settle(Outcome::Done).await;
        }
        Ok(())
    }

    /// Different events seen.
    fn len(&self) -> usize {
        self.0.values().map(|seqs| seqs.iter().collect::<std::collections::BTreeSet<_>>().len()).sum()
    }

    fn inversions(&self) -> usize {
        self.0.values().flat_map(|seqs| seqs.windows(2)).filter(|pair| pair[0] >= pair[1]).count()
    }
}

async fn batch(consumer: &mut Consumer) -> Result<Vec<Entry>> {
    tokio::time::timeout(DEADLINE, consumer.batch()).await.context("nothing was delivered")
}

#[tokio::test]
async fn one_instance_at_a_time_reads_everything_in_order() -> Result<()> {
    let namespace = unique_namespace();
    let (log, other) = (open(&namespace).await?, open(&namespace).await?);
    let mut instances = [log.consumer(spec(true)).await?, other.consumer(spec(true)).await?];
    let mut heads = conversations(5);
    let (mut seen, mut readers) = (Seen::default(), Vec::new());
    for _ in 0..5 {
        append(&log, &mut heads, 20).await?;
        let expected: u64 = heads.values().map(|(seq, _)| seq).sum();
        while (seen.len() as u64) < expected {
            let [first, second] = &mut instances;
            let (entries, instance) = tokio::select! {
                entries = batch(first) => (entries?, 0),
                entries = batch(second) => (entries?, 1),
            };
            seen.take(&entries).await?;
            readers.push(instance);
        }
    }
    assert_eq!(seen.inversions(), 0);
    // A machine that pauses for longer than the time-out of a pin makes the other instance take over, rightly. Without a pin
    // the instances take turns at 25 batches or more.
    readers.dedup();
    assert!(readers.len() <= 3, "{readers:?}");
    Ok(())
}

#[tokio::test]
async fn the_next_instance_takes_over_at_once_when_one_is_released() -> Result<()> {
    let namespace = unique_namespace();
    let (log, other) = (open(&namespace).await?, open(&namespace).await?);
    let (mut first, mut second) = (log.consumer(spec(true)).await?, other.consumer(spec(true)).await?);
    let mut heads = conversations(5);
    append(&log, &mut heads, 60).await?;
    let mut seen = Seen::default();
    while seen.len() < 100 {
        seen.take(&batch(&mut first).await?).await?;
    }
    first.release().await;
    let released = Instant::now();
    seen.take(&batch(&mut second).await?).await?;
    let silence = released.elapsed();
    while seen.len() < 300 {
        seen.take(&batch(&mut second).await?).await?;
    }
    println!("released: silence {silence:?}, all {:?}, inversions {}", released.elapsed(), seen.inversions());
    Ok(())
}

#[tokio::test]
async fn the_next_instance_takes_over_when_one_dies() -> Result<()> {
    let namespace = unique_namespace();
    let (log, other) = (open(&namespace).await?, open(&namespace).await?);
    let (mut first, mut second) = (log.consumer(spec(true)).await?, other.consumer(spec(true)).await?);
    let mut heads = conversations(5);
    append(&log, &mut heads, 60).await?;
    let mut seen = Seen::default();
    while seen.len() < 100 {
        seen.take(&batch(&mut first).await?).await?;
    }
    // A batch in hand is lost with it.
    let unsettled = batch(&mut first).await?;
    assert!(!unsettled.is_empty());
    drop((first, unsettled));
    let died = Instant::now();
    seen.take(&batch(&mut second).await?).await?;
    let silence = died.elapsed();
    while seen.len() < 300 {
        seen.take(&batch(&mut second).await?).await?;
    }
    println!("died: silence {silence:?}, all {:?}, inversions {}", died.elapsed(), seen.inversions());
    Ok(())
}

#[tokio::test]
async fn an_instance_that_was_replaced_does_not_unpin_its_successor() -> Result<()> {
    let namespace = unique_namespace();
    let (log, other) = (open(&namespace).await?, open(&namespace).await?);
    let mut first = log.consumer(spec(true)).await?;
    let mut heads = conversations(1);
    append(&log, &mut heads, 1).await?;
    let mut seen = Seen::default();
    seen.take(&batch(&mut first).await?).await?;
    // While nobody polls the first it stops pulling, and the pin runs out.
    let mut second = other.consumer(spec(true)).await?;
    append(&log, &mut heads, 1).await?;
    while seen.len() < 2 {
        seen.take(&batch(&mut second).await?).await?;
    }
    // The first may hold the second event too; giving it back before it is settled would deliver it again.
    wait::until(
        "settling both",
        DEADLINE,
        async || Ok((log.settled_by("reader").await? == StreamSeq(2)).then_some(())),
    )
    .await?;
    first.release().await;
    append(&log, &mut heads, 50).await?;
    while seen.len() < 52 {
        seen.take(&batch(&mut second).await?).await?;
    }
    assert_eq!(seen.inversions(), 0);
    Ok(())
}

#[tokio::test]
async fn settling_says_whether_and_when_an_entry_comes_again() -> Result<()> {
    let log = open(&unique_namespace()).await?;
    let mut reader = log.consumer(spec(false)).await?;
    append(&log, &mut conversations(4), 1).await?;
    let mut first = Vec::new();
    while first.len() < 4 {
        first.extend(batch(&mut reader).await?);
    }
    assert!(first.iter().all(|entry| entry.deliveries == 1));
    let [done, discarded, retried, forgotten] = [0, 1, 2, 3].map(|index| first[index].stream_seq);
    first[0].settle(Outcome::Done).await;
    first[1].settle(Outcome::Discard).await;
    first[2].settle(Outcome::RetryAfter(Duration::ZERO)).await;

    let again = batch(&mut reader).await?;
    assert_eq!(again.iter().map(|entry| (entry.stream_seq, entry.deliveries)).collect::<Vec<_>>(), [(retried, 2)]);
    again[0].settle(Outcome::Done).await;
    let again = batch(&mut reader).await?;
    assert_eq!(again.iter().map(|entry| (entry.stream_seq, entry.deliveries)).collect::<Vec<_>>(), [(forgotten, 2)]);
    again[0].settle(Outcome::Done).await;
    assert!(done < discarded);
    Ok(())
}

#[tokio::test]
async fn at_the_bound_of_unsettled_entries_nothing_new_comes_until_one_is_settled() -> Result<()> {
    let namespace = unique_namespace();
    let log = open(&namespace).await?;
    let wait = Duration::from_mins(1);
    let mut reader = log.consumer(ConsumerSpec { ack_pending_max: 10, ack_wait: wait, ..spec(true) }).await?;
    append(&log, &mut conversations(1), 15).await?;
    let mut unsettled = Vec::new();
    while unsettled.len() < 10 {
        unsettled.extend(batch(&mut reader).await?);
    }
    let client = log::connect(&TestServers::from_env()?.nats_url, "log-test", |_| {}).await?;
    let stream = async_nats::jetstream::new(client).get_stream(log.name()).await?;
    let held_back = stream.consumer_info("reader").await?;
    assert_eq!((unsettled.len(), held_back.num_ack_pending, held_back.num_pending), (10, 10, 5));
    let mut seen = Seen::default();
    seen.take(&unsettled).await?;
    while seen.len() < 15 {
        seen.take(&batch(&mut reader).await?).await?;
    }
    assert_eq!(seen.inversions(), 0);
    Ok(())
}

#[tokio::test]
async fn the_parts_read_messages_and_facts_of_their_slots_and_no_others() -> Result<()> {
    let namespace = unique_namespace();
    let log = open(&namespace).await?;
    let (part, parts) = (3, 16);
    let slots: Vec<_> = Slot::part(part, parts).collect();
    let mut reader = log.consumer(ConsumerSpec { slots: slots.clone(), name: "part".to_owned(), ..spec(true) }).await?;
    let mut heads = conversations(128);
    append(&log, &mut heads, 1).await?;
    let client = log::connect(&TestServers::from_env()?.nats_url, "log-test", |_| {}).await?;
    for slot in Slot::part(0, 1) {
        client.publish(format!("{namespace}.{slot}.fact"), "fact".into()).await?;
    }
    client.flush().await?;
    let expected = heads.keys().filter(|id| slots.contains(&Slot::of(**id))).count() + slots.len();
    let mut subjects = Vec::new();
    while subjects.len() < expected {
        for entry in batch(&mut reader).await? {
            subjects.push(entry.subject().to_owned());
            entry.settle(Outcome::Done).await;
        }
    }
    let starts: Vec<_> = slots.iter().map(|slot| format!("{namespace}.{slot}.")).collect();
    assert!(subjects.iter().all(|subject| starts.iter().any(|start| subject.starts_with(start))), "{subjects:?}");
    assert_eq!(subjects.iter().filter(|subject| subject.rsplit('.').next() == Some("fact")).count(), slots.len());
    Ok(())
}

#[tokio::test]
async fn of_several_servers_one_that_is_there_is_enough() -> Result<()> {
    let there = TestServers::from_env()?.nats_url;
    // Port 1 is reserved and nobody listens there.
    let client = log::connect(&format!("nats://127.0.0.1:1, {there}"), "log-test", |_| {}).await?;
    Log::open(&client, &unique_namespace(), Replicas { count: 1, bytes_max: 16 << 20 }).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_promises_is_not_opened() -> Result<()> {
    let client = log::connect(&TestServers::from_env()?.nats_url, "log-test", |_| {}).await?;
    let (namespace, replicas) = (unique_namespace(), Replicas { count: 1, bytes_max: 16 << 20 });
    Log::open(&client, &namespace, replicas).await?;
    let jetstream = async_nats::jetstream::new(client.clone());
    let mut config = jetstream.get_stream(log::stream_name(&namespace)).await?.cached_info().config.clone();
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    jetstream.update_stream(&config).await?;
    let refused = Log::open(&client, &namespace, replicas).await.unwrap_err();
    assert!(matches!(refused, log::LogError::Unfit(_)), "{refused}");
    assert!(refused.to_string().contains("--discard=new"), "{refused}");
    Ok(())
}
