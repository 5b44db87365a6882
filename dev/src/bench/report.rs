//! The figures, as a table for people and as one line of JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{idle::PerConnection, load::Measured, resume::Resumes};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub processors: usize,
    /// A write and its fsync on the disk of the log, in the mean. One stream takes one append after the other.
    pub fsync_ms: f64,
    pub flat_out: Throughput,
    /// As many again with both of each pair writing to their conversation at once, from two gateways.
    pub contended: Throughput,
    pub paced_per_second: u32,
    pub paced: Throughput,
    pub memory: PerConnection,
    pub resumes: Resumes,
}

/// What a load came to.
#[derive(Debug, Serialize)]
pub struct Throughput {
    pub accepted_per_second: f64,
    pub delivered_per_second: f64,
    pub rejected: BTreeMap<String, u64>,
    pub never_delivered: u64,
    /// Delivered, though the sender was told that the outcome is unknown.
    pub delivered_unanswered: u64,
    pub ended_connections: BTreeMap<String, u64>,
    pub accept_ms: Percentiles,
    pub deliver_ms: Percentiles,
    pub cpu_seconds_per_1000: BTreeMap<String, f64>,
}

/// Of latencies, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub count: usize,
}

impl Throughput {
    /// From the counts of a load.
    pub fn of(measured: Measured) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let (accepted, delivered) = (measured.accepted as f64, measured.delivered as f64);
        let per_1000 = |(name, seconds): (String, f64)| (name, round(seconds * 1000.0 / accepted.max(1.0), 3));
        Self {
            accepted_per_second: round(accepted / measured.seconds, 1),
            delivered_per_second: round(delivered / measured.seconds, 1),
            rejected: measured.rejected,
            never_delivered: u64::try_from(measured.missing).unwrap_or(0),
            delivered_unanswered: u64::try_from(-measured.missing).unwrap_or(0),
            ended_connections: measured.ended,
            accept_ms: Percentiles::of(&measured.accept_us),
            deliver_ms: Percentiles::of(&measured.deliver_us),
            cpu_seconds_per_1000: measured.cpu.into_iter().map(per_1000).collect(),
        }
    }

    fn print(&self, name: &str) {
        row(name, &format!("{:.0} accepted/s, {:.0} delivered/s", self.accepted_per_second, self.delivered_per_second));
        row("  accept p50, p99, max", &self.accept_ms.line());
        row("  delivery p50, p99, max", &self.deliver_ms.line());
        let rejected: u64 = self.rejected.values().sum();
        let ended: u64 = self.ended_connections.values().sum();
        row("  rejected, never delivered", &format!("{rejected}, {}", self.never_delivered));
        if self.delivered_unanswered > 0 {
            row("  delivered, answer unknown", &format!("{}", self.delivered_unanswered));
        }
        if ended > 0 {
            row("  connections that ended", &format!("{ended}: {:?}", self.ended_connections));
        }
    }
}

impl Percentiles {
    fn of(sorted_us: &[u32]) -> Self {
        let at = |thousandths: usize| {
            let index = sorted_us.len().saturating_sub(1) * thousandths / 1000;
            round(sorted_us.get(index).map_or(0.0, |us| f64::from(*us)) / 1000.0, 2)
        };
        Self { p50: at(500), p99: at(990), max: at(1000), count: sorted_us.len() }
    }
}

impl Report {
    /// Prints both.
    pub fn print(&self) -> Result<()> {
        let Self { flat_out, contended, paced, memory, resumes, .. } = self;
        println!("\n  The backend on this machine: {} processors, all parts and the load on it\n", self.processors);
        row("one fsync of this disk", &format!("{:.2} ms, and the log makes one for each message", self.fsync_ms));
        flat_out.print("flat out, one of a pair writes");
        for (name, seconds) in &flat_out.cpu_seconds_per_1000 {
            row(&format!("  CPU of {name}"), &format!("{seconds:.3} s per 1,000 messages"));
        }
        let sum: f64 = flat_out.cpu_seconds_per_1000.iter().filter(|(name, _)| *name != "load").map(|(_, s)| s).sum();
        row("  CPU of all but the load", &format!("{sum:.3} s per 1,000 messages"));
        contended.print("flat out, both write at once");
        paced.print(&format!("at {} messages/s", self.paced_per_second));
        row(
            &format!("an idle connection of {}", memory.connections),
            &format!("{} bytes RSS, {} PSS, {} private", memory.rss_bytes, memory.pss_bytes, memory.private_bytes),
        );
        row(
            &format!("{} resumes in {:.1} s", resumes.count, resumes.seconds),
            &format!(
                "{} statements counted; {} logged, {} in as long a time without",
                resumes.statements_counted, resumes.statements_logged, resumes.statements_logged_idle
            ),
        );
        println!("\n  All of it by: cargo dev bench\n");
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

impl Percentiles {
    fn line(&self) -> String {
        format!("{:.2} ms, {:.2} ms, {:.2} ms  (of {})", self.p50, self.p99, self.max, self.count)
    }
}

fn row(name: &str, value: &str) {
    println!("  {name:<30} {value}");
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}
