//! One connection of a rude client, from its beginning until it is thrown out or goes.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{RudeDone, Rudeness, deed};
use crate::{
    plan::Seat,
    target::{ConnectError, Heard, Protocol, Route, Target, chat::Chat},
};

/// How long somebody stays who never says the rest of a handshake.
const HALF_OPEN_STAY: Duration = Duration::from_secs(15);
/// How long somebody stays who doesn't read: until what others say has filled the kernel's buffers, some megabytes, and
/// the gateway's.
const DEAF_STAY: Duration = Duration::from_secs(18);
/// Between two messages to who doesn't read: nearly as many as a user may send.
const SHOUT_INTERVAL: Duration = Duration::from_millis(25);
/// A flood is so many times what others do that is rude.
const FLOOD_FACTOR: u32 = 10;
/// How long a server may take to read what is written, or to end what it wants to end.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// A rude client.
#[derive(Debug)]
pub(super) struct Visitor {
    pub rudeness: Rudeness,
    pub is_first: bool,
    pub foreign: String,
    pub seat: Seat,
    pub source: IpAddr,
    pub server: SocketAddr,
    /// Between two deeds of most kinds.
    pub interval: Duration,
    pub done: Rc<RefCell<RudeDone>>,
}

impl Visitor {
    /// Connects and misbehaves; how it ended.
    pub async fn visit(&self) -> Result<String> {
        let route = Route { source: self.source, server: self.server };
        self.done.borrow_mut().visits += 1;
        if self.rudeness == Rudeness::HalfOpen {
            return self.half_open(route).await;
        }
        let opened = match Chat.connect(route, &self.seat, None).await {
            Ok(opened) => opened,
            Err(ConnectError::Busy(after)) => {
                sleep(after).await;
                return Ok("told to come back later".to_owned());
            }
            Err(ConnectError::Failed(error)) => return Err(error),
        };
        let mut connection = Connection { stream: opened.stream, protocol: opened.protocol, input: opened.rest };
        if self.rudeness == Rudeness::Deaf && !self.is_first {
            sleep(DEAF_STAY).await;
            // What the kernel holds, and then the end if the server has put one.
            return timeout(WAIT_MAX, self.listen(&mut connection))
                .await
                .unwrap_or(Ok("who reads nothing was borne".to_owned()));
        }
        self.misbehave(&mut connection).await
    }

    /// Between two deeds.
    fn interval(&self) -> Duration {
        match self.rudeness {
            Rudeness::Deaf => SHOUT_INTERVAL,
            Rudeness::Flood => self.interval / FLOOD_FACTOR,
            _ => self.interval,
        }
    }

    /// Does what is due and hears what comes, until the server ends it.
    async fn misbehave(&self, connection: &mut Connection<impl Protocol>) -> Result<String> {
        let mut ticks = interval(self.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut output = Vec::new();
        loop {
            tokio::select! {
                // Cancel safe: a tick that was not taken is there the next time.
                _ = ticks.tick() => {
                    output.clear();
                    deed::write(self.rudeness, &self.seat, &self.foreign, &mut connection.protocol, &mut output);
                    if let Err(error) = connection.write(&output).await {
                        // The server may have said why before it stopped reading.
                        let end = timeout(WAIT_MAX, self.listen(connection)).await;
                        return end.unwrap_or(Err(error));
                    }
                    self.done.borrow_mut().deeds += 1;
                }
                // Cancel safe: it only waits, and what is there is read at once.
                ready = connection.stream.ready(Interest::READABLE) => {
                    ready?;
                    if let Some(end) = self.hear(connection) {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Reads until the end.
    async fn listen(&self, connection: &mut Connection<impl Protocol>) -> Result<String> {
        loop {
            connection.stream.readable().await?;
            if let Some(end) = self.hear(connection) {
                return Ok(end);
            }
        }
    }

    /// Takes in what is there; how the server ended it if it did.
    fn hear(&self, connection: &mut Connection<impl Protocol>) -> Option<String> {
        let end = self.take_in(connection);
        self.done.borrow_mut().ended += u64::from(end.is_some());
        end
    }

    fn take_in(&self, connection: &mut Connection<impl Protocol>) -> Option<String> {
        let mut buffer = [0; READ_BYTES];
        let read = match connection.stream.try_read(&mut buffer) {
            Ok(0) => return Some("closed without a word".to_owned()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) => return Some(error.kind().to_string()),
        };
        connection.input.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let mut done = self.done.borrow_mut();
        let mut note = |heard: Heard<'_>| {
            if let Heard::Rejected { reason, .. } = heard {
                done.note(&format!("rejected: {reason}"));
            }
        };
        // What a well-behaved client would answer stays unsaid.
        match connection.protocol.read(&connection.input, &mut Vec::new(), &mut note) {
            Ok(used) => {
                connection.input.drain(..used);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    async fn half_open(&self, route: Route) -> Result<String> {
        let mut stream = route.open().await?;
        stream.write_all(b"GET /v1/ws HTTP/1.1\r\nhost: ").await?;
        let mut answer = [0; 512];
        let Ok(read) = timeout(HALF_OPEN_STAY, stream.read(&mut answer)).await else {
            return Ok(format!("half a handshake was borne for {} s", HALF_OPEN_STAY.as_secs()));
        };
        self.done.borrow_mut().ended += 1;
        Ok(read.map_or_else(|error| error.kind().to_string(), |_| "half a handshake was ended".to_owned()))
    }
}

struct Connection<P> {
    stream: TcpStream,
    protocol: P,
    input: Vec<u8>,
}

impl<P> Connection<P> {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match timeout(WAIT_MAX, self.stream.write_all(bytes)).await {
            Ok(written) => Ok(written.map_err(|error| anyhow!("{}", error.kind()))?),
            Err(_) => Err(anyhow!("the server takes nothing more")),
        }
    }
}
