//! What the kernel says about processes. Linux only, as everything that is measured here.

use std::{collections::BTreeMap, fs, fs::File, io::Write, path::Path, time::Instant};

use anyhow::{Context, Result};

use crate::fleet::Fleet;

/// Linux counts processor time in hundredths of a second towards programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds so far of each process of the fleet, with its children, and of this one.
pub fn cpu_seconds(fleet: &Fleet) -> Result<BTreeMap<String, f64>> {
    let mut seconds = BTreeMap::new();
    for process in fleet.processes() {
        let pid = process.pid().with_context(|| format!("{} has ended", process.name()))?;
        let mut sum = ticks(pid)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // One that ends meanwhile is counted by its parent.
            sum += ticks(child).unwrap_or_default();
        }
        seconds.insert(process.name().to_owned(), sum / TICKS_PER_SECOND);
    }
    seconds.insert("load".to_owned(), ticks(std::process::id())? / TICKS_PER_SECOND);
    Ok(seconds)
}

/// User and system time, its own and that of children that have ended.
fn ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat is not as expected")?;
    let times = fields.split_whitespace().skip(11).take(4);
    times.map(|field| field.parse::<f64>().context("/proc/…/stat is not as expected")).sum()
}

/// A process' memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All that is resident.
    pub rss: f64,
    /// With shared pages divided by those who share them.
    pub pss: f64,
    /// What no other process has.
    pub private: f64,
}

/// Reads it from `/proc`.
pub fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|value| value.parse::<f64>().ok());
        value.map(|kilobytes| kilobytes * 1024.0).with_context(|| format!("/proc/…/smaps_rollup has no {name}"))
    };
    Ok(Memory { rss: field("Rss")?, pss: field("Pss")?, private: field("Private_Clean")? + field("Private_Dirty")? })
}

/// How long a small write and its fsync take in `directory`, in the mean.
pub fn fsync_ms(directory: &Path) -> Result<f64> {
    const WRITES: u32 = 300;
    let mut file = File::create(directory.join("fsync"))?;
    let began = Instant::now();
    for _ in 0..WRITES {
        file.write_all(&[0; 700])?;
        file.sync_all()?;
    }
    Ok(began.elapsed().as_secs_f64() * 1000.0 / f64::from(WRITES))
}
