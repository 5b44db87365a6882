//! The queue of notifications against a real NATS: each job once, tried again, and dropped when there is no room.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, stream};
use chat_dev::{
    paths,
    ports::Ports,
    servers::Nats,
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, Epoch, MessageId, UserId},
    inbox::Unconfirmed,
    jobs::{Added, AssignedJob, Job, Jobs, MessageJob, ReadUpTo, WaitingJob},
    log::{self, Consumer, ConsumerSpec, Entry, Outcome, Replicas},
    position::{Cursor, Seq},
    sealing::Envelope,
};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(30);
const REPLICAS: Replicas = Replicas { count: 1, bytes_max: 16 << 20 };

struct Scene {
    client: async_nats::Client,
    namespace: String,
    jobs: Jobs,
}

impl Scene {
    async fn set() -> Result<Self> {
        Self::on(&TestServers::from_env()?.nats_url, None).await
    }

    /// `bytes_max` for a queue that somebody has made with less room than it asks for.
    async fn on(nats_url: &str, bytes_max: Option<i64>) -> Result<Self> {
        let client = log::connect(nats_url, "jobs-test", |_| {}).await?;
        let namespace = unique_namespace();
        if let Some(max_bytes) = bytes_max {
            let config = stream::Config {
                name: format!("{namespace}-notifications"),
                subjects: vec![format!("{namespace}.notifications")],
                retention: stream::RetentionPolicy::WorkQueue,
                discard: stream::DiscardPolicy::New,
                max_bytes,
                ..stream::Config::default()
            };
            jetstream::new(client.clone()).create_stream(config).await?;
        }
        let jobs = Jobs::open(&client, &namespace, REPLICAS).await?;
        Ok(Self { client, namespace, jobs })
    }

    async fn consumer(&self) -> Result<Consumer> {
        let spec = ConsumerSpec {
            name: "notifier".to_owned(),
            slots: Vec::new(),
            is_pinned: false,
            batch_max: 20,
            gather_max: Duration::ZERO,
            ack_pending_max: 1000,
            ack_wait: Duration::from_secs(20),
        };
        Ok(self.jobs.consumer(spec).await?)
    }

    /// How many jobs are still to be done.
    async fn waiting(&self) -> Result<u64> {
        Ok(self.jobs.waiting().await?)
    }
}

fn message(bytes: usize) -> Job {
    Job::Message(MessageJob {
        user_id: UserId::random(),
        conversation_id: ConversationId::random(),
        message_id: MessageId::random(),
        seq: Seq(1),
        sender_id: UserId::random(),
        shown_sender_id: (bytes > 0).then(UserId::random),
        sent_at: Timestamp(1),
        place: Some((Epoch::random(), Cursor(1))),
        envelope: (bytes > 0).then(|| Envelope::from_bytes(vec![1; bytes])),
    })
}

async fn next(consumer: &mut Consumer) -> Result<Vec<Entry>> {
    tokio::time::timeout(DEADLINE, consumer.batch()).await.context("nothing was delivered")
}

#[tokio::test]
async fn jobs_that_ask_the_same_are_added_once_and_come_out_as_they_went_in() -> Result<()> {
    let scene = Scene::set().await?;
    let (user_id, epoch) = (UserId::random(), Epoch::random());
    let unconfirmed = Unconfirmed { epoch, after: Cursor(3), up_to: Cursor(5) };
    let ended = Job::session_ended(user_id, unconfirmed);
    let ended_later = Job::session_ended(user_id, Unconfirmed { up_to: Cursor(6), ..unconfirmed });
    let assigned = AssignedJob {
        user_id,
        conversation_id: ConversationId::random(),
        version: 2,
        seq: Seq(7),
        customer_id: UserId::random(),
        sent_at: Timestamp(1),
        place: Some((epoch, Cursor(4))),
    };
    let assigned_later = Job::Assigned(AssignedJob { version: 4, ..assigned });
    // Of a business whose id is that of the conversation.
    let waiting = WaitingJob {
        user_id,
        business_id: assigned.conversation_id.as_uuid().try_into()?,
        found_at: Timestamp(120_000),
    };
    let waiting_later = Job::Waiting(WaitingJob { found_at: Timestamp(180_000), ..waiting });
    let jobs = [
        message(0),
        message(100),
        ended,
        ended_later,
        Job::Assigned(assigned),
        assigned_later,
        Job::Waiting(waiting),
        waiting_later,
    ];
    // A notifier that was killed after it had added them adds them again, and so may another one.
    let again = Jobs::open(&scene.client, &scene.namespace, REPLICAS).await?;
    assert_eq!(scene.jobs.add(&jobs).await?, Added::All);
    assert_eq!(again.add(&jobs).await?, Added::All);
    assert_eq!(scene.waiting().await?, 8);
    let same = Job::Waiting(WaitingJob { found_at: Timestamp(179_999), ..waiting });
    assert_eq!(again.add(&[same]).await?, Added::All);
    assert_eq!(scene.waiting().await?, 8, "another gateway found the same within a minute");
    let read = [None, Some(ReadUpTo { conversation_id: ConversationId::random(), read_seq: Seq(7) })]
        .map(|read| Job::ReadElsewhere { user_id, read });
    assert_eq!(scene.jobs.add(&read).await?, Added::All);
    assert_eq!(scene.waiting().await?, 10, "each time somebody reads counts");
    assert_eq!(scene.jobs.add(&[]).await?, Added::All);

    let mut consumer = scene.consumer().await?;
    let mut found = Vec::new();
    while found.len() < 10 {
        for entry in next(&mut consumer).await? {
            found.push(Job::decode(entry.payload())?);
            entry.settle(Outcome::Done).await;
        }
    }
    for job in jobs.iter().chain(&read) {
        assert!(found.contains(job), "{job:?}");
    }
    wait::until("emptying the queue", DEADLINE, async || Ok((scene.waiting().await? == 0).then_some(()))).await?;
    Ok(())
}

