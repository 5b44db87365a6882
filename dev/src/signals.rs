//! Waiting for the signals that ask this program to end.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM and the terminal going away.
#[derive(Debug)]
pub struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    minds_terminal: bool,
}

impl Ending {
    /// From here on these signals no longer end the program by themselves.
    /// A program in the background does not mind its terminal going away.
    pub fn listen(minds_terminal: bool) -> Result<Self> {
        let open = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: open(SignalKind::interrupt())?,
            terminate: open(SignalKind::terminate())?,
            hangup: open(SignalKind::hangup())?,
            minds_terminal,
        })
    }

    /// Waits for the next one. Cancel safe, as each branch is.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv(), if self.minds_terminal => {}
        }
    }
}
