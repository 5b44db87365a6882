//! Reads the log through durable consumers that any number of instances share.

use std::time::Duration;

use async_nats::{
    header::NATS_PIN_ID,
    jetstream::{
        AckKind, Message,
        consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull},
        stream::Stream,
    },
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::{Log, NotAnEntry, Slot, read};
use crate::{event::Event, position::StreamSeq};

/// The group name of pinned consumers; a consumer has one group.
const GROUP: &str = "instances";
/// How long a pinned instance may be silent until another takes over.
const PIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one pull waits; well below the pin's time-out, or the pin would be lost between pulls.
const PULL_EXPIRY: Duration = Duration::from_secs(1);
const PULL_HEARTBEAT: Duration = Duration::from_millis(500);
/// How long giving a consumer up may take.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long to wait before a consumer is opened again after an error; doubles with each failure, up to 32 times.
const REOPEN_DELAY: Duration = Duration::from_millis(125);

/// How long settling an entry may wait for the connection to NATS.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// A durable consumer: what it reads and within which bounds.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// Its durable name.
    pub name: String,
    /// The slots it reads; all of them if empty.
    pub slots: Vec<Slot>,
    /// Whether one instance at a time reads it, so that events stay in order.
    pub is_pinned: bool,
    /// Entries that one pull asks for, and so the most of a batch.
    pub batch_max: usize,
    /// How long a batch that isn't full waits for more; zero takes only what is there.
    pub gather_max: Duration,
    /// Unsettled entries of all instances together; at the bound nothing new is delivered.
    pub ack_pending_max: i64,
    /// An entry that isn't settled for this long is delivered again.
    pub ack_wait: Duration,
}

/// Why a consumer can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("the consumer of the log can't be opened: {0}")]
pub struct ConsumeError(String);

/// A durable consumer, opened.
pub struct Consumer {
    stream: Stream<()>,
    /// The subjects it reads; all of the stream's if empty.
    subjects: Vec<String>,
    spec: ConsumerSpec,
    messages: Option<pull::Stream>,
    /// What has arrived of the next batch.
    gathered: Vec<Entry>,
    /// Under what id this instance was last pinned.
    pin_id: Option<String>,
    /// Attempts to open it that failed since one did not.
    failures: u32,
}

/// One entry of the log, delivered to this instance.
#[derive(Debug)]
pub struct Entry {
    /// Its position.
    pub stream_seq: StreamSeq,
    /// How many times it has been delivered, this time included.
    pub deliveries: u64,
    message: Message,
}

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is dealt with.
    Done,
    /// Deliver it again after the delay; later entries may pass it.
    RetryAfter(Duration),
    /// It can never be dealt with. Whoever says so has recorded it first.
    Discard,
}

impl Log {
    /// Opens a durable consumer, and makes or updates it.
    pub async fn consumer(&self, spec: ConsumerSpec) -> Result<Consumer, ConsumeError> {
        let subjects = spec.slots.iter().map(|slot| format!("{}.{slot}.>", self.namespace)).collect();
        Consumer::open(self.stream.clone(), subjects, spec).await
    }
}

impl Consumer {
    /// Opens a durable consumer of any stream, and makes or updates it.
    pub(crate) async fn open(
        stream: Stream<()>,
        subjects: Vec<String>,
        spec: ConsumerSpec,
    ) -> Result<Self, ConsumeError> {
        let mut consumer =
            Self { stream, subjects, spec, messages: None, gathered: Vec::new(), pin_id: None, failures: 0 };
        consumer.reopen().await?;
        Ok(consumer)
    }

    /// Waits for an entry, then takes what else is there or comes within `gather_max`, up to the spec's bound. Never
    /// returns an empty batch.
    ///
    /// Cancel safe: what has been gathered is in the next batch, or given back by `release`.
    pub async fn batch(&mut self) -> Vec<Entry> {
        let mut until = None;
        loop {
            if self.gathered.len() >= self.spec.batch_max {
                return std::mem::take(&mut self.gathered);
            }
            let Some(messages) = &mut self.messages else {
                if !self.gathered.is_empty() {
                    return std::mem::take(&mut self.gathered);
                }
                self.wait_and_reopen().await;
                continue;
            };
            let next = if self.gathered.is_empty() {
                messages.next().await
            } else if let Some(there) = messages.next().now_or_never() {
                there
            } else if self.spec.gather_max.is_zero() {
                return std::mem::take(&mut self.gathered);
            } else {
                let until = *until.get_or_insert_with(|| Instant::now() + self.spec.gather_max);
                let Ok(next) = timeout_at(until, messages.next()).await else {
                    return std::mem::take(&mut self.gathered);
                };
                next
            };
            match next {
                Some(Ok(message)) => {
                    self.note_pin(&message);
                    self.gathered.extend(Entry::new(message));
                }
                Some(Err(error)) => {
                    tracing::warn!(consumer = self.spec.name, %error, "reading the log was interrupted");
                    self.messages = None;
                }
                None => self.messages = None,
            }
        }
    }

