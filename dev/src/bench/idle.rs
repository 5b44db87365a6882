//! What an idle connection costs a gateway in memory. The clients are a process of their own, because descriptors
//! are counted by process.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chat_client::{
    ids::DeviceId,
    wire::{Command, Heartbeat},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{ChildStdout, Command as Program},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval_at, timeout},
};

use super::{
    machine::{self, Memory},
    socket,
    users::User,
};
use crate::fleet::Fleet;

/// Connections opened and closed before measuring, so that what a gateway allocates once is not counted.
const WARM_UP: usize = 200;
/// Handshakes at the same time.
const AT_ONCE: usize = 50;
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long connecting, or hearing the first heartbeat, may take.
const DEADLINE: Duration = Duration::from_mins(3);

/// Bytes of gateway memory for one connection.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PerConnection {
    pub connections: usize,
    pub rss_bytes: u64,
    pub pss_bytes: u64,
    pub private_bytes: u64,
}

/// What the process of clients is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Held {
    address: String,
    tokens: Vec<String>,
}

/// Opens connections to the first gateway and compares its memory.
pub async fn measure(fleet: &Fleet, connections: usize, scratch: &Path) -> Result<PerConnection> {
    let gateway = fleet.gateway(0);
    let pid = gateway.pid().context("the gateway has ended")?;
    drop(Holder::start(fleet, WARM_UP, scratch).await?);
    let before = machine::memory(pid)?;
    let mut holder = Holder::start(fleet, connections, scratch).await?;
    // By then the gateway has written to and read from each of them more than once.
    holder.hears("beaten").await?;
    let after = machine::memory(pid)?;
    drop(holder);
    let each = |of: fn(&Memory) -> f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "bytes"
        )]
        let bytes = ((of(&after) - of(&before)) / connections as f64).max(0.0) as u64;
        bytes
    };
    Ok(PerConnection {
        connections,
        rss_bytes: each(|memory| memory.rss),
        pss_bytes: each(|memory| memory.pss),
        private_bytes: each(|memory| memory.private),
    })
}

/// The process of clients. Dropping it ends them.
struct Holder {
    _child: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    async fn start(fleet: &Fleet, connections: usize, scratch: &Path) -> Result<Self> {
        let tokens = (0..connections).map(|_| Ok(User::new(fleet.kaha())?.token)).collect::<Result<_>>()?;
        let held = Held { address: fleet.gateway(0).address(), tokens };
        let file: PathBuf = scratch.join("held.json");
        std::fs::write(&file, serde_json::to_vec(&held)?)?;
        let mut child = Program::new(std::env::current_exe()?)
            .args(["bench", "--hold"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the process of clients does not start")?;
        let stdout = child.stdout.take().context("the process of clients has no output")?;
        let mut holder = Self { _child: child, lines: BufReader::new(stdout).lines() };
        holder.hears("open").await?;
        Ok(holder)
    }

    async fn hears(&mut self, wanted: &str) -> Result<()> {
        let line = timeout(DEADLINE, self.lines.next_line()).await.context("the clients took too long")??;
        ensure!(line.as_deref() == Some(wanted), "the process of clients said {line:?} instead of {wanted}");
        Ok(())
    }
}

/// The process of clients: connects, beats, and says when all are open and when all have heard a heartbeat. Ends with
/// its standard input.
///
/// # Errors
/// If a connection can't be opened, or ends.
pub async fn hold(file: &Path) -> Result<()> {
    let held: Held = serde_json::from_slice(&std::fs::read(file)?)?;
    let count = held.tokens.len();
    let (heard, mut hearing) = mpsc::channel(AT_ONCE);
    let mut opening = JoinSet::new();
    let mut open = JoinSet::new();
    for token in held.tokens {
        if opening.len() >= AT_ONCE {
            settle(&mut opening, &mut open, &heard).await?;
        }
        let address = held.address.clone();
        opening.spawn(async move { socket::open(&address, &token, DeviceId::random(), None).await });
    }
    while !opening.is_empty() {
        settle(&mut opening, &mut open, &heard).await?;
    }
    println!("open");
    let beats = async {
        for _ in 0..count {
            hearing.recv().await.context("a connection has ended")?;
        }
        println!("beaten");
        std::future::pending::<Result<()>>().await
    };
    let (mut input, mut end) = (tokio::io::stdin(), [0]);
    tokio::select! {
        beaten = beats => beaten,
        Some(ended) = open.join_next() => ended?,
        _ = input.read(&mut end) => Ok(()),
    }
}

type Opened = Result<(socket::Reader, socket::Writer, socket::Heard)>;

/// Takes over one connection that has been opened.
async fn settle(opening: &mut JoinSet<Opened>, open: &mut JoinSet<Result<()>>, heard: &mpsc::Sender<()>) -> Result<()> {
    let Some(opened) = opening.join_next().await else { return Ok(()) };
    let (mut reader, mut writer, _) = opened??;
    let heard = heard.clone();
    open.spawn(async move {
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        loop {
            beat.tick().await;
            writer.write(None, Command::Heartbeat(Heartbeat { cursor: None })).await?;
        }
    });
    open.spawn(async move {
        let mut is_first = true;
        loop {
            let frame = reader.next().await?;
            if frame.name == "heartbeat" && std::mem::take(&mut is_first) {
                heard.send(()).await?;
            }
        }
    });
    Ok(())
}
