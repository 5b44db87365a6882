//! Values to begin with, and bytes that are nearly right: valid ones with a few changes.

use proptest::{collection::vec, prelude::*, sample::Index};
use uuid::{Builder, Uuid};

/// What is put in place of something else: markers of both encodings that lie about what follows, and odd tokens.
const TOKENS: [&[u8]; 26] = [
    b"\xdf\xff\xff\xff\xff",                 // a map of four billion entries
    b"\xdd\xff\xff\xff\xff",                 // an array of them
    b"\xdb\xff\xff\xff\xff",                 // a text of four gigabytes
    b"\xc6\xff\xff\xff\xff",                 // bytes
    b"\xc9\xff\xff\xff\xff\x01",             // an extension
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", // the largest number
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", // the smallest
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", // no number
    b"\xc0",
    b"\xc1", // never used
    b"\x80",
    b"\x90",
    b"\xd8",
    b"\x91\x91\x91\x91\x91\x91\x91\x91",
    b"[",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"null",
    b"\xff\xfe",
];

/// One change: something goes, and something comes in its place.
#[derive(Debug, Clone)]
pub struct Change {
    at: Index,
    removed: usize,
    inserted: Vec<u8>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let begin = self.at.index(bytes.len() + 1);
        let end = begin.saturating_add(self.removed).min(bytes.len());
        bytes.splice(begin..end, self.inserted.iter().copied());
    }
}

/// The bytes with these changes, one after the other.
pub fn apply(changes: &[Change], bytes: &mut Vec<u8>) {
    for change in changes {
        change.apply(bytes);
    }
}

/// A change: a byte, a part, a token, or the end cut off.
pub fn changes() -> impl Strategy<Value = Change> {
    let removed = prop_oneof![4 => Just(1_usize), 2 => Just(0), 2 => 2..40_usize, 1 => Just(usize::MAX)];
    let inserted = prop_oneof![
        4 => vec(any::<u8>(), 1),
        2 => Just(Vec::new()),
        1 => vec(any::<u8>(), 0..20),
        3 => proptest::sample::select(&TOKENS[..]).prop_map(<[u8]>::to_vec),
    ];
    (any::<Index>(), removed, inserted).prop_map(|(at, removed, inserted)| Change { at, removed, inserted })
}

/// Valid bytes with none, one or a few changes.
pub fn mutated(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(changes(), 0..5)).prop_map(|(mut bytes, changes)| {
        apply(&changes, &mut bytes);
        bytes
    })
}

/// Any id.
pub fn id<T: TryFrom<Uuid, Error: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    any::<[u8; 16]>().prop_map(|bytes| T::try_from(Builder::from_random_bytes(bytes).into_uuid()).unwrap())
}

/// Small numbers, and the edges of what can be written.
pub fn numbers() -> impl Strategy<Value = u64> {
    let edges = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 1 << 53, 1 << 32, 255, 128, 127, 0];
    prop_oneof![0..20_u64, proptest::sample::select(edges.to_vec()), any::<u64>()]
}

/// Text of any characters.
pub fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", vec(any::<char>(), 0..40).prop_map(String::from_iter)]
}
