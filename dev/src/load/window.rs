//! What a load costs: processor time, and work of the servers, during the phase that counts.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use chat_load::report::{Counters, ProcessCost, Run};

use super::{
    cost::{self, CpuTime},
    run::{Stage, figure, number},
    sampler::Sample,
    subject::{Subject, Watched, Work},
    syncs::Syncs,
    workload::Workload,
};

/// For what counts from outside to begin before the phase does.
const LEAD: Duration = Duration::from_millis(100);

/// What was used during the phase whose cost counts.
#[derive(Debug)]
pub struct Window {
    cpu: BTreeMap<String, CpuTime>,
    work: Work,
    syncs: BTreeMap<String, u64>,
}

impl Window {
    /// Waits for the phase's beginning and its end.
    pub async fn measure<S: Subject>(
        subject: &S,
        workload: &Workload,
        watched: &[Watched],
        stage: &Stage<'_>,
        scratch: &Path,
    ) -> Result<Self> {
        let phase = workload.costed();
        let from = Duration::from_micros(phase.from_us);
        stage.reach(from.saturating_sub(LEAD)).await;
        let counted = watched.iter().filter(|process| process.counts_syncs);
        let counting: Vec<(String, Syncs)> = counted
            .filter_map(|process| {
                let file = scratch.join(format!("syncs-{}", process.name));
                Some((process.name.clone(), Syncs::begin(process.pid, file)?))
            })
            .collect();
        stage.reach(from).await;
        // Servers take their time to answer, more under load: at both ends they are asked last.
        let (cpu_before, work_before) = (cpu(watched)?, subject.work().await?);
        stage.reach(Duration::from_micros(phase.until_us)).await;
        let cpu_after = cpu(watched)?;
        let (work_after, syncs) = tokio::try_join!(subject.work(), ended(counting))?;
        let cpu = cpu_after.into_iter().map(|(name, after)| {
            let before = cpu_before.get(&name).copied().unwrap_or_default();
            (name, after.since(&before))
        });
        Ok(Self { cpu: cpu.collect(), work: work_after.since(&work_before), syncs })
    }

    /// Into the report; `samples` are of the whole run, in the order of `watched`.
    pub fn put_into(self, run: &mut Run, watched: &[Watched], samples: &[Sample], is_generator: impl Fn(&str) -> bool) {
        let accepted = run.accepted_per_second * run.seconds;
        let per_1000 = |amount: f64| if accepted > 0.0 { amount * 1000.0 / accepted } else { 0.0 };
        for (place, process) in watched.iter().enumerate() {
            let cpu = self.cpu.get(&process.name).copied().unwrap_or_default();
            let memory = samples.iter().filter_map(|sample| sample.memory[place]);
            let cost = ProcessCost {
                cpu_seconds: cpu.seconds(),
                kernel_seconds: cpu.kernel,
                cpu_seconds_per_1000: per_1000(cpu.seconds()),
                memory_peak_bytes: memory.max().unwrap_or_default(),
                is_generator: is_generator(&process.name),
            };
            run.processes.insert(process.name.clone(), cost);
        }
        run.cpu_seconds_per_1000 =
            run.processes.values().filter(|cost| !cost.is_generator).map(|cost| cost.cpu_seconds_per_1000).sum();
        let fsyncs = self.work.fsyncs.into_iter().chain(self.syncs);
        run.counters = Counters {
            fsyncs_per_1000: fsyncs.map(|(name, count)| (name, per_1000(number(count)))).collect(),
            sql_statements_per_1000: self.work.sql_statements.map(|count| per_1000(number(count))),
            redis_calls_per_1000: self.work.redis_calls.map(|count| per_1000(number(count))),
        };
        if let Some(scripts) = self.work.redis_scripts.filter(|_| accepted > 0.0) {
            let meaning = "Scripts that Redis ran for 1,000 accepted messages; each runs several of the commands.";
            figure(run, "Redis scripts per 1,000", per_1000(number(scripts)), "", meaning);
        }
    }
}

fn cpu(watched: &[Watched]) -> Result<BTreeMap<String, CpuTime>> {
    watched.iter().map(|process| Ok((process.name.clone(), cost::cpu_time(process)?))).collect()
}

/// What was counted from outside, where it could be.
async fn ended(counting: Vec<(String, Syncs)>) -> Result<BTreeMap<String, u64>> {
    let mut syncs = BTreeMap::new();
    for (name, counter) in counting {
        syncs.extend(counter.end().await?.map(|count| (name, count)));
    }
    Ok(syncs)
}
