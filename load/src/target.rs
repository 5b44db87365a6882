//! What is loaded: how clients of it connect, and what they say.
//!
//! A target opens connections; what is said on them afterwards is a [`Protocol`], which turns messages into bytes and
//! bytes into what was heard, and does no I/O. So all targets are driven by the same lean loop.

pub mod chat;
pub mod frame;
pub mod socket_io;
pub mod xmpp;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Error, Result};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::plan::Seat;

/// A kind of server.
pub trait Target: 'static {
    /// What is said on a connection once it is open.
    type Protocol: Protocol;

    /// Opens a connection up to where messages can be sent and are received. `place` is where an earlier connection of
    /// the seat stopped, so that what was missed since comes too.
    fn connect(
        &self,
        route: Route,
        seat: &Seat,
        place: Option<<Self::Protocol as Protocol>::Place>,
    ) -> impl Future<Output = Result<Opened<Self::Protocol>, ConnectError>>;
}

/// From where to where a connection goes.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The client's own address.
    pub source: IpAddr,
    /// The server's.
    pub server: SocketAddr,
}

impl Route {
    /// A TCP connection that sends small packets at once.
    pub async fn open(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // The port is chosen when connecting, so that it need be free for this server only.
        socket.bind(SocketAddr::new(self.source, 0)).with_context(|| format!("cannot use {}", self.source))?;
        let stream = socket.connect(self.server).await.with_context(|| format!("cannot connect to {}", self.server))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Opened<P> {
    /// Carries bytes.
    pub stream: TcpStream,
    /// Says what they mean.
    pub protocol: P,
    /// Bytes that were read already and come before those of the stream.
    pub rest: Vec<u8>,
    /// Everything since the place that was given follows. False also if none was given.
    pub has_resumed: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The server asks to come back later.
    Busy(Duration),
    /// Anything else.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for ConnectError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One side of what is said on an open connection: the client's.
pub trait Protocol: 'static {
    /// Where a connection stopped, to go on from with another one.
    type Place: Clone + 'static;

    /// Appends the bytes of a message to `out`.
    fn send(&mut self, message: &Outgoing<'_>, out: &mut Vec<u8>);

    /// Appends what a client says now and then to show that it is there; nothing if it needn't.
    fn heartbeat(&mut self, out: &mut Vec<u8>);

    /// Appends what a client does besides writing messages; nothing if the target knows no such thing.
    fn gesture(&mut self, _gesture: &Gesture<'_>, _out: &mut Vec<u8>) {}

    /// Appends what a client says before it closes.
    fn goodbye(&mut self, out: &mut Vec<u8>);

    /// Takes what stands whole at the beginning of `input` and says how many bytes that was. Answers and confirmations
    /// that are due go to `out`.
    ///
    /// # Errors
    /// When the connection can't go on, with the reason in a few words that are the same each time.
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<usize>;

    /// Where to go on from if the connection ended now; none if the target knows no such thing.
    fn place(&self) -> Option<Self::Place>;
}

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to; from the [`Seat`].
    pub conversation: &'a str,
    /// Comes back with the answer.
    pub reference: u64,
    /// The same for each repeat.
    pub message_id: Uuid,
    /// About 100 bytes.
    pub text: &'a str,
    /// It may have been sent before.
    pub is_repeat: bool,
}

/// What a client does besides writing messages.
#[derive(Debug, Clone, Copy)]
pub enum Gesture<'a> {
    /// Marks everything up to a message as read.
    MarkRead {
        /// Comes back with the answer.
        reference: u64,
        /// Where; from the [`Seat`].
        conversation: &'a str,
        /// The message.
        message_id: Uuid,
    },
    /// Says that the user writes.
    Typing {
        /// Where.
        conversation: &'a str,
    },
    /// Watches whether users are there.
    Watch {
        /// Whom.
        users: &'a [&'a str],
    },
}

/// What a server said, as far as it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message is durable.
    Accepted {
        /// Of the [`Outgoing`].
        reference: u64,
    },
    /// A message was not taken, or nobody knows.
    Rejected {
        /// Of the [`Outgoing`], if the server says it.
        reference: Option<u64>,
        /// A word or two for the count of errors.
        reason: &'a str,
    },
    /// A message, perhaps one's own.
    Message {
        /// Its number in the conversation, by which clients leave out repeats; none if the target has no such number.
        sequence: Option<u64>,
        /// As it was sent.
        text: &'a str,
    },
    /// What the client asked for is done.
    Done {
        /// Of the [`Gesture`].
        reference: u64,
    },
    /// How far somebody has got in the conversation.
    Receipt {
        /// Who.
        user: Uuid,
        /// They have read it; else a device of theirs has it.
        is_read: bool,
        /// Up to and with the message of this number.
        sequence: u64,
    },
    /// Somebody writes.
    Typing,
    /// Users came or went whom the client watches.
    Presence {
        /// How many.
        changes: usize,
    },
}
