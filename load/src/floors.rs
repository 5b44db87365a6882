//! What the parts of a machine do by themselves. A figure of the backend says little without them: disks differ by a
//! hundred times.
//!
//! Each part is measured alone and for about a second, while nothing else runs.

mod disk;
mod echo;
mod log;
mod loopback;
mod ratios;
mod rows;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::spawn_blocking;

pub use self::ratios::{accept_aim, figures};
use crate::report::{Floors, Spread};

/// Of each measurement.
const LENGTH: Duration = Duration::from_secs(1);
/// Bytes of what is echoed: about a command or a push.
const FRAME_BYTES: usize = 100;

/// Measures all floors: files in `directory`, which should be where the log's data is, and a stream and a table of its
/// own on the given servers. Takes seven seconds and leaves nothing behind.
///
/// # Errors
/// If a server can't be reached, or refuses.
pub async fn measure(directory: &Path, nats_url: &str, postgres_url: &str) -> Result<Floors> {
    measure_for(LENGTH, directory, nats_url, postgres_url).await
}

async fn measure_for(length: Duration, directory: &Path, nats_url: &str, postgres_url: &str) -> Result<Floors> {
    let directory = directory.to_owned();
    let fsync_us = spawn_blocking(move || disk::measure(&directory, length)).await??;
    let loopback_us = spawn_blocking(move || loopback::measure(length)).await??;
    let log = log::measure(nats_url, length).await?;
    let inserts_per_second = rows::measure(postgres_url, length).await?;
    let echo = spawn_blocking(move || echo::measure(length)).await??;
    Ok(Floors {
        fsync_us,
        loopback_us,
        log_appends_per_second: log.per_second,
        log_appends_one_at_a_time_us: log.one_at_a_time_us,
        inserts_per_second,
        websocket_echo_us: echo.one_at_a_time_us,
        websocket_echoes_per_second: echo.per_second,
    })
}

/// How long each of many things took, and for how long more are to be done.
#[derive(Debug)]
struct Stopwatch {
    until: Instant,
    took_us: Vec<f64>,
}

impl Stopwatch {
    fn for_next(length: Duration) -> Self {
        Self { until: Instant::now() + length, took_us: Vec::new() }
    }

    fn is_running(&self) -> bool {
        Instant::now() < self.until
    }

    /// Counts what began then.
    fn lap(&mut self, began: Instant) {
        self.took_us.push(began.elapsed().as_secs_f64() * 1e6);
    }

    fn spread(mut self) -> Spread {
        self.took_us.sort_by(f64::total_cmp);
        let last = self.took_us.len().saturating_sub(1);
        let at = |percent: usize| self.took_us.get((last * percent).div_ceil(100)).copied().unwrap_or(0.0);
        Spread { p50: at(50), p99: at(99), count: self.took_us.len() as u64 }
    }
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[derive(serde::Deserialize)]
    struct Servers {
        postgres_url: String,
        nats_url: String,
    }

    #[tokio::test]
    async fn every_floor_is_measured_and_nothing_is_left_behind() -> Result<()> {
        let servers =
            std::env::var_os("CHAT_TEST_SERVERS").context("this test needs servers; run it with: cargo dev test")?;
        let servers: Servers = serde_json::from_slice(servers.as_encoded_bytes())?;
        let directory = tempfile::tempdir()?;
        let floors = measure_for(SHORT, directory.path(), &servers.nats_url, &servers.postgres_url).await?;
        for spread in
            [floors.fsync_us, floors.loopback_us, floors.log_appends_one_at_a_time_us, floors.websocket_echo_us]
        {
            assert!(spread.count > 0 && spread.p50 > 0.0 && spread.p99 >= spread.p50, "{floors:?}");
        }
        for rate in [floors.log_appends_per_second, floors.inserts_per_second, floors.websocket_echoes_per_second] {
            assert!(rate > 0.0 && rate.is_finite(), "{floors:?}");
        }
        assert_eq!(std::fs::read_dir(directory.path())?.count(), 0);
        log::tests::assert_gone(&servers.nats_url).await;
        rows::tests::assert_gone(&servers.postgres_url).await;
        Ok(())
    }

    #[test]
    fn a_spread_is_made_of_what_was_measured() {
        let of = |took_us: Vec<f64>| Stopwatch { until: Instant::now(), took_us }.spread();
        assert_eq!(of(vec![3.0, 1.0, 2.0]), Spread { p50: 2.0, p99: 3.0, count: 3 });
        assert_eq!(of(vec![]), Spread::default());
        let hundred = of((0..=100).map(f64::from).collect());
        assert_eq!((hundred.p50, hundred.p99), (50.0, 99.0));
    }
}
