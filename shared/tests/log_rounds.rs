//! Appends in rounds against a real NATS: many in one write, each with an answer of its own.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result};
use async_nats::jetstream;
use chat_dev::{
    ports::Ports,
    servers::Nats,
    test_servers::{TestServers, unique_namespace},
};
use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::ConversationId,
    lifecycle::Tasks,
    log::{self, AppendError, Appended, Appender, Log, Newest, Replicas},
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};
use futures_util::future::join_all;

/// Enough for a round that goes in one write.
const MANY: usize = 100;

struct Scene {
    client: async_nats::Client,
    namespace: String,
    log: Log,
    appender: Appender,
}

impl Scene {
    async fn set() -> Result<Self> {
        Self::on(&TestServers::from_env()?.nats_url, 1).await
    }

    async fn on(urls: &str, replicas: usize) -> Result<Self> {
        let client = log::connect(urls, "log-test", |_| {}).await?;
        let namespace = unique_namespace();
        let log = Log::open(&client, &namespace, Replicas { count: replicas, bytes_max: 16 << 20 }).await?;
        let appender = log.appender(&Tasks::default());
        Ok(Self { client, namespace, log, appender })
    }

    /// All at the same time, so that they wait together.
    async fn append_all(&self, events: &[Event]) -> Vec<Result<Appended, AppendError>> {
        join_all(
            events
                .iter()
                .map(async |event| self.appender.append(&self.log, event, &id(event), &Newest::default()).await),
        )
        .await
    }

    /// How many events of the log were written together with others.
    async fn written_together(&self) -> Result<usize> {
        let stream = jetstream::new(self.client.clone()).get_stream(log::stream_name(&self.namespace)).await?;
        let mut count = 0;
        for at in 1..=self.log.state().await?.last.0 {
            let message = stream.get_raw_message(at).await.context("the log has no holes")?;
            count += usize::from(message.headers.get("Nats-Batch-Id").is_some());
        }
        Ok(count)
    }
}

fn first_event(conversation_id: ConversationId) -> Event {
    Event {
        conversation_id,
        kind: ConversationKind::Group,
        seq: Seq(1),
        sent_at: Timestamp(0),
        previous: StreamSeq::ZERO,
        participants: Participants::default(),
        fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
    }
}

fn first_events(count: usize) -> Vec<Event> {
    (0..count).map(|_| first_event(ConversationId::random())).collect()
}

fn id(event: &Event) -> String {
    format!("{}:{}", event.conversation_id.as_uuid(), event.seq.0)
}

#[tokio::test]
async fn what_waits_together_is_written_together_and_each_learns_its_own_position() -> Result<()> {
    write_together(&Scene::set().await?).await
}

#[tokio::test]
async fn what_waits_together_is_written_together_with_three_replicas_too() -> Result<()> {
    let test = TestServers::from_env()?;
    let directory = tempfile::Builder::new().prefix("cluster").tempdir_in(Path::new(&test.scratch))?;
    let servers = Nats::start_cluster_in(&test.binaries, directory.path(), &Ports::fresh()).await?;
    let urls: Vec<_> = servers.iter().map(Nats::url).collect();
    write_together(&Scene::on(&urls.join(","), 3).await?).await
}

async fn write_together(scene: &Scene) -> Result<()> {
    let events = first_events(MANY);
    let answers = scene.append_all(&events).await;
    let mut positions = BTreeSet::new();
    for (event, answer) in events.iter().zip(answers) {
        let Appended::At(at) = answer? else { panic!("nothing was appended twice") };
        assert_eq!(scene.log.newest(event.conversation_id).await?, Some((at, event.clone())));
        positions.insert(at);
    }
    assert_eq!(positions.len(), MANY);
    assert_eq!(scene.written_together().await?, MANY);
    Ok(())
}

#[tokio::test]
async fn an_append_behind_what_was_heard_of_meanwhile_is_not_sent() -> Result<()> {
    let scene = Scene::set().await?;
    let event = first_event(ConversationId::random());
    let newest = Newest::default();
    assert!(newest.raise(StreamSeq(5)));
    assert!(!newest.raise(StreamSeq(4)));
    let behind = scene.appender.append(&scene.log, &event, &id(&event), &newest).await;
    assert!(matches!(behind, Err(AppendError::HeadMoved)));
    assert_eq!(scene.log.state().await?.last, StreamSeq::ZERO);
    newest.set(StreamSeq::ZERO);
    let read_again = scene.appender.append(&scene.log, &event, &id(&event), &newest).await?;
    assert_eq!(read_again, Appended::At(StreamSeq(1)));
    Ok(())
}

#[tokio::test]
async fn one_that_lost_its_race_and_one_repeated_do_not_spoil_the_others_promises_2_and_3() -> Result<()> {
    let scene = Scene::set().await?;
    let mut events = first_events(MANY);
    // The last but one has been appended before; the last does not know of an event before it.
    let repeated_at = match scene.log.append(&events[MANY - 2], &id(&events[MANY - 2])).await? {
        Appended::At(at) => at,
        Appended::Duplicate(_) => panic!("it is the first"),
    };
    events[MANY - 2].previous = repeated_at;
    scene.log.append(&events[MANY - 1], &id(&events[MANY - 1])).await?;
    events[MANY - 1].seq = Seq(2);

    let mut answers = scene.append_all(&events).await;
    assert!(matches!(answers.pop(), Some(Err(AppendError::HeadMoved))));
    assert_eq!(answers.pop().context("an answer")??, Appended::Duplicate(repeated_at));
    assert_eq!(answers.len(), MANY - 2);
    for answer in answers {
        assert!(matches!(answer?, Appended::At(_)));
    }
    assert_eq!(scene.log.state().await?.last, StreamSeq(MANY as u64), "nothing stands there twice");
    Ok(())
}

#[tokio::test]
async fn whoever_has_stopped_waiting_is_not_appended_for() -> Result<()> {
    let scene = Scene::set().await?;
    let event = first_event(ConversationId::random());
    {
        // Polled once: it waits in the queue, and then is dropped.
        let (append_id, newest) = (id(&event), Newest::default());
        let mut waiting = Box::pin(scene.appender.append(&scene.log, &event, &append_id, &newest));
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    let other = first_event(ConversationId::random());
    assert_eq!(scene.append_all(std::slice::from_ref(&other)).await.remove(0)?, Appended::At(StreamSeq(1)));
    assert_eq!(scene.log.last(event.conversation_id).await?, None);
    Ok(())
}

#[tokio::test]
async fn one_repeater_does_not_stop_shared_writes() -> Result<()> {
    let scene = Scene::set().await?;
    let mut repeated = first_event(ConversationId::random());
    let Appended::At(at) = scene.log.append(&repeated, &id(&repeated)).await? else { panic!("it is the first") };
    repeated.previous = at;
    let rounds = 10;
    for _ in 0..rounds {
        let mut events = first_events(MANY);
        events.push(repeated.clone());
        let mut answers = scene.append_all(&events).await;
        assert_eq!(answers.pop().context("an answer")??, Appended::Duplicate(at));
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Appended::At(_)))));
    }
    let together = scene.written_together().await?;
    assert!(together >= (rounds - 1) * MANY, "{together} of {}: only the first round pays", rounds * MANY);
    Ok(())
}
