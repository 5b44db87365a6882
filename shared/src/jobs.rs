//! The notifications that are still to be sent: a work queue on JetStream, which any notifier takes from.
//!
//! A job is a reason to look whether somebody has to be notified. What is true then decides, not what was true when the
//! job was made; so a job too many does no harm.

use std::time::Duration;

use async_nats::{
    HeaderMap, HeaderValue,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self,
        context::PublishErrorKind,
        message::PublishMessage,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, Epoch, MessageId, UserId},
    inbox::Unconfirmed,
    limits,
    log::{
        ConsumeError, Consumer, ConsumerSpec, LogError, Part, Replicas, find_or_make, publish_together, refuse_faults,
    },
    packed,
    position::{Cursor, Seq},
    sealing::Envelope,
};

/// Bytes of the queue at the most; full means that notifications are dropped and counted, never that chat waits.
const BYTES_MAX: i64 = 512 * 1024 * 1024;
/// The queue takes no more than this part of what the log may.
const LOG_SHARE: i64 = 8;
/// How long a repeated job is recognised.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(10);
/// Jobs from which on several go in one write, which costs the server about as much as that many single ones.
const TOGETHER_MIN: usize = 24;
/// Jobs of one write.
pub const JOBS_TOGETHER_MAX: usize = 256;
/// Jobs of customers that wait are the same within this time: gateways look more often. How often a user is notified is decided
/// when a job is worked on.
const WAITING_BUCKET_MS: i64 = 60_000;
/// How long one write may take.
const ADD_WAIT_MAX: Duration = Duration::from_secs(1);

/// A reason to look whether a user has to be notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// A message came while the user had no live session, or was not confirmed by any.
    Message(MessageJob),
    /// A case was assigned to an agent who had no live session, or whose sessions did not confirm the assignment.
    Assigned(AssignedJob),
    /// A session ended, and nobody has confirmed these entries of the user's inbox.
    SessionEnded {
        /// Whose.
        user_id: UserId,
        /// The inbox' epoch.
        epoch: Epoch,
        /// They begin after this one,
        after: Cursor,
        /// and end with this one.
        up_to: Cursor,
    },
    /// The user has read something on one of their devices; the others show too large a number, or a notification of it.
    ReadElsewhere {
        /// Who.
        user_id: UserId,
        /// What; none in jobs of versions that don't name it.
        #[serde(default)]
        read: Option<ReadUpTo>,
    },
    /// Customers of a business wait, and no agent is there.
    Waiting(WaitingJob),
}

/// How far a user has read in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadUpTo {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Up to here.
    pub read_seq: Seq,
}

/// A message that a user may have to be notified of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageJob {
    /// Whom.
    pub user_id: UserId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The message.
    pub message_id: MessageId,
    /// Its number.
    pub seq: Seq,
    /// Who sent it. The sealed text is opened with it.
    pub sender_id: UserId,
    /// The id under which the user is shown the sender, if it is another one: to the customer of a business conversation the
    /// business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_sender_id: Option<UserId>,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Where it stands in the user's inbox; none if they had no inbox.
    pub place: Option<(Epoch, Cursor)>,
    /// The sealed text, if notifications show it.
    pub envelope: Option<Envelope>,
}

/// An assignment of a case, of which its agent may have to be notified because of the messages before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedJob {
    /// The agent.
    pub user_id: UserId,
    /// The business conversation.
    pub conversation_id: ConversationId,
    /// The version of the participants that begins with the assignment.
    pub version: u64,
    /// The number of the last message before the assignment; zero if there is none.
    pub seq: Seq,
    /// The customer.
    pub customer_id: UserId,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Its place in the agent's inbox; none if there was no inbox.
    pub place: Option<(Epoch, Cursor)>,
}

/// Customers that wait while no agent of the business is there, of which a supervisor may have to be notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    /// The supervisor or admin.
    pub user_id: UserId,
    /// The business.
    pub business_id: BusinessId,
    /// When a gateway found it so.
    pub found_at: Timestamp,
}

/// Bytes that are no job.
#[derive(Debug, thiserror::Error)]
#[error("the job can't be read: {0}")]
pub struct UnreadableJob(#[from] rmp_serde::decode::Error);

impl Job {
    /// The job that a departure makes necessary.
    pub const fn session_ended(user_id: UserId, unconfirmed: Unconfirmed) -> Self {
        let Unconfirmed { epoch, after, up_to } = unconfirmed;
        Self::SessionEnded { user_id, epoch, after, up_to }
    }

    /// The job that `bytes` hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableJob> {
        Ok(packed::read(bytes)?)
    }

    fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("jobs are maps of numbers, strings and bytes, which always encode")
    }

    /// The same for jobs that ask the same; none if each counts.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Message(job) => {
                Some(format!("{}:{}", job.user_id.as_uuid().simple(), job.message_id.as_uuid().simple()))
            }
            Self::Assigned(AssignedJob { user_id, conversation_id, version, .. }) => {
                Some(format!("{}:{}:{version}", user_id.as_uuid().simple(), conversation_id.as_uuid().simple()))
            }
            Self::SessionEnded { user_id, epoch, after, up_to } => {
                let (user, epoch) = (user_id.as_uuid().simple(), epoch.as_uuid().simple());
                Some(format!("{user}:{epoch}:{}:{}", after.0, up_to.0))
            }
            Self::ReadElsewhere { .. } => None,
            Self::Waiting(WaitingJob { user_id, business_id, found_at }) => {
                let (user, business) = (user_id.as_uuid().simple(), business_id.as_uuid().simple());
                let bucket = found_at.0.div_euclid(WAITING_BUCKET_MS);
                Some(format!("{user}:{business}:waiting:{bucket}"))
            }
        }
    }
}