#[tokio::test]
async fn of_many_jobs_at_once_those_that_are_there_already_are_not_added_again() -> Result<()> {
    let scene = Scene::set().await?;
    let jobs: Vec<Job> = (0..600).map(|_| message(0)).collect();
    for part in [&jobs[..300], &jobs[200..500], &jobs[..], &jobs[..]] {
        assert_eq!(scene.jobs.add(part).await?, Added::All);
    }
    assert_eq!(scene.waiting().await?, 600);
    Ok(())
}

#[tokio::test]
async fn a_job_that_has_to_wait_comes_again_after_its_delay_and_holds_nobody_up() -> Result<()> {
    let scene = Scene::set().await?;
    let (early, late) = (message(0), message(0));
    scene.jobs.add(std::slice::from_ref(&early)).await?;
    let mut consumer = scene.consumer().await?;
    let first = next(&mut consumer).await?.remove(0);
    let delay = Duration::from_millis(300);
    let put_back = std::time::Instant::now();
    first.settle(Outcome::RetryAfter(delay)).await;
    scene.jobs.add(std::slice::from_ref(&late)).await?;
    let mut found = Vec::new();
    while found.len() < 2 {
        for entry in next(&mut consumer).await? {
            let job = Job::decode(entry.payload())?;
            if job == early {
                assert!(put_back.elapsed() >= delay);
            }
            found.push(job);
            entry.settle(Outcome::Done).await;
        }
    }
    assert_eq!(found, [late, early]);
    Ok(())
}

#[tokio::test]
async fn a_job_is_done_by_one_of_many_workers() -> Result<()> {
    let scene = Scene::set().await?;
    let (mut one, mut other) = (scene.consumer().await?, scene.consumer().await?);
    let jobs: Vec<Job> = (0..200).map(|_| message(0)).collect();
    for some in jobs.chunks(10) {
        assert_eq!(scene.jobs.add(some).await?, Added::All);
    }
    let mut found = BTreeSet::new();
    while found.len() < jobs.len() {
        let entries = tokio::select! {
            entries = next(&mut one) => entries?,
            entries = next(&mut other) => entries?,
        };
        for entry in entries {
            assert!(found.insert(entry.stream_seq), "delivered to both");
            entry.settle(Outcome::Done).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_full_queue_drops_what_is_too_much_and_says_how_many() -> Result<()> {
    let scene = Scene::on(&TestServers::from_env()?.nats_url, Some(64 * 1024)).await?;
    let jobs: Vec<Job> = (0..40).map(|_| message(4 * 1024)).collect();
    let Added::Dropped(dropped) = scene.jobs.add(&jobs).await? else { panic!("there is no room for all") };
    assert_eq!(scene.waiting().await?, 40 - dropped as u64);
    assert!((20..40).contains(&dropped), "{dropped}");
    let mut consumer = scene.consumer().await?;
    for entry in next(&mut consumer).await? {
        entry.settle(Outcome::Done).await;
    }
    wait::until("there is room again", DEADLINE, async || {
        Ok((scene.jobs.add(&[message(0)]).await? == Added::All).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn without_nats_nothing_is_said_to_be_added() -> Result<()> {
    let directory = paths::scratch("jobs-test")?;
    let nats = Nats::start_in(&TestServers::from_env()?.binaries, directory.path(), &Ports::fresh()).await?;
    let scene = Scene::on(&nats.url(), None).await?;
    nats.kill().await?;
    let answer =
        tokio::time::timeout(DEADLINE, scene.jobs.add(&[message(0)])).await.context("it does not wait long")?;
    assert!(answer.is_err());
    Ok(())
}

#[tokio::test]
async fn a_queue_that_drops_jobs_unseen_is_not_opened() -> Result<()> {
    let scene = Scene::set().await?;
    let jetstream = jetstream::new(scene.client.clone());
    let queue = jetstream.get_stream(format!("{}-notifications", scene.namespace)).await?;
    let config = stream::Config { discard: stream::DiscardPolicy::Old, ..queue.cached_info().config.clone() };
    jetstream.update_stream(&config).await?;
    let refused = Jobs::open(&scene.client, &scene.namespace, REPLICAS).await.unwrap_err();
    assert!(refused.to_string().contains("--discard=new"), "{refused}");
    Ok(())
}
