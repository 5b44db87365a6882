//! The form of a pack: bodies of one day in the order of conversations and numbers, in chunks that are read one by one.
//!
//! A pack is [`MAGIC`] and its chunks. A chunk is a MessagePack list of runs, a run the conversation's id (16 bytes) and a
//! list of pairs: a message's number less the number before it in the run, and its sealed body. Where chunks begin is
//! kept outside, in PostgreSQL. Bodies stay sealed, so that nothing here has to be trusted.

use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use chat_shared::packed;
use serde_bytes::{ByteArray, ByteBuf, Bytes as Body};
use uuid::Uuid;

/// The first bytes of every pack; the last one is the form's version.
pub const MAGIC: &[u8] = b"CHATPACK\x01";
/// Bytes of a chunk, unless one body alone is longer: the least that a page of old history reads.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// Bytes of MessagePack around a body, at most.
const ENTRY_OVERHEAD: usize = 1 + 9 + 5;
/// Bytes around a run, with the conversation's id.
const RUN_OVERHEAD: usize = 1 + 2 + 16 + 5;

type RunOf<B> = (ByteArray<16>, Vec<(u64, B)>);

/// Bodies on their way into a pack.
#[derive(Debug)]
pub struct Draft {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    messages: u64,
    runs: Vec<RunOf<ByteBuf>>,
    /// Bytes of the runs, once they are written.
    runs_len: usize,
    first: Option<Key>,
    last: Option<Key>,
}

/// A message's conversation and number: its place in the order of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The number, above zero.
    pub seq: u64,
}

/// A part of a pack that is read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its first message.
    pub first: Key,
    /// Its first byte in the pack.
    pub place: u32,
    /// Its bytes.
    pub length: u32,
}

/// A whole pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The object in the store.
    pub bytes: Bytes,
    /// The SHA-256 of the bytes.
    pub sha256: Vec<u8>,
    /// Its chunks, in order.
    pub chunks: Vec<Chunk>,
    /// Bodies in it.
    pub messages: u64,
    /// Its last message.
    pub last: Key,
}

/// A body in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its message.
    pub key: Key,
    /// Its sealed bytes.
    pub body: &'a [u8],
}

/// Bytes that no draft writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a chunk of a pack: the object in the store is damaged")]
pub struct Malformed;

impl Default for Draft {
    fn default() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
            chunks: Vec::new(),
            messages: 0,
            runs: Vec::new(),
            runs_len: 0,
            first: None,
            last: None,
        }
    }
}

impl Draft {
    /// Adds a body. Those of a pack are added in the order of their keys.
    ///
    /// # Panics
    /// If it comes before the body that was added last: the index of chunks would not find it.
    pub fn push(&mut self, key: Key, body: Vec<u8>) {
        assert!(self.last.is_none_or(|last| last < key), "bodies are added in order");
        if self.first.is_some() && self.runs_len + RUN_OVERHEAD + ENTRY_OVERHEAD + body.len() > CHUNK_BYTES_MAX {
            self.close_chunk();
        }
        self.first.get_or_insert(key);
        self.runs_len += ENTRY_OVERHEAD + body.len();
        match (self.runs.last_mut(), self.last) {
            (Some((_, run)), Some(last)) if last.conversation_id == key.conversation_id => {
                run.push((key.seq - last.seq, ByteBuf::from(body)));
            }
            _ => {
                self.runs_len += RUN_OVERHEAD;
                self.runs.push((ByteArray::new(*key.conversation_id.as_bytes()), vec![(key.seq, ByteBuf::from(body))]));
            }
        }
        self.messages += 1;
        self.last = Some(key);
    }

    /// Bytes of the pack so far, at the most.
    pub fn bytes_max(&self) -> usize {
        self.bytes.len() + self.runs_len
    }

    /// The pack; none without a body.
    pub fn finish(mut self) -> Option<Pack> {
        let last = self.last?;
        self.close_chunk();
        let Self { bytes, chunks, messages, .. } = self;
        Some(Pack { sha256: sha256(&bytes), bytes: bytes.into(), chunks, messages, last })
    }

    fn close_chunk(&mut self) {
        let Some(first) = self.first.take() else { return };
        let place = self.bytes.len();
        rmp_serde::encode::write(&mut self.bytes, &self.runs).expect("memory takes what is written");
        let length = self.bytes.len() - place;
        let short = |number: usize| u32::try_from(number).expect("packs are shorter than 4 GiB");
        self.chunks.push(Chunk { first, place: short(place), length: short(length) });
        self.runs.clear();
        self.runs_len = 0;
    }
}