/// The queue, opened.
#[derive(Debug, Clone)]
pub struct Jobs {
    client: async_nats::Client,
    context: jetstream::Context,
    stream: Stream<()>,
    subject: String,
    /// How the queue is made.
    config: Config,
    /// Whether several can be added in one write.
    takes_batches: bool,
}

/// What became of added jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// They stand in the queue, durably.
    All,
    /// So many were dropped because the queue is full.
    Dropped(usize),
}

/// Jobs that may or may not stand in the queue. Adding them again does no harm.
#[derive(Debug, thiserror::Error)]
#[error("the queue of notifications can't be reached: {0}")]
pub struct NotAdded(String);

impl Jobs {
    /// Opens the namespace's queue, and makes it if it isn't there. It has as many copies as the log.
    pub async fn open(client: &async_nats::Client, namespace: &str, replicas: Replicas) -> Result<Self, LogError> {
        let context = jetstream::ContextBuilder::new()
            .timeout(limits::APPEND_WAIT_MAX)
            .ack_timeout(ADD_WAIT_MAX)
            .build(client.clone());
        let subject = format!("{namespace}.notifications");
        let name = format!("{namespace}-notifications");
        let bytes_max = match replicas.bytes_max {
            // A log without a bound.
            ..=0 => BYTES_MAX,
            bytes => (bytes / LOG_SHARE + 1).min(BYTES_MAX),
        };
        let config = Config {
            name: name.clone(),
            subjects: vec![subject.clone()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_age: limits::NOTIFICATION_TTL,
            max_bytes: bytes_max,
            duplicate_window: DUPLICATE_WINDOW,
            num_replicas: replicas.count,
            allow_atomic_publish: true,
            ..Config::default()
        };
        let found = Box::pin(find_or_make(&context, &config)).await.map_err(LogError::from_jetstream)?;
        let found = &found.cached_info().config;
        // A job too many does no harm, so any window will do.
        refuse_faults(found, &Config { duplicate_window: Duration::ZERO, ..config.clone() })?;
        let takes_batches = found.allow_atomic_publish;
        let stream = context.get_stream_no_info(&name).await.map_err(LogError::from_jetstream)?;
        Ok(Self { client: client.clone(), context, stream, subject, config, takes_batches })
    }

    /// Makes the queue again if it is gone.
    pub async fn ensure(&self) -> Result<(), LogError> {
        let found = self.context.get_or_create_stream(self.config.clone()).await;
        found.map(drop).map_err(LogError::from_jetstream)
    }

    /// Adds jobs. Those that stand in the queue already are not added again.
    pub async fn add(&self, jobs: &[Job]) -> Result<Added, NotAdded> {
        let mut dropped = 0;
        for part in jobs.chunks(JOBS_TOGETHER_MAX) {
            let added = tokio::time::timeout(ADD_WAIT_MAX, self.add_part(part)).await;
            dropped += added.unwrap_or_else(|_| Err(NotAdded("NATS takes nothing now".to_owned())))?;
        }
        Ok(if dropped == 0 { Added::All } else { Added::Dropped(dropped) })
    }

    /// How many were dropped.
    async fn add_part(&self, jobs: &[Job]) -> Result<usize, NotAdded> {
        if self.takes_batches && jobs.len() >= TOGETHER_MIN {
            let parts = jobs.iter().map(|job| Part {
                subject: self.subject.clone(),
                headers: job
                    .id()
                    .map(|id| HeaderMap::from_iter([(NATS_MESSAGE_ID, HeaderValue::from(id))]))
                    .unwrap_or_default(),
                payload: job.encode().into(),
            });
            // It is refused whole if one of them stands there already, or there isn't room for all.
            if publish_together(&self.client, &self.context, parts).await.is_ok() {
                return Ok(0);
            }
        }
        let taken = join_all(jobs.iter().map(|job| self.add_one(job))).await;
        let taken = taken.into_iter().collect::<Result<Vec<bool>, _>>()?;
        Ok(taken.into_iter().filter(|is_taken| !is_taken).count())
    }

    /// False if the queue is full.
    async fn add_one(&self, job: &Job) -> Result<bool, NotAdded> {
        let mut publish = PublishMessage::build().payload(job.encode().into());
        if let Some(id) = job.id() {
            publish = publish.message_id(id);
        }
        let adding = async { self.context.send_publish(self.subject.clone(), publish).await?.await };
        match adding.await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::Other && error.to_string().contains("maximum bytes") => {
                Ok(false)
            }
            Err(error) => Err(NotAdded(error.to_string())),
        }
    }

    /// Jobs that are to be done, those that rest between attempts included.
    pub async fn waiting(&self) -> Result<u64, LogError> {
        let info = self.stream.get_info().await.map_err(LogError::from_jetstream)?;
        Ok(info.state.messages)
    }

    /// Opens the consumer that all instances share.
    pub async fn consumer(&self, spec: ConsumerSpec) -> Result<Consumer, ConsumeError> {
        Consumer::open(self.stream.clone(), Vec::new(), spec).await
    }
}
