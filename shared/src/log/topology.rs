//! Opens the stream, or makes it: slots, subjects, bounds, and the server that it needs.

use std::{fmt, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        self,
        context::CreateStreamErrorKind,
        stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
    },
};

use super::{
    Log, LogState,
    faults::{Faults, refuse_faults},
    stall::Stall,
};
use crate::{clock::Timestamp, ids::ConversationId, limits, position::StreamSeq};

/// The oldest NATS server that numbers messages rightly with three replicas.
const SERVER_VERSION_MIN: (u32, u32, u32) = (2, 12, 9);
/// How many slots the conversations are spread over. Part of every subject, so it never changes.
pub const SLOTS: u8 = 64;

/// The share of the log that a conversation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u8);

impl Slot {
    /// The slot of a conversation: its id's last byte, which is random, over 64 values.
    pub const fn of(conversation_id: ConversationId) -> Self {
        Self(conversation_id.as_uuid().as_bytes()[15] % SLOTS)
    }

    /// The slots that belong to part `part` of `parts`.
    pub fn part(part: u8, parts: u8) -> impl Iterator<Item = Self> {
        (0..SLOTS).filter(move |slot| slot % parts == part).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many servers keep the log, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    /// Servers that hold a copy: 1 or 3.
    pub count: usize,
    /// Bytes of the whole stream; full means that appends are refused.
    pub bytes_max: i64,
}

/// Why the log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The server numbers messages wrongly or can't make them durable.
    #[error("NATS server {found} is too old: 2.12.9 or later is needed for right numbering; upgrade the server")]
    ServerTooOld {
        /// The version it gave.
        found: String,
    },
    /// The server has no JetStream, or not for this user.
    #[error("NATS has no JetStream: turn it on in the server's configuration, and for this user's account")]
    NoJetStream,
    /// The stream loses what was accepted.
    #[error(transparent)]
    Unfit(#[from] Faults),
    /// JetStream refused or didn't answer.
    #[error("JetStream can't open the log: {0}; is JetStream enabled on the NATS server?")]
    JetStream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LogError {
    pub(crate) fn from_jetstream(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::JetStream(Box::new(error))
    }
}

impl Log {
    /// Opens the namespace's stream, and makes it if it isn't there.
    pub async fn open(client: &Client, namespace: &str, replicas: Replicas) -> Result<Self, LogError> {
        refuse_old_server(&client.server_info().version)?;
        let context = jetstream::ContextBuilder::new()
            .timeout(limits::APPEND_WAIT_MAX)
            .ack_timeout(limits::APPEND_WAIT_MAX)
            .max_ack_inflight(APPENDS_IN_FLIGHT_MAX)
            .build(client.clone());
        let name = stream_name(namespace);
        let config = stream_config(namespace, replicas);
        let found = Box::pin(find_or_make(&context, &config)).await.map_err(LogError::from_jetstream)?;
        let found = &found.cached_info().config;
        refuse_faults(found, &config)?;
        warn_of_differences(found, &config);
        let takes_batches = found.allow_atomic_publish;
        let stream = context.get_stream_no_info(&name).await.map_err(LogError::from_jetstream)?;
        let (namespace, client, stall) = (namespace.to_owned(), client.clone(), Stall::of(client.clone()));
        let log = Self { namespace, name, client, context, stream, takes_batches, stall };
        Box::pin(log.settle()).await?;
        Ok(log)
    }

    /// Waits until the stream is known where it is asked for: a cluster may have made it and not know of it yet.
    async fn settle(&self) -> Result<(), LogError> {
        for _ in 1..OPEN_ATTEMPTS_MAX {
            if self.state().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(OPEN_PAUSE).await;
        }
        self.state().await.map(drop)
    }

    /// How far the stream goes now.
    pub async fn state(&self) -> Result<LogState, LogError> {
        let info = self.stream.get_info().await.map_err(LogError::from_jetstream)?;
        Ok(state_of(&info))
    }
}

/// How far a stream goes.
pub(super) fn state_of(info: &Info) -> LogState {
    LogState {
        name: info.config.name.clone(),
        created_at: Timestamp(i64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)),
        first: StreamSeq(info.state.first_sequence),
        last: StreamSeq(info.state.last_sequence),
    }
}

/// How the stream is made.
pub(super) fn stream_config(namespace: &str, replicas: Replicas) -> Config {
    Config {
        name: stream_name(namespace),
        subjects: vec![format!("{namespace}.*.message.*"), format!("{namespace}.*.fact")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age: limits::LOG_AGE_MAX,
        max_bytes: replicas.bytes_max,
        duplicate_window: limits::DUPLICATE_WINDOW,
        num_replicas: replicas.count,
        allow_direct: true,
        deny_delete: true,
        allow_atomic_publish: true,
        ..Config::default()
    }
}

/// JetStream's answer about a stream that it doesn't know, or not yet.
pub(super) const NOT_FOUND: usize = 404;
/// JetStream's answer while it has nobody to ask.
const UNAVAILABLE: usize = 503;
/// Attempts to open the stream.
const OPEN_ATTEMPTS_MAX: u32 = 6;
/// Between two of them.
const OPEN_PAUSE: Duration = Duration::from_millis(300);

/// Finds the stream, or makes it, and says how it is. Of two who make the same stream at once a cluster answers one; the other hears nothing,
/// or that there is no such stream, and so does everybody while it chooses who leads it. Asked again, it does.
pub(crate) async fn find_or_make(
    context: &jetstream::Context,
    config: &Config,
) -> Result<Stream, jetstream::context::CreateStreamError> {
    let mut attempts = 1;
    loop {
        match context.get_or_create_stream(config.clone()).await {
            Err(error) if may_pass(error.kind()) && attempts < OPEN_ATTEMPTS_MAX => {
                tracing::warn!(attempts, %error, "JetStream did not say whether the log is there, asking again");
                attempts += 1;
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn may_pass(kind: CreateStreamErrorKind) -> bool {
    match kind {
        CreateStreamErrorKind::TimedOut => true,
        CreateStreamErrorKind::JetStream(error) => matches!(error.code(), NOT_FOUND | UNAVAILABLE),
        _ => false,
    }
}

/// The name of the namespace's stream.
pub fn stream_name(namespace: &str) -> String {
    format!("{namespace}-log")
}

/// Appends of one process that wait for their answer; one more waits for its turn, within the time of its request.
const APPENDS_IN_FLIGHT_MAX: usize = 4096;

/// An existing stream stays as it is: the settings count only when it is made.
fn warn_of_differences(found: &Config, wanted: &Config) {
    let chosen = |config: &Config| (config.num_replicas, config.max_bytes, config.allow_atomic_publish);
    if chosen(found) != chosen(wanted) {
        tracing::warn!(
            replicas = found.num_replicas,
            wanted_replicas = wanted.num_replicas,
            bytes_max = found.max_bytes,
            wanted_bytes_max = wanted.max_bytes,
            allow_atomic = found.allow_atomic_publish,
            "the log's stream was made with other settings, and keeps them; change it with the NATS tools"
        );
    }
}

pub(super) fn refuse_old_server(version: &str) -> Result<(), LogError> {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < SERVER_VERSION_MIN { Err(LogError::ServerTooOld { found: version.to_owned() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_number_wrongly_are_refused() {
        for old in ["2.9.10", "2.10.26", "2.12.8", "", "nonsense"] {
            assert!(matches!(refuse_old_server(old), Err(LogError::ServerTooOld { .. })), "{old}");
        }
        for good in ["2.12.9", "2.15.1", "2.13.0-RC.1", "3.0.0"] {
            assert!(refuse_old_server(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_parts_share_all_slots_among_them() {
        let mut slots: Vec<_> = (0..16).flat_map(|part| Slot::part(part, 16)).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..SLOTS).map(Slot).collect::<Vec<_>>());
    }
}