    async fn wait_and_reopen(&mut self) {
        tokio::time::sleep(REOPEN_DELAY * 2_u32.pow(self.failures)).await;
        if let Err(error) = self.reopen().await {
            tracing::warn!(consumer = self.spec.name, %error, "the log can't be read, trying again");
            self.failures = self.failures.saturating_add(1).min(5);
        }
    }

    /// Stops reading, gives back what it was given and has not returned, and lets another instance take over at once.
    pub async fn release(mut self) {
        for entry in self.unread() {
            entry.settle(Outcome::RetryAfter(Duration::ZERO)).await;
        }
        // If it fails the pin runs out by itself.
        let _unpinned = tokio::time::timeout(RELEASE_WAIT_MAX, self.unpin()).await;
    }

    /// What has arrived and was not asked for yet; nothing more arrives after it.
    fn unread(&mut self) -> Vec<Entry> {
        let mut unread = std::mem::take(&mut self.gathered);
        if let Some(mut messages) = self.messages.take() {
            let arrived = std::iter::from_fn(|| messages.next().now_or_never().flatten());
            unread.extend(arrived.take(self.spec.batch_max * 2).filter_map(|message| Entry::new(message.ok()?)));
        }
        unread
    }

    fn note_pin(&mut self, message: &Message) {
        let pin_id = message.headers.as_ref().and_then(|headers| headers.get_last(NATS_PIN_ID));
        if let Some(pin_id) = pin_id.map(async_nats::HeaderValue::as_str)
            && self.pin_id.as_deref() != Some(pin_id)
        {
            self.pin_id = Some(pin_id.to_owned());
        }
    }

    /// Gives the pin up if this instance still has it. Without that nobody is given anything until it runs out.
    async fn unpin(&mut self) {
        let Some(pin_id) = self.pin_id.take() else { return };
        let (stream, name) = (&self.stream, &self.spec.name);
        let is_ours = stream.consumer_info(name).await.is_ok_and(|info| {
            info.priority_groups.iter().any(|group| group.pinned_client_id.as_deref() == Some(&pin_id))
        });
        if is_ours && let Err(error) = stream.unpin_consumer(name, GROUP).await {
            tracing::debug!(consumer = name, %error, "a pin was not given up, it will run out");
        }
    }

    async fn reopen(&mut self) -> Result<(), ConsumeError> {
        self.unpin().await;
        let (priority_policy, priority_groups, priority_timeout) = if self.spec.is_pinned {
            (PriorityPolicy::PinnedClient, vec![GROUP.to_owned()], PIN_TIMEOUT)
        } else {
            (PriorityPolicy::None, Vec::new(), Duration::ZERO)
        };
        let config = pull::Config {
            durable_name: Some(self.spec.name.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.spec.ack_wait,
            max_ack_pending: self.spec.ack_pending_max,
            filter_subjects: self.subjects.clone(),
            priority_policy,
            priority_groups,
            priority_timeout,
            ..pull::Config::default()
        };
        let failed = |error: &dyn std::error::Error| ConsumeError(error.to_string());
        let consumer = self.stream.create_consumer(config).await.map_err(|error| failed(&error))?;
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(self.spec.batch_max)
            .expires(PULL_EXPIRY)
            .heartbeat(PULL_HEARTBEAT);
        if self.spec.is_pinned {
            messages = messages.group(GROUP);
        }
        self.messages = Some(messages.messages().await.map_err(|error| failed(&error))?);
        self.failures = 0;
        Ok(())
    }
}

impl Entry {
    fn new(message: Message) -> Option<Self> {
        // A message without JetStream's reply subject did not come from a consumer.
        let (stream_seq, deliveries) = message.info().map(|info| (info.stream_sequence, info.delivered)).ok()?;
        Some(Self { stream_seq: StreamSeq(stream_seq), deliveries: deliveries.unsigned_abs(), message })
    }

    /// The entry's bytes.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// The subject it was appended to.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The event in it, if it is one and stands on its own subject.
    pub fn event(&self) -> Result<Event, NotAnEntry> {
        read(self.subject(), self.payload())
    }

    /// Says what becomes of it. If that doesn't reach the server it is delivered again.
    pub async fn settle(&self, outcome: Outcome) {
        self.acknowledge(match outcome {
            Outcome::Done => AckKind::Ack,
            Outcome::RetryAfter(delay) => AckKind::Nak(Some(delay).filter(|delay| !delay.is_zero())),
            Outcome::Discard => AckKind::Term,
        })
        .await;
    }

    /// Asks for another `ack_wait` before it is delivered again.
    pub async fn extend(&self) {
        self.acknowledge(AckKind::Progress).await;
    }

    async fn acknowledge(&self, kind: AckKind) {
        let error = match tokio::time::timeout(SETTLE_WAIT_MAX, self.message.ack_with(kind)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "NATS takes nothing now".to_owned(),
        };
        tracing::debug!(
            stream_seq = self.stream_seq.0,
            error,
            "an entry could not be settled, it will be delivered again"
        );
    }
}
