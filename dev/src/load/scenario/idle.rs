//! `idle`: what connections cost on which nothing happens but heartbeats.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use chat_load::plan::{Phase, Seat};
use serde_json::json;

use super::HANDSHAKES_PER_SECOND;
use crate::load::{
    chat::{Chat, ChatOptions},
    cost::{KernelMemory, Memory},
    outcome::Outcome,
    run::{self, Measured, figure, number},
    setting::Setting,
    subject::Subject,
    workload::{CrowdLoad, Workload, micros},
};

/// Connections opened and closed before measuring, so that what a gateway allocates once is not counted.
const WARM_UP_CONNECTIONS: usize = 200;
const WARM_UP: Duration = Duration::from_secs(1);
/// Until what came with the handshakes is over.
const SETTLED: Duration = Duration::from_secs(2);
/// Two rounds of heartbeats.
const LENGTH: Duration = Duration::from_secs(30);
/// What a connection may take in the gateway.
const BYTES_MAX: f64 = 8.0 * 1024.0;

/// Measures with so many connections, all at one gateway.
pub async fn run(connections: usize, setting: &Setting) -> Result<ExitCode> {
    let mut outcome = Outcome::begin("idle", BTreeMap::from([("connections".to_owned(), json!(connections))]))?;
    let options = ChatOptions { gateways: 1, handshakes_per_second: Some(HANDSHAKES_PER_SECOND) };
    let (chat, floors) = setting.chat(options).await?;
    outcome.floors(floors);
    outcome.versions(chat.versions().await?);
    run::run(&chat, &workload("warm-up", chat.seats(WARM_UP_CONNECTIONS, 1).await?, WARM_UP), &setting.tools).await?;
    let workload = workload(&format!("{connections} idle"), chat.seats(connections, 1).await?, LENGTH);
    let before = memory(&chat)?;
    let measured = run::run_with(&chat, &workload, &setting.tools, async |stage| {
        stage.reach(SETTLED + LENGTH).await;
        memory(&chat)
    })
    .await?;
    chat.stop().await?;
    let after = measured.meanwhile;
    let each = PerConnection::between(before, after, connections);
    outcome.aim(
        "an idle connection in the gateway, bytes of memory",
        "≤ 8,192",
        format!("{:.0}", each.rss),
        each.rss <= BYTES_MAX,
    );
    outcome.add(told(measured, &each, connections));
    outcome.finish()
}

fn workload(name: &str, seats: Vec<Seat>, length: Duration) -> Workload {
    let crowd = CrowdLoad { seats, conversation_size: 1, sends: None, absence: None };
    let phase = Phase { name: "idle".to_owned(), from_us: micros(SETTLED), until_us: micros(SETTLED + length) };
    Workload { name: name.to_owned(), crowds: vec![crowd], phases: vec![phase], costed: 0, drain: Duration::ZERO }
}

fn memory(chat: &Chat) -> Result<(Memory, KernelMemory)> {
    let pid = chat.fleet().gateway(0).pid().context("the gateway has ended")?;
    Ok((Memory::of(pid)?, KernelMemory::now()?))
}

/// Bytes for one connection.
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

/// The run with what only this scenario measures.
fn told<R>(mut measured: Measured<R>, each: &PerConnection, connections: usize) -> Measured<R> {
    let run = &mut measured.run;
    // Nobody wrote anything.
    run.proof = None;
    run.figures.clear();
    let thousands = number(connections as u64) / 1000.0;
    let cpu = |name: &str| run.processes.get(name).map_or(0.0, |cost| cost.cpu_seconds) / LENGTH.as_secs_f64();
    let gateway = cpu("gateway-1") * 1000.0 / thousands;
    let redis = cpu("redis") * 1000.0 / thousands;
    let seconds = measured.connect_seconds;
    let both = "of the kernel for one connection: both of its ends, since clients run on the same machine.";
    let figures = [
        (
            "gateway memory, resident",
            each.rss,
            "bytes",
            "What one idle connection adds to the gateway's memory.".to_owned(),
        ),
        (
            "gateway memory, proportional",
            each.pss,
            "bytes",
            "The same with shared pages divided by who shares them.".to_owned(),
        ),
        ("gateway memory, private", each.private, "bytes", "The same, of what no other process has.".to_owned()),
        ("kernel objects", each.slab, "bytes", format!("Sockets, files and the like {both}")),
        ("kernel objects that stay", each.unreclaimable, "bytes", format!("What can't be given back on demand {both}")),
        ("kernel buffers of TCP", each.tcp, "bytes", format!("Buffers {both}")),
        (
            "gateway CPU for 1,000 connections",
            gateway,
            "ms/s",
            "Processor time a second that heartbeats cost the gateway, every 15 s in each direction.".to_owned(),
        ),
        ("Redis CPU for 1,000 connections", redis, "ms/s", "Processor time a second that Redis used.".to_owned()),
        (
            "connections opened",
            number(connections as u64) / seconds.max(0.001),
            "/s",
            "Handshakes with a token to check, and the first exchange, a second.".to_owned(),
        ),
    ];
    for (name, value, unit, meaning) in figures {
        figure(run, name, value, unit, &meaning);
    }
    measured
}
