//! One load on one subject, from connecting to the proof.

use std::{ops::Range, path::PathBuf, time::Duration};

use anyhow::Result;
use chat_load::{
    clock,
    plan::{CrowdDone, Done, PhaseDone},
    report::{Proof, Run, Second},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    generator::{Generator, Playing, Seconds},
    progress::Progress,
    proof::{Before, Found},
    sampler::{Sample, Sampler},
    subject::{Subject, Watched},
    window::Window,
    workload::Workload,
};

/// The generator kept its schedule if 99 of 100 messages were written at most so much later than due.
pub const LATENESS_MAX_MS: f64 = 25.0;
/// This process, which looks at the others.
const OBSERVER: &str = "observer";

/// What all loads of a call have in common.
#[derive(Debug)]
pub struct Tools {
    /// The program of client processes.
    pub generator: PathBuf,
    /// For plans and the like.
    pub scratch: PathBuf,
}

/// What a load came to.
#[derive(Debug)]
pub struct Measured<R> {
    /// For the report.
    pub run: Run,
    /// Everything that clients saw.
    pub done: Done,
    /// Why the figures can't be trusted, whatever the subject is.
    pub problems: Vec<String>,
    /// Which promises the subject broke; this backend may break none.
    pub failures: Vec<String>,
    /// How long it took until all were connected.
    pub connect_seconds: f64,
    /// How long after its end the database had everything.
    pub stored_after: Duration,
    /// What was done meanwhile came to this.
    pub meanwhile: R,
}

impl<R> Measured<R> {
    /// How much later than due the load generator wrote 99 of 100 messages, at the most.
    pub fn lateness_ms(&self) -> f64 {
        self.done.lateness.percentile_ms(99.0)
    }
}

/// A load that goes on, for who does something meanwhile.
#[derive(Debug)]
pub struct Stage<'a> {
    playing: &'a Playing,
    /// What the client processes have said.
    pub seconds: Seconds,
}

impl Stage<'_> {
    /// Sleeps until so long after the start.
    pub async fn reach(&self, after: Duration) {
        self.playing.reach(after).await;
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(clock::now_us().saturating_sub(self.playing.start_us))
    }
}

