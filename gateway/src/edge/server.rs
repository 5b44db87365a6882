//! The HTTP server: takes sockets as long as there is room, and gives each a bounded time for everything.
//!
//! **Invariant:** accepting never waits for a client. A connection that becomes a WebSocket leaves nothing behind but its
//! socket and its place.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{Router, http::HeaderMap, response::Response};
use chat_shared::lifecycle::Tasks;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    activity::{Accepted, Heard, Waits},
    address::{ClientAddress, TrustedProxies},
    admission::{Admission, Full, Place},
    heads::Heads,
    proxy::{self, ProxyProtocol, Unnamed},
};
use crate::{refusal::Refusal, telemetry};

/// Bytes of a head that are read at all, and so what a connection that nobody has looked at can cost. What is less and
/// still too much is refused with a reason, see `bounds`.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long to wait when no socket can be accepted, most likely because the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Sockets there is no room for, that are seen off at the same time; others are dropped unheard.
const SEEN_OFF_MAX: usize = 64;
/// How long one of those may take.
const SEE_OFF_WAIT_MAX: Duration = Duration::from_secs(1);

/// What decides who comes in at a port.
#[derive(Debug)]
pub struct Door {
    pub admission: Arc<Admission>,
    pub proxies: TrustedProxies,
    pub waits: Arc<Waits>,
    protocol: ProxyProtocol,
    heads: Heads,
    seen_off: Arc<Semaphore>,
}

/// The other end of a connection: that of the socket, or the one that a PROXY header names.
#[derive(Clone, Copy)]
struct Peer {
    address: IpAddr,
    /// Whether it is trusted to say who the client is.
    is_proxy: bool,
}

/// Who sent a request; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// Whom limits for an address count.
    pub address: ClientAddress,
    /// Whether the connection is that of a proxy, which is trusted to say who the client is.
    pub is_forwarded: bool,
}

/// Serves HTTP until the process drains. Requests under way are finished.
pub async fn serve(listener: TcpListener, router: Router, door: Arc<Door>, tasks: Tasks) -> anyhow::Result<()> {
    let router = TowerToHyperService::new(router);
    let draining = tasks.draining();
    // Cancel safe: a socket that was accepted is not lost, as nothing is awaited after it.
    while let Some(accepted) = draining.run_until_cancelled(accept(&listener)).await {
        let Some((socket, peer)) = accepted else { continue };
        // Small frames must not wait for each other.
        let _unsupported = socket.set_nodelay(true);
        let peer = door.peer(peer.ip());
        if door.protocol == ProxyProtocol::Required && !peer.is_proxy {
            Unnamed::Untrusted.note();
            continue;
        }
        match door.admission.socket((!peer.is_proxy).then(|| peer.address.into())) {
            Ok(place) => {
                let connection = connection(socket, peer, place, router.clone(), Arc::clone(&door), tasks.clone());
                tasks.best_effort("http_connection", connection);
            }
            Err(full) => door.refuse(socket, full, &tasks),
        }
    }
    Ok(())
}

impl Door {
    pub fn new(admission: Arc<Admission>, proxies: TrustedProxies, protocol: ProxyProtocol, waits: Waits) -> Self {
        let (waits, seen_off) = (Arc::new(waits), Arc::new(Semaphore::new(SEEN_OFF_MAX)));
        Self { admission, proxies, waits, protocol, heads: Heads::default(), seen_off }
    }

    fn peer(&self, address: IpAddr) -> Peer {
        Peer { address, is_proxy: self.proxies.contains(address) }
    }

