//! Reads the bodies that PostgreSQL no longer has from packs in the object store (R12.3).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chat_cold::{
    pack::{self, Key},
    store::{Store, StoreError},
};
use chat_shared::{breaker::Breaker, ids::ConversationId, position::Seq, sealing::Envelope};
use futures_util::future::join_all;
use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::sync::Semaphore;

use crate::telemetry;

/// Bytes of chunks that stay in memory: who scrolls on reads the same ones.
const CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a chunk stays after it was read last.
const CACHE_IDLE_MAX: Duration = Duration::from_mins(5);
/// Packs that one page reads. A page that spreads over more is shorter.
const PACKS_PER_PAGE_MAX: usize = 8;
/// Pages that read from the store at once; others wait.
const READERS_MAX: usize = 16;
/// How long a page waits for the store.
const READ_WAIT_MAX: Duration = Duration::from_secs(3);

/// Where a body is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColdPlace {
    /// The pack's name in the store.
    pub object: Arc<str>,
    /// The first byte of the chunk in it.
    pub place: u32,
    /// The chunk's bytes.
    pub length: u32,
}

/// Reads bodies, and keeps the chunks that were read lately.
#[derive(Clone)]
pub struct ColdBodies {
    store: Option<Store>,
    chunks: Cache<ColdPlace, Bytes>,
    breaker: Arc<Breaker>,
    readers: Arc<Semaphore>,
}

/// The bodies of a page; `None` for one that the store does not have there, or has damaged. Those that were not read are missing.
pub type Bodies = HashMap<Seq, Option<Envelope>>;

impl ColdBodies {
    /// Over a store; without one every body is out of reach.
    pub fn new(store: Option<Store>) -> Self {
        let chunks = Cache::builder()
            .max_capacity(CACHE_BYTES_MAX)
            .weigher(|_, chunk: &Bytes| u32::try_from(chunk.len()).unwrap_or(u32::MAX))
            .time_to_idle(CACHE_IDLE_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { store, chunks, breaker: Arc::default(), readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Reads bodies of a conversation, those that come first in `wanted` before the others.
    pub async fn read(&self, conversation_id: ConversationId, wanted: &[(Seq, ColdPlace)]) -> Bodies {
        let mut packs: Vec<&Arc<str>> = Vec::new();
        let mut chunks: BTreeMap<(usize, u32), (ColdPlace, Vec<Seq>)> = BTreeMap::new();
        for (seq, place) in wanted {
            let pack = match packs.iter().position(|object| **object == place.object) {
                Some(pack) => pack,
                None if packs.len() == PACKS_PER_PAGE_MAX => break,
                None => {
                    packs.push(&place.object);
                    packs.len() - 1
                }
            };
            chunks.entry((pack, place.place)).or_insert_with(|| (place.clone(), Vec::new())).1.push(*seq);
        }
        let mut bodies = Bodies::new();
        let mut missing: BTreeMap<usize, Vec<(ColdPlace, Vec<Seq>)>> = BTreeMap::new();
        for ((pack, _), (place, seqs)) in chunks {
            match self.chunks.get(&place) {
                Some(chunk) => _ = add(conversation_id, &chunk, &seqs, &mut bodies),
                None => missing.entry(pack).or_default().push((place, seqs)),
            }
        }
        if missing.is_empty() {
            return bodies;
        }
        let Some(store) = &self.store else {
            tracing::warn!("old texts are in an object store, and CHAT_COLD_STORE_URL is missing");
            return bodies;
        };
        let asked_at = Instant::now();
        if !self.breaker.permits(asked_at) {
            return bodies;
        }
        let reads = join_all(missing.into_values().map(|chunks| self.read_pack(store, chunks)));
        let answers = tokio::time::timeout(READ_WAIT_MAX, async {
            let _turn = self.readers.acquire().await;
            reads.await
        });
        let mut failure = None;
        match answers.await {
            Err(_) => failure = Some("it did not answer in time".to_owned()),
            Ok(packs) => {
                for (chunks, answer) in packs {
                    match answer {
                        Ok(read) => {
                            for ((place, seqs), chunk) in chunks.into_iter().zip(read) {
                                if add(conversation_id, &chunk, &seqs, &mut bodies) {
                                    self.chunks.insert(place, chunk);
                                }
                            }
                        }
                        // No waiting brings it back: its messages are passed over like deleted ones.
                        Err(StoreError::Missing) => {
                            for (_, seqs) in chunks {
                                bodies.extend(seqs.iter().map(|seq| (*seq, None)));
                            }
                        }
                        Err(error) => failure = Some(error.to_string()),
                    }
                }
            }
        }
        match failure {
            None => _ = self.breaker.close(Instant::now()),
            Some(error) => {
                metrics::counter!(telemetry::COLD_FAILURES_TOTAL).increment(1);
                if self.breaker.fail(asked_at, Instant::now()) {
                    tracing::warn!(error, "the object store is out of reach: old pages of history wait");
                }
            }
        }
        bodies
    }

    /// The chunks of one pack, in one request if they lie side by side.
    async fn read_pack(
        &self,
        store: &Store,
        chunks: Vec<(ColdPlace, Vec<Seq>)>,
    ) -> (Vec<(ColdPlace, Vec<Seq>)>, Result<Vec<Bytes>, StoreError>) {
        let Some((ColdPlace { object, .. }, _)) = chunks.first() else { return (chunks, Ok(Vec::new())) };
        let ranges: Vec<_> = chunks
            .iter()
            .map(|(place, _)| u64::from(place.place)..u64::from(place.place) + u64::from(place.length))
            .collect();
        metrics::counter!(telemetry::COLD_READS_TOTAL).increment(1);
        let answer = store.read_ranges(object, &ranges).await;
        (chunks, answer)
    }
}

/// Takes bodies from a chunk; false if it is no chunk. Those that it lacks are `None`.
fn add(conversation_id: ConversationId, chunk: &[u8], seqs: &[Seq], bodies: &mut Bodies) -> bool {
    let entries = pack::entries(chunk);
    let is_chunk = entries.is_ok();
    let entries = entries.unwrap_or_default();
    for seq in seqs {
        let key = Key { conversation_id: conversation_id.as_uuid(), seq: seq.0 };
        let found = entries.binary_search_by_key(&key, |entry| entry.key).ok();
        bodies.insert(*seq, found.map(|at| Envelope::from_bytes(entries[at].body.to_vec())));
    }
    is_chunk
}

/// Counts messages whose bodies are lost or damaged.
pub(super) fn count_unreadable(messages: usize) {
    tracing::error!(messages, "texts of old messages are lost or damaged in the object store, and are not shown");
    metrics::counter!(telemetry::HISTORY_UNREADABLE_TOTAL).increment(u64::try_from(messages).unwrap_or(u64::MAX));
}