/// Carries out a load.
///
/// # Errors
/// If clients can't connect, or a server can't be asked. What the load itself shows is no error.
pub async fn run<S: Subject>(subject: &S, workload: &Workload, tools: &Tools) -> Result<Measured<()>> {
    run_with(subject, workload, tools, async |_: &Stage<'_>| Ok(())).await
}

/// Carries out a load, and does something while it goes on.
pub async fn run_with<S: Subject, R>(
    subject: &S,
    workload: &Workload,
    tools: &Tools,
    meanwhile: impl AsyncFnOnce(&Stage<'_>) -> Result<R>,
) -> Result<Measured<R>> {
    let id = rand::random();
    let before = Before::load(subject).await?;
    let plans = workload.plans(subject.target(), &subject.addresses(), id);
    let generator = Generator::start(&tools.generator, &tools.scratch, &plans).await?;
    let connect_seconds = generator.connect_seconds;
    let mut watched = subject.processes()?;
    let generators: Vec<String> = generator.processes().into_iter().map(|process| process.name).collect();
    watched.extend(generator.processes());
    watched.push(Watched {
        name: OBSERVER.to_owned(),
        pid: std::process::id(),
        has_family: false,
        counts_syncs: false,
    });
    let playing = generator.begin().await?;
    let sampler = Sampler::begin(watched.clone(), playing.start_us);
    let stage = Stage { playing: &playing, seconds: playing.seconds.clone() };
    let (window, meanwhile) = {
        let shown = show(workload, &stage);
        let work = async {
            tokio::try_join!(Window::measure(subject, workload, &watched, &stage, &tools.scratch), meanwhile(&stage))
        };
        tokio::select! {
            measured = work => measured?,
            () = shown => unreachable!("it shows on and on"),
        }
    };
    let seconds = playing.seconds.clone();
    let done = playing.done().await?;
    let seen = sampler.end()?;
    let found = before.prove(subject, id, &done).await?;
    let mut problems = problems(&done);
    let failures = failures(&found.proof);
    problems.extend(subject.processes().err().map(|error| format!("{error:#}")));
    let is_generator = |name: &str| name == OBSERVER || generators.iter().any(|generator| generator == name);
    let mut run = summary(subject.name(), workload, &done, &found);
    window.put_into(&mut run, &watched, &seen, is_generator);
    run.timeline = timeline(&seconds, &watched, &seen);
    let stored_after = found.stored_after;
    Ok(Measured { run, done, problems, failures, connect_seconds, stored_after, meanwhile })
}

/// Shows how it goes, without end.
async fn show(workload: &Workload, stage: &Stage<'_>) {
    let end = workload.phases.iter().map(|phase| phase.until_us).max().unwrap_or_default();
    let Ok(progress) = Progress::begin(&workload.name, Duration::from_micros(end)) else {
        return std::future::pending().await;
    };
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for elapsed in 0.. {
        seconds.tick().await;
        progress.show(elapsed, stage.seconds.last().as_ref());
    }
}

/// What the clients saw, of all crowds together, in the phase whose cost counts.
fn summary(target: &str, workload: &Workload, done: &Done, found: &Found) -> Run {
    let phase = workload.costed();
    let seconds = number(phase.until_us - phase.from_us) / 1e6;
    let mut sum = PhaseDone::default();
    for crowd in &done.crowds {
        sum.add(&crowd.phases[workload.costed]);
    }
    let mut run = Run {
        target: target.to_owned(),
        name: workload.name.clone(),
        seconds,
        offered_per_second: number(sum.offered) / seconds,
        accepted_per_second: number(sum.accepted) / seconds,
        delivered_per_second: number(sum.delivered) / seconds,
        accept: sum.accept.latency(),
        deliver: sum.deliver.latency(),
        errors: done.errors.clone(),
        proof: Some(found.proof),
        ..Run::default()
    };
    let lateness = "How much later than due the load generator itself wrote messages, 99 of 100 at most. It is part of \
                    every wait that is reported.";
    figure(&mut run, "generator lateness p99", done.lateness.percentile_ms(99.0), "ms", lateness);
    let stored = "How long after the last show the database had every accepted message.";
    figure(&mut run, "all stored after", found.stored_after.as_secs_f64(), "s", stored);
    let raw: u64 = done.crowds.iter().map(|crowd: &CrowdDone| crowd.tally.repeated_raw).sum();
    let repeats = "Messages that were pushed again and left out by clients, as the protocol lets them.";
    figure(&mut run, "repeats that clients left out", number(raw), "", repeats);
    run
}

/// What one crowd saw in phases that follow each other, as a run of its own beside the one that it is a part of. It has
/// the name of the first.
pub fn part(measured: &Run, workload: &Workload, done: &Done, crowd: usize, phases: Range<usize>) -> Run {
    let named = &workload.phases[phases.clone()];
    let mut seen = PhaseDone::default();
    for phase in &done.crowds[crowd].phases[phases] {
        seen.add(phase);
    }
    let seconds = number(named.iter().map(|phase| phase.until_us - phase.from_us).sum()) / 1e6;
    Run {
        target: measured.target.clone(),
        name: named.first().map(|phase| phase.name.clone()).unwrap_or_default(),
        seconds,
        offered_per_second: number(seen.offered) / seconds,
        accepted_per_second: number(seen.accepted) / seconds,
        delivered_per_second: number(seen.delivered) / seconds,
        accept: seen.accept.latency(),
        deliver: seen.deliver.latency(),
        ..Run::default()
    }
}

fn failures(proof: &Proof) -> Vec<String> {
    those([
        (proof.lost > 0, format!("{} of what was accepted is not kept or was not shown", proof.lost)),
        (proof.repeated > 0, format!("{} messages were shown twice", proof.repeated)),
        (proof.unanswered > 0, format!("{} sends got no answer", proof.unanswered)),
    ])
}

fn problems(done: &Done) -> Vec<String> {
    let (absent, foreign, lateness) = (done.tally().absent, done.foreign_shown(), done.lateness.percentile_ms(99.0));
    those([
        (foreign > 0, format!("{foreign} messages were shown to somebody who is not in their conversation")),
        (absent > 0, format!("{absent} clients could not come back")),
        (
            lateness > LATENESS_MAX_MS,
            format!(
                "the load generator was late: {lateness:.1} ms for 99 of 100 messages, and {LATENESS_MAX_MS} ms is \
                 what may be; the machine is too busy for this load"
            ),
        ),
    ])
}

/// What is so.
pub fn those(all: impl IntoIterator<Item = (bool, String)>) -> Vec<String> {
    all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, said)| said).collect()
}

fn timeline(seconds: &Seconds, watched: &[Watched], samples: &[Sample]) -> Vec<Second> {
    let line = |second: &chat_load::plan::Second| {
        let after = samples.iter().find(|sample| sample.at >= number(second.at + 1));
        let before = samples.iter().rev().find(|sample| sample.at < number(second.at) + 0.5);
        let mut line = Second {
            at: number(second.at),
            accepted: second.accepted,
            delivered: second.delivered,
            accept_p99_ms: second.accept.percentile_ms(99.0),
            deliver_p99_ms: second.deliver.percentile_ms(99.0),
            ..Second::default()
        };
        for (place, process) in watched.iter().enumerate() {
            let Some(after) = after else { continue };
            if let (Some(before), Some(cpu)) = (before, after.cpu[place])
                && let Some(cpu_before) = before.cpu[place]
                && after.at > before.at
            {
                line.cpu.insert(process.name.clone(), (cpu - cpu_before) / (after.at - before.at));
            }
            line.memory_bytes.extend(after.memory[place].map(|memory| (process.name.clone(), memory)));
        }
        line
    };
    seconds.all().iter().map(line).collect()
}

/// Puts a figure into a run.
pub fn figure(run: &mut Run, name: &str, value: f64, unit: &str, meaning: &str) {
    let figure = chat_load::report::Figure { value, unit: unit.to_owned(), meaning: meaning.to_owned() };
    run.figures.insert(name.to_owned(), figure);
}

/// Counts are far below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub fn number(count: u64) -> f64 {
    count as f64
}
