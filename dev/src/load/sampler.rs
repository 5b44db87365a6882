//! Looks at every process once a second while a load goes on.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use chat_load::clock;

use super::{cost, subject::Watched};

/// What the processes were seen to use, in their order.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Seconds after the start.
    pub at: f64,
    /// Processor seconds so far. None of a process that had ended.
    pub cpu: Vec<Option<f64>>,
    /// Memory. None of a process that had ended.
    pub memory: Vec<Option<u64>>,
}

/// Goes on until it is ended or dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: mpsc::SyncSender<()>,
    thread: thread::JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Looks at whole seconds after `start_us` of the monotonic clock, on a thread of its own, so that what the runtime
    /// does meanwhile doesn't matter.
    pub fn begin(watched: Vec<Watched>, start_us: u64) -> Self {
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            for second in 0.. {
                let due_us = start_us + second * 1_000_000;
                let wait = Duration::from_micros(due_us.saturating_sub(clock::now_us()));
                if !matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                    break;
                }
                samples.push(sample(&watched, start_us));
            }
            samples.push(sample(&watched, start_us));
            samples
        });
        Self { stop, thread }
    }

    /// Everything that was seen, the moment of this call included.
    pub fn end(self) -> Result<Vec<Sample>> {
        self.stop.try_send(()).context("nobody looked at the processes")?;
        self.thread.join().map_err(|_| anyhow!("looking at the processes failed"))
    }
}

fn sample(watched: &[Watched], start_us: u64) -> Sample {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a few minutes")]
    let at = clock::now_us().saturating_sub(start_us) as f64 / 1e6;
    Sample {
        at,
        cpu: watched.iter().map(|watched| cost::cpu_seconds(watched).ok()).collect(),
        memory: watched.iter().map(|watched| cost::memory_bytes(watched).ok()).collect(),
    }
}
