//! Readiness as latches: each thing a process needs sets its own, and the process is ready when all are set.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

/// All latches of a process.
#[derive(Debug, Clone, Default)]
pub struct Health {
    latches: Arc<Mutex<Vec<(&'static str, Latch)>>>,
}

/// One thing that the process needs to be ready.
#[derive(Debug, Clone, Default)]
pub struct Latch(Arc<AtomicBool>);

impl Health {
    /// A new latch, not set.
    pub fn latch(&self, name: &'static str) -> Latch {
        let latch = Latch::default();
        self.latches.lock().push((name, latch.clone()));
        latch
    }

    /// The names of the latches that are not set. A process that has none yet has only just begun.
    pub fn missing(&self) -> Vec<&'static str> {
        let latches = self.latches.lock();
        if latches.is_empty() {
            return vec!["the start"];
        }
        latches.iter().filter(|(_, latch)| !latch.is_set()).map(|(name, _)| *name).collect()
    }
}

impl Latch {
    /// Sets or clears it.
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_ready_before_it_has_said_what_it_needs() {
        let health = Health::default();
        assert!(!health.missing().is_empty());
        let (one, other) = (health.latch("one"), health.latch("other"));
        one.set(true);
        assert_eq!(health.missing(), ["other"]);
        other.set(true);
        assert!(health.missing().is_empty());
    }
}