    /// Whom the PROXY header names that comes before `deadline`, counted for its address; none if the connection has ended.
    async fn named(
        &self,
        mut socket: TcpStream,
        balancer: Peer,
        mut place: Place,
        deadline: Instant,
        tasks: &Tasks,
    ) -> Option<(TcpStream, Peer, Place)> {
        let reading = timeout_at(deadline, proxy::read(&mut socket));
        let read = tasks.draining().run_until_cancelled(reading).await?;
        let peer = match read.unwrap_or(Err(Unnamed::Late)) {
            Ok(Some(address)) => self.peer(address),
            // The balancer writes no `X-Forwarded-For`, so one would be the client's own.
            Ok(None) => Peer { is_proxy: false, ..balancer },
            Err(unnamed) => {
                unnamed.note();
                return None;
            }
        };
        if !peer.is_proxy
            && let Err(full) = place.name(peer.address.into())
        {
            self.refuse(socket, full, tasks);
            return None;
        }
        Some((socket, peer, place))
    }

    /// Tells a client that there is no room, unless too many are told at the moment.
    fn refuse(&self, socket: TcpStream, full: Full, tasks: &Tasks) {
        metrics::counter!(telemetry::EDGE_REFUSED_TOTAL, "reason" => full.reason()).increment(1);
        if let Ok(turn) = Arc::clone(&self.seen_off).try_acquire_owned() {
            tasks.best_effort("no_room", async move {
                let _late = timeout(SEE_OFF_WAIT_MAX, see_off(socket, full)).await;
                drop(turn);
            });
        }
    }
}

impl Peer {
    fn client(self, proxies: &TrustedProxies, headers: &HeaderMap) -> Client {
        let address = if self.is_proxy { proxies.client(self.address, headers) } else { self.address.into() };
        Client { address, is_forwarded: self.is_proxy }
    }
}

/// The next socket; none if it was gone before, or none can be had at the moment.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) if is_of_one_client(&error) => None,
        Err(error) => {
            tracing::error!(%error, "no connection can be accepted, trying again");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one socket until it closes, becomes a WebSocket, or takes too long.
async fn connection(
    socket: TcpStream,
    peer: Peer,
    place: Place,
    router: TowerToHyperService<Router>,
    door: Arc<Door>,
    tasks: Tasks,
) {
    let since = Instant::now();
    let (socket, peer, place) = match door.protocol {
        ProxyProtocol::Off => (socket, peer, place),
        ProxyProtocol::Required => {
            // Header and head together have the time of a head.
            let deadline = since + door.waits.head_max;
            let Some(named) = Box::pin(door.named(socket, peer, place, deadline, &tasks)).await else { return };
            named
        }
    };
    let accepted = Accepted::new(Arc::clone(&door.waits), place, &door.heads, since);
    let heard = TokioIo::new(Heard::new(socket, Arc::clone(&accepted)));
    let answering = Arc::clone(&accepted);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let client = peer.client(&door.proxies, request.headers());
        answer(request, client, router.clone(), Arc::clone(&answering))
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
    let mut connection = pin!(http.serve_connection(heard, service).with_upgrades());
    let mut draining = pin!(tasks.draining().cancelled());
    let mut waiting = pin!(tokio::time::sleep_until(accepted.deadline()));
    let mut is_draining = false;
    poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            connection.as_mut().graceful_shutdown();
        }
        // However it ended, the client knows as much as we do.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let deadline = accepted.deadline();
        if waiting.deadline() != deadline {
            waiting.as_mut().reset(deadline);
        }
        waiting.as_mut().poll(cx)
    })
    .await;
}

async fn answer(
    mut request: hyper::Request<Incoming>,
    client: Client,
    router: TowerToHyperService<Router>,
    accepted: Arc<Accepted>,
) -> Result<Response, Infallible> {
    accepted.asked();
    request.extensions_mut().insert(client);
    let response = hyper::service::Service::call(&router, request).await;
    accepted.answered();
    response
}

/// Tells a client that there is no room. What it has sent is read, or the answer might be lost.
async fn see_off(mut socket: TcpStream, full: Full) -> io::Result<()> {
    socket.write_all(&Refusal::no_room(full).into_http()).await?;
    socket.shutdown().await?;
    let mut unread = [0; 1024];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}
