//! What processes cost, by the kernel's own counts. Linux only, as everything that is measured here.

use std::fs;

use anyhow::{Context, Result};

use super::subject::Watched;

/// Linux counts processor time in hundredths of a second towards programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;
const KILOBYTE: u64 = 1024;

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuTime {
    /// In its own code.
    pub user: f64,
    /// In the kernel on its behalf.
    pub kernel: f64,
}

impl CpuTime {
    /// Both together.
    pub fn seconds(&self) -> f64 {
        self.user + self.kernel
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self { user: self.user - before.user, kernel: self.kernel - before.kernel }
    }
}

/// Processor time of a process so far, with its children if it has a family.
///
/// # Errors
/// If it has ended.
pub fn cpu_time(watched: &Watched) -> Result<CpuTime> {
    let mut sum = CpuTime::of(watched.pid).with_context(|| format!("{} has ended", watched.name))?;
    for child in children(watched) {
        // One that ends meanwhile is counted by its parent.
        let child = CpuTime::of(child).unwrap_or_default();
        sum = CpuTime { user: sum.user + child.user, kernel: sum.kernel + child.kernel };
    }
    Ok(sum)
}

/// Processor seconds of a process so far, with its children if it has a family.
///
/// # Errors
/// If it has ended.
pub fn cpu_seconds(watched: &Watched) -> Result<f64> {
    cpu_time(watched).map(|time| time.seconds())
}

/// Bytes that a process holds. Of a family: what each has for itself, and what they share once.
///
/// # Errors
/// If it has ended.
pub fn memory_bytes(watched: &Watched) -> Result<u64> {
    let mut resident = Resident::of(watched.pid).with_context(|| format!("{} has ended", watched.name))?;
    for child in children(watched).filter_map(|child| Resident::of(child).ok()) {
        resident.own += child.own;
        resident.shared = resident.shared.max(child.shared);
        resident.files = resident.files.max(child.files);
    }
    Ok(resident.own + resident.shared + resident.files)
}

/// What a process has in memory, in bytes. Costs the kernel nothing to say, unlike [`Memory`].
struct Resident {
    own: u64,
    shared: u64,
    files: u64,
}

impl Resident {
    fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name| kilobytes(&status, name);
        Ok(Self { own: field("RssAnon")?, shared: field("RssShmem")?, files: field("RssFile")? })
    }
}

fn children(watched: &Watched) -> impl Iterator<Item = u32> {
    let list = if watched.has_family {
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", watched.pid)).unwrap_or_default()
    } else {
        String::new()
    };
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>().into_iter()
}

impl CpuTime {
    /// Its own and that of children that have ended.
    fn of(pid: u32) -> Result<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/stat"))?).context("/proc/…/stat is not as expected")
    }

    fn read(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, so fields are counted from its end.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: Vec<f64> =
            fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
        let [user, kernel, user_of_ended, kernel_of_ended] = ticks[..] else { return None };
        Some(Self {
            user: (user + user_of_ended) / TICKS_PER_SECOND,
            kernel: (kernel + kernel_of_ended) / TICKS_PER_SECOND,
        })
    }
}

/// A process' memory in bytes, in three ways to count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All that is resident.
    pub rss: u64,
    /// With shared pages divided by those who share them.
    pub pss: u64,
    /// What no other process has.
    pub private: u64,
}

impl Memory {
    /// As it is now.
    pub fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let private = kilobytes(&text, "Private_Clean")? + kilobytes(&text, "Private_Dirty")?;
        Ok(Self { rss: kilobytes(&text, "Rss")?, pss: kilobytes(&text, "Pss")?, private })
    }
}

/// What the kernel itself holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMemory {
    /// Objects such as sockets and files.
    pub slab: u64,
    /// What of it can't be given back on demand.
    pub unreclaimable: u64,
    /// Buffers of TCP, by its own count.
    pub tcp: u64,
}

impl KernelMemory {
    /// As it is now.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        Ok(Self {
            slab: kilobytes(&text, "Slab")?,
            unreclaimable: kilobytes(&text, "SUnreclaim")?,
            tcp: tcp(&sockets)?,
        })
    }
}

fn tcp(sockets: &str) -> Result<u64> {
    let line = sockets.lines().find_map(|line| line.strip_prefix("TCP:")).context("/proc/net/sockstat has no TCP")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    let pages: u64 = words.next().context("/proc/net/sockstat has no mem")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The value of `name: 123 kB`, in bytes.
pub fn kilobytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|value| value.parse::<u64>().ok());
    value.map(|kilobytes| kilobytes * KILOBYTE).with_context(|| format!("the kernel doesn't say {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let me = Watched { name: "me".into(), pid: std::process::id(), has_family: true, counts_syncs: false };
        assert!(cpu_seconds(&me).unwrap() >= 0.0);
        assert!(memory_bytes(&me).unwrap() > 100_000);
        let memory = Memory::of(me.pid).unwrap();
        assert!(memory.private <= memory.pss && memory.pss <= memory.rss, "{memory:?}");
        assert!(KernelMemory::now().unwrap().slab > 0);
    }

    #[test]
    fn time_in_the_kernel_is_told_apart_with_that_of_ended_children() {
        let time = CpuTime::read("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 200 30 40 20 0").unwrap();
        assert_eq!(time, CpuTime { user: 1.3, kernel: 2.4 });
        assert_eq!(CpuTime::read("7 (cut) S 1 2 3"), None);
    }

    #[test]
    fn figures_of_the_kernel_are_read() {
        assert_eq!(tcp("UDP: inuse 0 mem 3\nTCP: inuse 1 orphan 0 tw 7 alloc 1 mem 2\n").unwrap() % 2, 0);
        assert_eq!(kilobytes("VmHWM:\t  12 kB\nVmRSS:\t 10 kB\n", "VmRSS").unwrap(), 10_240);
        assert!(kilobytes("VmRSS: 10 kB", "VmSwap").is_err());
    }
}
