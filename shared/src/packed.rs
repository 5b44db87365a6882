//! MessagePack between services, read within bounds: whoever can write to the log, an inbox or a subject must not be able
//! to end the processes that read it.

use rmp_serde::{Deserializer, decode::Error};
use serde::Deserialize;

/// Lists and maps within each other. The deepest of ours has seven; unbounded, reading them would run out of stack.
const DEPTH_MAX: usize = 32;

/// What the bytes say.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader)
}
