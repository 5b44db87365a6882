//! A line between a client and a server that can be cut, silenced or slowed while it is in use: a TCP relay.
//!
//! A silenced connection moves no byte and is never closed, on either side: what is left of it looks to both ends like a
//! peer that vanished without a word. New connections over the same line work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::tap::{Ear, Tap};

/// How long a server may take to take a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// Bytes that are moved at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes from the server that the kernel keeps for a line which isn't read. Small, so that a slow reader shows soon.
const RECEIVE_BUFFER_BYTES: u32 = 32 * 1024;

/// A relay that listens on a port of its own.
#[derive(Debug)]
pub struct Line {
    port: u16,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    target: watch::Sender<Option<String>>,
    orders: watch::Sender<Orders>,
    tap: Option<Arc<Tap>>,
    /// How many connections there were; the number of the latest.
    born: AtomicU64,
    open: AtomicU64,
}

/// What is done to connections, by their numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    /// Those up to here end at once.
    cut_to: u64,
    /// Those up to here move nothing any more.
    silent_to: u64,
    /// Nothing that comes from the server is read, on any.
    is_stalled: bool,
}

impl Line {
    /// A line to `target`, or to nowhere until it is led somewhere.
    pub async fn open(target: Option<String>, tap: Option<Arc<Tap>>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a line needs a port")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            target: watch::Sender::new(target),
            orders: watch::Sender::default(),
            tap,
            born: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let acceptor = tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, acceptor, _tasks: tasks })
    }

    /// `host:port` of this end.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads it to a server, or to nowhere: then new connections wait until it leads somewhere again.
    pub fn lead_to(&self, target: Option<String>) {
        self.shared.target.send_replace(target);
    }

    /// Connections that are open now.
    pub fn open_count(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Ends all connections there are, silenced ones too; what is on its way is lost.
    pub fn cut(&self) {
        let born = self.shared.born.load(Ordering::Relaxed);
        self.shared.orders.send_modify(|orders| orders.cut_to = born);
    }

    /// Silences all connections there are.
    pub fn silence(&self) {
        let born = self.shared.born.load(Ordering::Relaxed);
        self.shared.orders.send_modify(|orders| orders.silent_to = born);
    }

    /// Stops reading what the server sends, or goes on with it.
    pub fn stall(&self, is_stalled: bool) {
        self.shared.orders.send_modify(|orders| orders.is_stalled = is_stalled);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.born.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            shared.open.fetch_add(1, Ordering::Relaxed);
            // However it ended, both sides see it end.
            _ = carry(client, number, &shared).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(client: TcpStream, number: u64, shared: &Shared) -> Result<()> {
    let mut orders = shared.orders.subscribe();
    let target = shared.target.subscribe().wait_for(Option::is_some).await?.clone().context("it leads somewhere")?;
    let server = connect(&target).await?;
    client.set_nodelay(true)?;
    let ear = shared.tap.as_ref().map(Tap::ear);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = Pipe { from: from_client, to: to_server, ear: None, number, is_down: false };
    let down = Pipe { from: from_server, to: to_client, ear, number, is_down: true };
    let moving = async {
        tokio::try_join!(up.run(shared.orders.subscribe()), down.run(shared.orders.subscribe())).map(|((), ())| ())
    };
    tokio::select! {
        moved = moving => moved,
        cut = orders.wait_for(|orders| orders.cut_to >= number) => cut.map(|_| ()).context("the line is gone"),
    }
}

async fn connect(target: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let server = timeout(CONNECT_WAIT_MAX, socket.connect(target.parse()?)).await??;
    server.set_nodelay(true)?;
    Ok(server)
}

/// One direction of a connection.
struct Pipe {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    ear: Option<Ear>,
    number: u64,
    is_down: bool,
}

impl Pipe {
    /// Moves bytes until the sender ends, and then ends the other side's reading.
    async fn run(mut self, mut orders: watch::Receiver<Orders>) -> Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            self.allowed(&mut orders).await?;
            // Cancel safe: reading takes nothing until it is done.
            let count = tokio::select! {
                read = self.from.read(&mut chunk) => read?,
                changed = orders.changed() => {
                    changed?;
                    continue;
                }
            };
            // What was read as the line fell silent goes nowhere.
            self.allowed(&mut orders).await?;
            if count == 0 {
                return Ok(self.to.shutdown().await?);
            }
            if let Some(ear) = &mut self.ear {
                ear.hear(&chunk[..count]);
            }
            self.to.write_all(&chunk[..count]).await?;
        }
    }

    async fn allowed(&self, orders: &mut watch::Receiver<Orders>) -> Result<()> {
        let (number, is_down) = (self.number, self.is_down);
        orders.wait_for(|orders| orders.silent_to < number && !(is_down && orders.is_stalled)).await?;
        Ok(())
    }
}
