//! A million frames that no client should send, over several connections at once: commands that make no sense in bursts,
//! and at the end of each burst one that can't be read: malformed, oversized, fragmented or unmasked.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use chat_client::ids::{DeviceId, UserId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    audit::Check,
    chaos::{
        trial::Trial,
        wire::{frame, header, take_frame},
    },
    fleet::Service,
};

/// Connections that send at the same time.
const WORKERS: usize = 8;
/// Frames of a connection, of which the last can't be read and ends it.
const BURST: u64 = 20;
/// How long the answers to a burst may take.
const ANSWERS_DEADLINE: Duration = Duration::from_mins(1);
/// Between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
const TOKEN_TTL: Duration = Duration::from_hours(2);
/// How much more memory a gateway may have afterwards. It is sent over 200 MB.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How often one is long, and how long.
const LONG_ONE_IN: u32 = 200;
const LONG_BYTES: usize = 32_000;

/// A whole text frame.
const TEXT: u8 = 0x81;
/// The kind of a frame that ends a connection.
const CLOSE: u8 = 8;

/// Commands that are answered with a rejection, and leave the connection open.
const SENSELESS: [&str; 5] = [
    r#"{"type":"nonsense","ref":1}"#,
    r#"{"type":"send_message","ref":2,"conversation_id":"x","message_id":7}"#,
    r#"{"type":"confirm","ref":3,"cursor":-1}"#,
    r#"{"type":"hello","ref":4,"device_id":"936da01f-9abd-4d9d-80c7-02af85c822a8"}"#,
    r#"{"type":"renew_token","ref":5,"token":"a.b.c"}"#,
];

/// What the workers counted.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    sent: u64,
    answered: u64,
    /// Connections that a gateway ended after a frame that can't be read.
    ended: u64,
    /// Such frames.
    endings: u64,
}

/// Sends them until enough have been sent.
pub async fn senseless(trial: &mut Trial<'_>) -> Result<()> {
    let frames: u64 = trial.scale.of(1_000_000, 40_000);
    let gateways = trial.ground.fleet.gateways();
    let pids: Vec<_> = gateways.iter().map(Service::pid).collect();
    let memory_before: Vec<_> = gateways.iter().map(resident_bytes).collect();
    trial.fault(&format!(
        "{frames} frames over {WORKERS} connections at a time: senseless commands, and each {BURST}th can't be read"
    ));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let token = trial.ground.fleet.kaha().tokens().user(UserId::random().as_uuid(), None, TOKEN_TTL)?;
        let address = gateways[worker % gateways.len()].address();
        let rng = StdRng::seed_from_u64(trial.rng.random());
        workers.spawn(send_many(address, token, frames / WORKERS as u64, rng));
    }
    let mut counts = Counts::default();
    while let Some(worker) = workers.join_next().await {
        let Counts { sent, answered, ended, endings } = worker??;
        counts.sent += sent;
        counts.answered += answered;
        counts.ended += ended;
        counts.endings += endings;
    }
    let same = gateways.iter().zip(&pids).filter(|(gateway, pid)| gateway.pid() == **pid).count();
    let Counts { sent, answered, ended, endings } = counts;
    trial.bite(
        sent >= frames && (answered + ended) * 100 >= sent * 99,
        format!(
            "{sent} frames were sent in {:.1} s; gateways rejected {answered} of {} senseless commands",
            began.elapsed().as_secs_f64(),
            sent - endings
        ),
    );
    trial.bite(ended == endings, format!("{ended} of {endings} malformed or oversized frames ended their connection"));
    trial.bite(same == gateways.len(), format!("{same} of {} gateways are the processes they were", gateways.len()));
    growth(trial, &memory_before);
    Ok(())
}

/// Whether gateways let go of what they were sent, where the system says how much memory a process has.
fn growth(trial: &mut Trial<'_>, before: &[Option<u64>]) {
    let pairs = trial.ground.fleet.gateways().iter().zip(before);
    let grown: Vec<_> =
        pairs.filter_map(|(gateway, before)| Some(resident_bytes(gateway)?.saturating_sub((*before)?))).collect();
    let Some(most) = grown.iter().max() else { return };
    let text = format!("{} MiB more memory, of {} that it may take", most >> 20, GROWTH_BYTES_MAX >> 20);
    trial.told.line(&format!("the gateway that grew most has {text}"));
    let violations = grown.iter().filter(|bytes| **bytes > GROWTH_BYTES_MAX).count();
    trial.promise(Check::Grown, violations, grown.len(), (violations > 0).then_some(text));
}

/// Resident bytes of a service's process; none where the system has no `/proc`.
fn resident_bytes(service: &Service) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid()?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

