//! The figures of `cargo dev bench`: what the backend does on this machine, with all its parts and the load running
//! beside each other. Figures, not tests: nothing here fails because a machine is slow.

mod idle;
mod load;
mod machine;
mod report;
mod resume;
mod socket;
mod users;

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    load::Plan,
    report::{Report, Throughput},
    users::Users,
};
use crate::{
    fleet::{Fleet, FleetOptions, Profile, Programs, ServerSource},
    paths,
    servers::{Binaries, Durability},
    terminal,
};

pub use self::idle::{Held, hold};

/// Pairs of users. A user may send 50 commands a second, so this many could send 18,000 if only one of each does.
const PAIRS: usize = 400;
/// How often each user sends when all send as much as they may.
const FLAT_OUT_INTERVAL: Duration = Duration::from_millis(22);
/// Sends of one connection without an answer, at the most.
const WINDOW: usize = 2;
/// Messages a second of the open-loop load.
const OPEN_LOOP_RATE: u32 = 500;
/// Descriptors that are used besides those of connections.
const SPARE_FILES: u64 = 1000;

/// What is measured how long.
#[derive(Debug)]
pub struct Sizes {
    /// Of each load.
    pub load: Duration,
    /// Idle connections.
    pub connections: usize,
}

/// Measures everything on a fleet of its own, and prints it.
///
/// # Errors
/// If the fleet does not start, or answers wrongly.
pub async fn run(sizes: &Sizes) -> Result<()> {
    allow_many_files(sizes.connections as u64 + SPARE_FILES)?;
    let (binaries, programs) = tokio::try_join!(Binaries::find_or_fetch(), Programs::build(Profile::Release))?;
    let scratch = paths::scratch("bench")?;
    terminal::progress("starting servers and services of its own");
    let fleet = Fleet::start(FleetOptions {
        dir: Some(scratch.path().to_path_buf()),
        servers: ServerSource::Own(Durability::Kept),
        binaries: Some(binaries),
        programs: Some(programs),
        env: vec![("CHAT_HANDSHAKES_PER_SECOND_MAX".to_owned(), "100000".to_owned())],
        ..FleetOptions::default()
    })
    .await?;

    terminal::progress(&format!("{} idle connections at one gateway", sizes.connections));
    let memory = idle::measure(&fleet, sizes.connections, scratch.path()).await?;
    terminal::progress(&format!("{PAIRS} pairs of users"));
    let users = Users::make(&fleet, PAIRS).await?;
    terminal::progress(&format!("{OPEN_LOOP_RATE} messages a second"));
    let connections = u32::try_from(PAIRS * 2)?;
    let paced = Plan {
        interval: Duration::from_secs(1) * connections / OPEN_LOOP_RATE,
        window: None,
        do_both_write: true,
        length: sizes.load,
    };
    let paced = load::run(&fleet, &users, &paced).await?;
    let fsync_ms = machine::fsync_ms(scratch.path())?;
    terminal::progress("as many as there can be");
    let flat_out = Plan { interval: FLAT_OUT_INTERVAL, window: Some(WINDOW), do_both_write: false, length: sizes.load };
    let contended = Plan { do_both_write: true, ..flat_out };
    let flat_out = load::run(&fleet, &users, &flat_out).await?;
    terminal::progress("the same, with both of each pair writing at once");
    let contended = load::run(&fleet, &users, &contended).await?;
    terminal::progress("resumes");
    let resumes = resume::measure(&fleet, &users).await?;
    let report = Report {
        fsync_ms,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        flat_out: Throughput::of(flat_out),
        contended: Throughput::of(contended),
        paced_per_second: OPEN_LOOP_RATE,
        paced: Throughput::of(paced),
        memory,
        resumes,
    };
    report.print()?;
    fleet.stop().await
}

/// Raises the soft limit of this process; the fleet's processes inherit it.
fn allow_many_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let is_allowed = limit.maximum.is_none_or(|maximum| maximum >= wanted);
        ensure!(is_allowed, "{wanted} file descriptors are needed; `ulimit -Hn` allows {:?}", limit.maximum);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.or(Some(wanted)), maximum: limit.maximum })?;
    }
    Ok(())
}
