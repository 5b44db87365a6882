//! Bytes of heads that have not come whole, which cost memory before it is known who sends them.

use std::{io, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry;

/// Bytes of a head that each connection may have without asking: its first buffer, whatever comes.
const HEAD_BYTES_FREE: usize = 8 * 1024;
/// Bytes of all heads together beyond those. A connection whose head needs more is closed.
const HEADS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is left for the large heads of all connections.
#[derive(Debug, Clone)]
pub struct Heads(Arc<Semaphore>);

/// The head that a connection is sending.
#[derive(Debug)]
pub struct Head {
    heads: Heads,
    bytes: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl Default for Heads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HEADS_BYTES_MAX)))
    }
}

impl Head {
    pub fn new(heads: &Heads) -> Self {
        Self { heads: heads.clone(), bytes: 0, taken: None }
    }

    /// Counts bytes that have come.
    pub fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let before = self.bytes.max(HEAD_BYTES_FREE);
        self.bytes = self.bytes.saturating_add(bytes);
        let more = self.bytes.saturating_sub(before);
        if more == 0 {
            return Ok(());
        }
        let full = || {
            metrics::counter!(telemetry::EDGE_REFUSED_TOTAL, "reason" => "heads").increment(1);
            io::Error::other("the heads of all requests take too much")
        };
        let more = u32::try_from(more).map_err(io::Error::other)?;
        let more = Arc::clone(&self.heads.0).try_acquire_many_owned(more).map_err(|_| full())?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// It is complete.
    pub fn end(&mut self) {
        self.bytes = 0;
        self.taken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_what_there_is() {
        let heads = Heads(Arc::new(Semaphore::new(10_000)));
        let [mut one, mut other, mut small] = [(); 3].map(|()| Head::new(&heads));
        one.grow(HEAD_BYTES_FREE).unwrap();
        one.grow(9_000).unwrap();
        other.grow(HEAD_BYTES_FREE + 1_000).unwrap();
        assert!(other.grow(1).is_err(), "nothing is left");
        small.grow(HEAD_BYTES_FREE).unwrap();
        one.end();
        other.grow(9_000).unwrap();
        drop(other);
        assert_eq!(heads.0.available_permits(), 10_000);
    }
}