async fn send_many(address: String, token: String, frames: u64, mut rng: StdRng) -> Result<Counts> {
    let mut counts = Counts::default();
    while counts.sent < frames {
        let mut socket = open(&address, &token).await?;
        // The last one ends the connection.
        let burst = BURST.min(frames - counts.sent).saturating_sub(1);
        counts.answered += send_burst(&mut socket, burst, &mut rng).await?;
        socket.to.write_all(&unreadable(&mut rng)).await?;
        counts.sent += burst + 1;
        counts.endings += 1;
        counts.ended += u64::from(timeout(ANSWERS_DEADLINE, socket.end()).await.is_ok());
    }
    Ok(counts)
}

/// Writes without waiting, and reads the answers at the same time. Gives how many came.
async fn send_burst(socket: &mut Socket, burst: u64, rng: &mut StdRng) -> Result<u64> {
    let Socket { from, to, received } = socket;
    let frames: Vec<u8> = (0..burst).flat_map(|_| senseless_frame(rng)).collect();
    let writing = async { Ok(to.write_all(&frames).await?) };
    let reading = async {
        let mut answered = 0;
        while answered < burst {
            answered += u64::from(next_frame(from, received).await?.is_some_and(|(_, payload)| is_rejection(&payload)));
        }
        anyhow::Ok(answered)
    };
    let both = async { tokio::try_join!(writing, reading) };
    let ((), answered) = timeout(ANSWERS_DEADLINE, both).await.context("a burst was not answered")??;
    Ok(answered)
}

/// Most are short; now and then one is as long as a frame may be.
fn senseless_frame(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_range(0..LONG_ONE_IN) == 0 {
        let command = format!("{{\"type\":\"send_message\",\"ref\":6,\"text\":\"{}\"}}", "x".repeat(LONG_BYTES));
        return frame(TEXT, command.as_bytes());
    }
    frame(TEXT, SENSELESS[rng.random_range(0..SENSELESS.len())].as_bytes())
}

fn is_rejection(payload: &[u8]) -> bool {
    memchr::memmem::find(payload, b"\"rejected\"").is_some()
}

/// A frame that no gateway can go on after.
fn unreadable(rng: &mut StdRng) -> Vec<u8> {
    let junk: Vec<u8> = (0..rng.random_range(1..200)).map(|_| rng.random()).collect();
    match rng.random_range(0..12) {
        // What it carries is no command of this encoding.
        0 => frame(TEXT, b"{\"type\":\"heartbeat\""),
        1 => frame(TEXT, &[0xff, 0xfe, 0x80]),
        2 => frame(TEXT, b"[]"),
        3 => frame(0x82, &junk),
        4 => frame(TEXT, "[".repeat(20_000).as_bytes()),
        // It is too large, or says that it will be.
        5 => frame(TEXT, &vec![b'x'; 33 * 1024]),
        6 => header(TEXT, 1 << 20),
        7 => header(TEXT, u64::MAX),
        // It is in pieces, or a piece of nothing.
        8 => frame(0x01, b"{\"type\":"),
        9 => frame(0x80, &junk),
        // It is no frame at all: reserved bits, an unknown kind, a mask that is missing.
        10 => frame(0xf1, &junk),
        _ => vec![TEXT, 2, b'{', b'}'],
    }
}

/// A connection in JSON, after `ready`.
struct Socket {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    received: Vec<u8>,
}

impl Socket {
    /// Reads until the gateway has ended it, whether with a word or without.
    async fn end(&mut self) {
        while let Ok(Some((first_byte, _))) = next_frame(&mut self.from, &mut self.received).await {
            if first_byte & 0x0f == CLOSE {
                return;
            }
        }
    }
}

/// The next frame; none when the connection has ended.
async fn next_frame(from: &mut OwnedReadHalf, received: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>> {
    loop {
        if let Some(frame) = take_frame(received) {
            return Ok(Some(frame));
        }
        ensure!(from.read_buf(received).await? > 0, "the gateway closed the connection without a close frame");
    }
}

/// Connects, again while the gateway has no place.
async fn open(address: &str, token: &str) -> Result<Socket> {
    let end = Instant::now() + ANSWERS_DEADLINE;
    loop {
        match try_open(address, token).await {
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => sleep(RECONNECT_PAUSE).await,
            opened => return opened,
        }
    }
}

async fn try_open(address: &str, token: &str) -> Result<Socket> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: chat.v1.json\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A refusal carries a body after its head; after a 101 the gateway sends nothing before `hello`.
    while memchr::memmem::find(&answer, b"\r\n\r\n").is_none() {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection during the handshake");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 101"), "the gateway refused the handshake");
    let (from, to) = stream.into_split();
    let mut socket = Socket { from, to, received: Vec::new() };
    let hello = format!("{{\"type\":\"hello\",\"device_id\":\"{}\"}}", DeviceId::random().as_uuid());
    socket.to.write_all(&frame(TEXT, hello.as_bytes())).await?;
    let ready = timeout(ANSWERS_DEADLINE, next_frame(&mut socket.from, &mut socket.received)).await??;
    ensure!(ready.is_some(), "the gateway is not ready");
    Ok(socket)
}
