//! What an HTTP connection is doing, and until when it may: a client that is slow on purpose must not keep it open.
//!
//! hyper has one bound for a head that comes slowly and for a connection that rests between requests. Proxies need the second
//! to be long, so the two are told apart here, by what comes from the socket.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    admission::Place,
    heads::{Head, Heads},
};

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "bounds end in `_max`")]
pub struct Waits {
    /// From the first byte of a request, or from the beginning of the connection, to the end of the head. Then it is closed.
    pub head_max: Duration,
    /// For a request's body, from when it is first asked for. Then 408.
    pub body_max: Duration,
    /// From the head of a request to its answer. Then 503.
    pub request_max: Duration,
    /// From an answer to the next request, in which the client takes the answer too. Then it is closed.
    pub idle_max: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            head_max: Duration::from_secs(10),
            body_max: Duration::from_secs(15),
            request_max: Duration::from_secs(30),
            // Longer than the minute that proxies usually keep a connection for its next request.
            idle_max: Duration::from_secs(75),
        }
    }
}

/// A socket that was accepted, as long as anything holds it: its place, and what it is doing.
#[derive(Debug)]
pub struct Accepted {
    waits: Arc<Waits>,
    doing: Mutex<(Doing, Instant)>,
    head: Mutex<Head>,
    _place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// A head is being read.
    Head,
    /// A request is being answered.
    Request,
    /// Nothing, but that an answer may still be on its way.
    Idle,
}

impl Accepted {
    /// For a socket that has been open `since` then.
    pub fn new(waits: Arc<Waits>, place: Place, heads: &Heads, since: Instant) -> Arc<Self> {
        let (doing, head) = (Mutex::new((Doing::Head, since)), Mutex::new(Head::new(heads)));
        Arc::new(Self { waits, doing, head, _place: place })
    }

    /// When the connection is to be closed, unless something happens.
    pub fn deadline(&self) -> Instant {
        let (doing, since) = *self.doing.lock();
        since
            + match doing {
                Doing::Head => self.waits.head_max,
                // The request ends first, with an answer that says so.
                Doing::Request => self.waits.request_max + self.waits.body_max,
                Doing::Idle => self.waits.idle_max,
            }
    }

    /// Bytes have come. Fails if they are those of a head for which there is no room.
    fn heard(&self, bytes: usize) -> io::Result<()> {
        let mut doing = self.doing.lock();
        if doing.0 == Doing::Idle {
            *doing = (Doing::Head, Instant::now());
        }
        if doing.0 == Doing::Head { self.head.lock().grow(bytes) } else { Ok(()) }
    }

    /// A head is complete.
    pub fn asked(&self) {
        self.head.lock().end();
        *self.doing.lock() = (Doing::Request, Instant::now());
    }

    /// The request has its answer.
    pub fn answered(&self) {
        *self.doing.lock() = (Doing::Idle, Instant::now());
    }
}

/// A socket that notes when something comes.
#[derive(Debug)]
pub struct Heard {
    socket: TcpStream,
    accepted: Arc<Accepted>,
}

impl Heard {
    pub const fn new(socket: TcpStream, accepted: Arc<Accepted>) -> Self {
        Self { socket, accepted }
    }
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0
            && let Err(full) = self.accepted.heard(bytes)
        {
            return Poll::Ready(Err(full));
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
