//! `idle`: what connections cost on which nothing happens but heartbeats.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Result;
use chat_load::{
    plan::Seat,
    report::{ProcessCost, Run},
};
use serde_json::json;

use super::HANDSHAKES_PER_SECOND;
use crate::{
    load::{
        chat::ChatOptions,
        comparison::{Comparable, with_peers},
        cost::{KernelMemory, Memory},
        outcome::Outcome,
        peer::Peer,
        run::{self, Tools, figure, number},
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, phase},
    },
    terminal,
};

/// Connections opened and closed before measuring, so that what a server allocates once is not counted.
const WARM_UP_CONNECTIONS: usize = 200;
const WARM_UP: Duration = Duration::from_secs(1);
/// Until what came with the handshakes is over.
const SETTLED: Duration = Duration::from_secs(2);
/// Two rounds of heartbeats.
const LENGTH: Duration = Duration::from_secs(30);
/// Whole rounds both of those and of Socket.IO's, which come every 25 seconds.
const LENGTH_WITH_SOCKET_IO: Duration = Duration::from_secs(75);
/// What a connection may take in the gateway.
const BYTES_MAX: f64 = 8.0 * 1024.0;

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many connections, all at one process.
    pub connections: usize,
    /// Who else gets the same load.
    pub peers: Vec<Peer>,
}

impl Plan {
    /// The same for all.
    fn length(&self) -> Duration {
        if self.peers.contains(&Peer::SocketIo) { LENGTH_WITH_SOCKET_IO } else { LENGTH }
    }
}