/// The SHA-256 of an object.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// The bodies of a chunk, in order.
pub fn entries(chunk: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
    let runs: Vec<RunOf<&Body>> = packed::read(chunk).map_err(|_| Malformed)?;
    let mut entries = Vec::with_capacity(runs.iter().map(|(_, run)| run.len()).sum());
    for (id, run) in runs {
        let conversation_id = Uuid::from_bytes(id.into_array());
        let mut seq = 0_u64;
        for (step, body) in run {
            seq = seq.checked_add(step).filter(|_| step > 0).ok_or(Malformed)?;
            entries.push(Entry { key: Key { conversation_id, seq }, body });
        }
    }
    Ok(entries)
}

/// The bytes of a chunk in the whole pack.
pub fn chunk_of(pack: &[u8], place: u32, length: u32) -> Result<&[u8], Malformed> {
    pack.get(range(place, length)).filter(|_| pack.starts_with(MAGIC)).ok_or(Malformed)
}

fn range(place: u32, length: u32) -> Range<usize> {
    let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    wide(place)..wide(place).saturating_add(wide(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies() -> impl Strategy<Value = Vec<(Key, Vec<u8>)>> {
        let one = (0..6_u128, 1..400_u64, proptest::collection::vec(any::<u8>(), 0..3000));
        proptest::collection::vec(one, 0..300).prop_map(|bodies| {
            let mut bodies: Vec<_> = bodies
                .into_iter()
                .map(|(id, seq, body)| (Key { conversation_id: Uuid::from_u128(id), seq }, body))
                .collect();
            bodies.sort_by_key(|(key, _)| *key);
            bodies.dedup_by_key(|(key, _)| *key);
            bodies
        })
    }

    fn pack(bodies: &[(Key, Vec<u8>)]) -> Option<Pack> {
        let mut draft = Draft::default();
        for (key, body) in bodies {
            draft.push(*key, body.clone());
        }
        draft.finish()
    }

    proptest! {
        #[test]
        fn every_body_is_found_by_the_last_chunk_that_does_not_begin_after_it_r12_3(bodies in bodies()) {
            let Some(pack) = pack(&bodies) else {
                prop_assert!(bodies.is_empty());
                return Ok(());
            };
            prop_assert_eq!(pack.messages, bodies.len() as u64);
            prop_assert_eq!(Some(pack.last), bodies.last().map(|(key, _)| *key));
            for (key, body) in &bodies {
                let chunk = pack.chunks.iter().rev().find(|chunk| chunk.first <= *key).unwrap();
                let bytes = chunk_of(&pack.bytes, chunk.place, chunk.length).unwrap();
                let found = entries(bytes).unwrap().into_iter().find(|entry| entry.key == *key).unwrap();
                prop_assert_eq!(found.body, body.as_slice());
            }
            let ends = pack.chunks.iter().map(|chunk| (chunk.place + chunk.length) as usize);
            let begins = pack.chunks.iter().skip(1).map(|chunk| chunk.place as usize).chain([pack.bytes.len()]);
            prop_assert!(ends.eq(begins), "chunks lie side by side");
            prop_assert!(pack.chunks.iter().all(|chunk| chunk.length as usize <= CHUNK_BYTES_MAX));
        }

        #[test]
        fn fuzz_no_bytes_make_reading_a_chunk_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let _any = entries(&bytes);
            let key = Key { conversation_id: Uuid::from_u128(1), seq: 1 };
            let pack = pack(&[(key, bytes)]).unwrap();
            let mut damaged = pack.bytes[MAGIC.len()..].to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            let _damaged = entries(&damaged);
            let _cut = entries(&damaged[..at]);
        }
    }

    #[test]
    fn a_chunk_outside_its_pack_is_malformed() {
        let pack = pack(&[(Key { conversation_id: Uuid::from_u128(1), seq: 1 }, b"sealed".to_vec())]).unwrap();
        let Chunk { place, length, .. } = pack.chunks[0];
        assert!(chunk_of(&pack.bytes, place, length).is_ok());
        assert_eq!(chunk_of(&pack.bytes, place, length + 1), Err(Malformed));
        assert_eq!(chunk_of(&pack.bytes, u32::MAX, u32::MAX), Err(Malformed));
        assert_eq!(chunk_of(&pack.bytes[1..], place, 1), Err(Malformed), "another form");
    }
}
