//! Appends per second of one gateway, without and with a client that repeats one message over and over.
//!
//! `cargo run --release -p chat-shared --example shared_writes` starts a NATS server of its own.
#![expect(clippy::print_stdout, reason = "people read the figures")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chat_dev::{
    paths,
    ports::Ports,
    servers::{Binaries, Nats},
};
use chat_shared::{
    clock::Timestamp,
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::ConversationId,
    lifecycle::Tasks,
    log::{self, Appended, Appender, Log, Newest, Replicas},
    position::{Seq, StreamSeq},
    wire::ConversationKind,
};
use tokio::task::JoinSet;

/// Conversations that are written to at the same time, each by a writer that waits for its answer.
const WRITERS: usize = 400;
/// How long each phase is measured.
const PHASE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Bench {
    log: Log,
    appender: Appender,
}

#[tokio::main]
async fn main() -> Result<()> {
    let (binaries, scratch) = (Binaries::find_or_fetch().await?, paths::scratch("shared-writes")?);
    let nats = Nats::start_in(&binaries, scratch.path(), &Ports::fresh()).await?;
    let client = log::connect(&nats.url(), "shared-writes", |_| {}).await?;
    let log = Log::open(&client, "chat", Replicas { count: 1, bytes_max: 1 << 30 }).await?;
    let bench = Bench { appender: log.appender(&Tasks::default()), log };
    for has_repeater in [false, true, false, true] {
        let (mut latencies, repeats) = bench.phase(has_repeater).await?;
        latencies.sort_unstable();
        let per_second = latencies.len() as u64 / PHASE.as_secs();
        let p99 = latencies.get(latencies.len() * 99 / 100).context("something was appended")?;
        println!("{per_second} appends/s, p99 {} ms, beside {repeats} repeats", p99.as_millis());
    }
    nats.stop().await
}

impl Bench {
    /// The latencies of all appends, and how many repeats were answered.
    async fn phase(&self, has_repeater: bool) -> Result<(Vec<Duration>, u64)> {
        let until = Instant::now() + PHASE;
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(self.clone().write(until));
        }
        let repeats = if has_repeater { self.repeat(until).await? } else { 0 };
        let mut latencies = Vec::new();
        while let Some(written) = writers.join_next().await {
            latencies.append(&mut written??);
        }
        Ok((latencies, repeats))
    }

    async fn write(self, until: Instant) -> Result<Vec<Duration>> {
        let (mut event, mut latencies) = (first_event(), Vec::new());
        while Instant::now() < until {
            let started = Instant::now();
            let Appended::At(at) = self.append(&event).await? else { anyhow::bail!("nothing was appended before") };
            latencies.push(started.elapsed());
            (event.seq, event.previous) = (event.seq.next(), at);
        }
        Ok(latencies)
    }

    async fn repeat(&self, until: Instant) -> Result<u64> {
        let mut event = first_event();
        let Appended::At(at) = self.append(&event).await? else { anyhow::bail!("nothing was appended before") };
        event.previous = at;
        let mut repeats = 0;
        while Instant::now() < until {
            self.append(&event).await?;
            repeats += 1;
        }
        Ok(repeats)
    }

    async fn append(&self, event: &Event) -> Result<Appended> {
        let id = format!("{}:{}", event.conversation_id.as_uuid(), event.seq.0);
        Ok(self.appender.append(&self.log, event, &id, &Newest::default()).await?)
    }
}

fn first_event() -> Event {
    Event {
        conversation_id: ConversationId::random(),
        kind: ConversationKind::Group,
        seq: Seq(1),
        sent_at: Timestamp(0),
        previous: StreamSeq::ZERO,
        participants: Participants::default(),
        fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
    }
}