/// Measures this backend, then each peer, one after the other.
pub async fn run(plan: &Plan, setting: &Setting) -> Result<ExitCode> {
    let settings = BTreeMap::from([
        ("connections".to_owned(), json!(plan.connections)),
        ("seconds".to_owned(), json!(plan.length().as_secs())),
    ]);
    let mut outcome = Outcome::begin("idle", settings)?;
    let options = ChatOptions { gateways: 1, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(options).await?;
    outcome.floors(floors);
    let ours = plan.measure(chat, &setting.tools, &mut outcome).await?;
    outcome.aim(
        "an idle connection in the gateway, bytes of memory",
        "≤ 8,192",
        format!("{:.0}", ours.bytes.rss),
        ours.bytes.rss <= BYTES_MAX,
    );
    with_peers(plan, &plan.peers, &ours, setting, &mut outcome).await?;
    outcome.finish()
}

impl Comparable for Plan {
    type Finding = Finding;

    async fn measure<S: Subject>(&self, subject: S, tools: &Tools, outcome: &mut Outcome) -> Result<Finding> {
        let name = subject.name();
        terminal::heading(&format!("idle of {name}"));
        outcome.versions(subject.versions().await?);
        let (connections, length) = (self.connections, self.length());
        run::run(&subject, &workload("warm-up", subject.seats(WARM_UP_CONNECTIONS, 1).await?, WARM_UP), tools).await?;
        let workload = workload(&format!("{connections} idle"), subject.seats(connections, 1).await?, length);
        let before = memory(&subject)?;
        let mut measured = run::run_with(&subject, &workload, tools, async |stage| {
            stage.reach(SETTLED + length).await;
            memory(&subject)
        })
        .await?;
        let holder = subject.holder()?.name;
        subject.stop().await?;
        let finding = Finding {
            name,
            bytes: PerConnection::between(before, measured.meanwhile, connections),
            cpu: CpuPer1000::of(&measured.run.processes, &holder, connections, length),
            opened_per_second: number(connections as u64) / measured.connect_seconds.max(0.001),
        };
        finding.put_into(&mut measured.run);
        measured.problems.extend(finding.problems(measured.done.tally().returned));
        outcome.add(measured);
        Ok(finding)
    }

    fn compare(&self, ours: &Finding, theirs: &Finding, outcome: &mut Outcome) {
        let peer = theirs.name;
        outcome.compare("resident memory of an idle connection, bytes", peer, ours.bytes.rss, theirs.bytes.rss);
        outcome.compare("server CPU for 1,000 idle connections, ms/s", peer, ours.cpu.holder, theirs.cpu.holder);
        outcome.compare("CPU of all for 1,000 idle connections, ms/s", peer, ours.cpu.all, theirs.cpu.all);
    }
}

fn workload(name: &str, seats: Vec<Seat>, length: Duration) -> Workload {
    let crowd = CrowdLoad { seats, conversation_size: 1, ..CrowdLoad::default() };
    let phase = phase("idle", SETTLED, SETTLED + length);
    Workload { name: name.to_owned(), crowds: vec![crowd], phases: vec![phase], costed: 0, drain: Duration::ZERO }
}

fn memory<S: Subject>(subject: &S) -> Result<(Memory, KernelMemory)> {
    Ok((Memory::of(subject.holder()?.pid)?, KernelMemory::now()?))
}

/// Bytes for one connection.
#[derive(Debug)]
struct PerConnection {
    rss: f64,
    pss: f64,
    private: f64,
    slab: f64,
    unreclaimable: f64,
    tcp: f64,
}

impl PerConnection {
    fn between(before: (Memory, KernelMemory), after: (Memory, KernelMemory), connections: usize) -> Self {
        let each = |before: u64, after: u64| number(after.saturating_sub(before)) / number(connections as u64);
        Self {
            rss: each(before.0.rss, after.0.rss),
            pss: each(before.0.pss, after.0.pss),
            private: each(before.0.private, after.0.private),
            slab: each(before.1.slab, after.1.slab),
            unreclaimable: each(before.1.unreclaimable, after.1.unreclaimable),
            tcp: each(before.1.tcp, after.1.tcp),
        }
    }
}

/// Milliseconds of processor time that 1,000 connections cost in a second.
#[derive(Debug)]
struct CpuPer1000 {
    /// Of the process that has them.
    holder: f64,
    /// Of that, in the kernel.
    holder_kernel: f64,
    /// Of Redis, where there is one.
    redis: Option<f64>,
    /// Of all processes but those that make the load.
    all: f64,
    /// Of that, in the kernel.
    all_kernel: f64,
}

impl CpuPer1000 {
    fn of(processes: &BTreeMap<String, ProcessCost>, holder: &str, connections: usize, length: Duration) -> Self {
        let thousands = number(connections as u64) / 1000.0;
        let each = |seconds: f64| seconds * 1000.0 / length.as_secs_f64() / thousands;
        let holder = processes.get(holder).copied().unwrap_or_default();
        let servers = || processes.values().filter(|cost| !cost.is_generator);
        Self {
            holder: each(holder.cpu_seconds),
            holder_kernel: each(holder.kernel_seconds),
            redis: processes.get("redis").map(|cost| each(cost.cpu_seconds)),
            all: each(servers().map(|cost| cost.cpu_seconds).sum()),
            all_kernel: each(servers().map(|cost| cost.kernel_seconds).sum()),
        }
    }
}

/// What connections cost at one subject.
#[derive(Debug)]
pub struct Finding {
    name: &'static str,
    bytes: PerConnection,
    cpu: CpuPer1000,
    opened_per_second: f64,
}

impl Finding {
    /// Why this says nothing about connections that stay.
    fn problems(&self, returned: u64) -> Vec<String> {
        let all = [
            (returned > 0, format!("{returned} idle connections were lost, and opened again")),
            (
                self.bytes.rss <= 0.0,
                "memory did not grow with the connections: there are too few of them to tell what each takes"
                    .to_owned(),
            ),
        ];
        all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, problem)| problem).collect()
    }

    /// What only this scenario measures.
    fn put_into(&self, run: &mut Run) {
        // Nobody wrote anything.
        run.proof = None;
        run.figures.clear();
        let both = "of the kernel for one connection: both of its ends, since clients run on the same machine.";
        let Self { bytes, cpu, .. } = self;
        let figures = [
            (
                "server memory, resident",
                bytes.rss,
                "bytes",
                "What one idle connection adds to the memory of the process that has it: the gateway, one Node process \
                 of Socket.IO, or ejabberd. Node and Erlang collect garbage when they see fit, so this says little of \
                 them with fewer than thousands of connections."
                    .to_owned(),
            ),
            (
                "server memory, proportional",
                bytes.pss,
                "bytes",
                "The same with shared pages divided by who shares them.".to_owned(),
            ),
            ("server memory, private", bytes.private, "bytes", "The same, of what no other process has.".to_owned()),
            ("kernel objects", bytes.slab, "bytes", format!("Sockets, files and the like {both}")),
            (
                "kernel objects that stay",
                bytes.unreclaimable,
                "bytes",
                format!("What can't be given back on demand {both}"),
            ),
            ("kernel buffers of TCP", bytes.tcp, "bytes", format!("Buffers {both}")),
            (
                "server CPU for 1,000 connections",
                cpu.holder,
                "ms/s",
                "Processor time a second of the process that has them. Heartbeats are as each protocol has them. chat: \
                 every 15 s in each direction. socket.io: the server asks every 25 s, and the client answers. ejabberd: \
                 the client asks every 15 s, and the server answers."
                    .to_owned(),
            ),
            (
                "server CPU for 1,000 connections, user",
                cpu.holder - cpu.holder_kernel,
                "ms/s",
                "Of that, in the process' own code.".to_owned(),
            ),
            (
                "server CPU for 1,000 connections, kernel",
                cpu.holder_kernel,
                "ms/s",
                "Of that, in the kernel on its behalf: sockets and waking up.".to_owned(),
            ),
            (
                "CPU of all for 1,000 connections",
                cpu.all,
                "ms/s",
                "Processor time a second of all services and servers together, with what they do without connections."
                    .to_owned(),
            ),
            (
                "CPU of all for 1,000 connections, user",
                cpu.all - cpu.all_kernel,
                "ms/s",
                "Of that, in their own code.".to_owned(),
            ),
            (
                "CPU of all for 1,000 connections, kernel",
                cpu.all_kernel,
                "ms/s",
                "Of that, in the kernel on their behalf.".to_owned(),
            ),
            (
                "connections opened",
                self.opened_per_second,
                "/s",
                "Handshakes a second, each with a token to check, or a password in ejabberd, and the first exchange."
                    .to_owned(),
            ),
        ];
        for (name, value, unit, meaning) in figures {
            figure(run, name, value, unit, &meaning);
        }
        if let Some(redis) = cpu.redis {
            let meaning = "Processor time a second that Redis used.";
            figure(run, "Redis CPU for 1,000 connections", redis, "ms/s", meaning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_a_thousand_connections_in_a_second() {
        let cost = |cpu_seconds, is_generator| {
            let kernel_seconds = cpu_seconds / 3.0;
            ProcessCost { cpu_seconds, kernel_seconds, is_generator, ..ProcessCost::default() }
        };
        let mut processes = BTreeMap::from([
            ("node-1".to_owned(), cost(3.0, false)),
            ("redis".to_owned(), cost(0.6, false)),
            ("clients-1".to_owned(), cost(9.0, true)),
        ]);
        let cpu = |processes: &_| CpuPer1000::of(processes, "node-1", 2000, LENGTH);
        let found = cpu(&processes);
        assert!((found.holder - 50.0).abs() < 1e-9 && (found.all - 60.0).abs() < 1e-9, "{found:?}");
        assert!((found.holder_kernel - 50.0 / 3.0).abs() < 1e-9 && (found.all_kernel - 20.0).abs() < 1e-9, "{found:?}");
        assert!(found.redis.is_some_and(|redis| (redis - 10.0).abs() < 1e-9), "{found:?}");
        processes.remove("redis");
        assert!(cpu(&processes).redis.is_none());
    }

    #[test]
    fn what_says_nothing_about_connections_that_stay_is_a_problem() {
        let memory = |rss| {
            let kernel = KernelMemory { slab: 1, unreclaimable: 1, tcp: 1 };
            (Memory { rss, pss: rss, private: rss }, kernel)
        };
        let problems = |after, returned| {
            let bytes = PerConnection::between(memory(1000), memory(after), 10);
            let cpu = CpuPer1000 { holder: 1.0, holder_kernel: 0.5, redis: None, all: 1.0, all_kernel: 0.5 };
            Finding { name: "peer", bytes, cpu, opened_per_second: 1.0 }.problems(returned)
        };
        assert!(problems(2000, 0).is_empty());
        assert_eq!(problems(2000, 3), ["3 idle connections were lost, and opened again"]);
        assert_eq!(problems(900, 0).len(), 1);
    }

    #[test]
    fn all_are_measured_for_whole_rounds_of_heartbeats() {
        let length = |peers| Plan { connections: 1, peers }.length().as_secs();
        assert_eq!(length(vec![]) % 15, 0);
        assert_eq!(length(vec![Peer::Ejabberd]) % 15, 0);
        assert_eq!((length(vec![Peer::SocketIo]) % 15, length(vec![Peer::SocketIo]) % 25), (0, 0));
    }
}
