//! Log lines on their way to standard output: a thread of its own writes them, so no task waits for their reader.
//!
//! **Invariant:** writing a line never blocks. Lines that find no room are dropped and counted.

use std::{io::Write, sync::mpsc, time::Duration};

use parking_lot::Mutex;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait for the reader of standard output: some megabytes.
const LINES_MAX: usize = 10_000;
/// How long a process that ends waits for its last lines to be written.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);

/// Log lines that were dropped because standard output took none for too long.
pub(super) const LINES_DROPPED_TOTAL: &str = "chat_telemetry_lines_dropped_total";

/// Ends the writing thread, after it has written what waits. One process has one log, as `tracing` has one subscriber.
static WRITING: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts the process' log on `output`; gives where lines go, and the count of those that were dropped.
pub(super) fn start(output: impl Write + Send + 'static) -> (NonBlocking, ErrorCounter) {
    let (lines, guard) = writer(output);
    *WRITING.lock() = Some(guard);
    let dropped = lines.error_counter();
    (lines, dropped)
}

fn writer(output: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("log").finish(output)
}

/// Shows how many lines were dropped.
pub(super) fn show(dropped: &ErrorCounter) {
    metrics::counter!(LINES_DROPPED_TOTAL).absolute(dropped.dropped_lines() as u64);
}

/// Writes what waits, if its reader takes it soon. For the end of the process: later lines are lost.
pub(crate) fn flush() {
    let Some(guard) = WRITING.lock().take() else { return };
    let (done, is_done) = mpsc::channel();
    // While standard output is blocked dropping the guard would block too, so a thread does it that may be left behind.
    let flushing = std::thread::Builder::new().name("log_flush".to_owned()).spawn(move || {
        drop(guard);
        _ = done.send(());
    });
    if flushing.is_ok() {
        _ = is_done.recv_timeout(FLUSH_WAIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// An output that takes nothing until it is released.
    struct Blocked {
        released: mpsc::Receiver<()>,
        written: mpsc::Sender<usize>,
    }

    impl Write for Blocked {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // An error means that it was released for good.
            _ = self.released.recv();
            _ = self.written.send(line.len());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_nothing_blocks_nobody() {
        let (release, released) = mpsc::channel();
        let (written, lines_written) = mpsc::channel();
        let (lines, guard) = writer(Blocked { released, written });
        let dropped = lines.error_counter();
        let subscriber = tracing_subscriber::fmt().with_writer(lines).finish();
        let count = LINES_MAX + 100;
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..count {
                tracing::warn!(number, "a line");
            }
        });
        // The thread holds one line at the most beside those that wait.
        assert!((99..=100).contains(&dropped.dropped_lines()), "{}", dropped.dropped_lines());
        drop(release);
        drop(guard);
        assert_eq!(lines_written.iter().count(), count - dropped.dropped_lines(), "the others are written at the end");
    }
}
