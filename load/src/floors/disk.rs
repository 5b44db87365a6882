//! A small write at a file's end, and the wait until it is durable: what a log has to do before it may answer.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::Stopwatch;
use crate::report::Spread;

/// About an event of the log.
const WRITE: [u8; 256] = [7; 256];

pub(super) fn measure(directory: &Path, length: Duration) -> Result<Spread> {
    // Has no name in the directory, so nothing is left behind however this ends.
    let mut file =
        tempfile::tempfile_in(directory).with_context(|| format!("no file can be made in {}", directory.display()))?;
    let mut stopwatch = Stopwatch::for_next(length);
    while stopwatch.is_running() {
        let began = Instant::now();
        file.write_all(&WRITE)?;
        file.sync_all()?;
        stopwatch.lap(began);
    }
    Ok(stopwatch.spread())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_a_missing_directory_named() {
        let directory = tempfile::tempdir().unwrap();
        let length = Duration::from_millis(10);
        assert!(measure(directory.path(), length).unwrap().count > 0);
        let error = measure(&directory.path().join("missing"), length).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
