//! A listener whose connections can be cut at any time, as those of a service that is down.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{Extension, Router};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::lock;

/// Connections served at a time; more wait.
const CONNECTIONS_MAX: usize = 1024;

/// After a connection that couldn't be accepted, or a port that couldn't be taken again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken on the connections.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    Http1,
    /// Without TLS, and known to the client beforehand.
    Http2,
}

/// Ends the connection that a request came on.
#[derive(Debug, Clone)]
pub struct Cut(CancellationToken);

impl Cut {
    /// Ends it; never returns.
    pub async fn cut(&self) -> ! {
        self.0.cancel();
        std::future::pending().await
    }
}

/// Listens on a port of 127.0.0.1.
pub async fn bind(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port} is taken"))
}

/// Serves a router. Stops when dropped, and its connections end.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    line: Arc<Line>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves what `make_router` makes for each connection.
    pub fn start(
        listener: TcpListener,
        protocol: Protocol,
        make_router: impl Fn() -> Router + Send + 'static,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        let state = LineState { is_down: false, listener: Some(Arc::new(listener)), ..LineState::default() };
        let line = Arc::new(Line { address, state: Mutex::new(state), is_up_again: Notify::new() });
        let admission = Arc::clone(&line);
        #[expect(clippy::disallowed_methods, reason = "this crate has no lifecycle; the handle is aborted on drop")]
        let task = tokio::spawn(async move { accept(&admission, protocol, make_router).await });
        Ok(Self { address, line, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Down: every connection is cut, and new ones are refused.
    pub fn set_down(&self, is_down: bool) {
        let mut state = lock(&self.line.state);
        state.is_down = is_down;
        if is_down {
            if let Some(listener) = state.listener.take() {
                // At once, and not when the one who accepts notices. What isn't connected any more is as good.
                _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
            }
            state.connections.cancel();
            state.connections = CancellationToken::new();
        } else if state.listener.is_none() {
            state.listener = listen_again(self.address).ok();
            self.line.is_up_again.notify_one();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether connections are taken, and how to end those that are.
#[derive(Debug)]
struct Line {
    address: SocketAddr,
    state: Mutex<LineState>,
    is_up_again: Notify,
}

#[derive(Debug, Default)]
struct LineState {
    is_down: bool,
    /// None while it is down.
    listener: Option<Arc<TcpListener>>,
    connections: CancellationToken,
}

impl Line {
    fn admit(&self) -> Option<CancellationToken> {
        let state = lock(&self.state);
        (!state.is_down).then(|| state.connections.child_token())
    }

    /// The port, as soon as it is open.
    async fn listener(&self) -> Arc<TcpListener> {
        loop {
            {
                let mut state = lock(&self.state);
                if !state.is_down && state.listener.is_none() {
                    state.listener = listen_again(self.address).ok();
                }
                if let Some(listener) = &state.listener {
                    return Arc::clone(listener);
                }
            }
            // Somebody else may have the port for a moment.
            _ = timeout(ACCEPT_PAUSE, self.is_up_again.notified()).await;
        }
    }
}

/// On the same port, and at once.
fn listen_again(address: SocketAddr) -> Result<Arc<TcpListener>> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Arc::new(TcpListener::from_std(listener)?))
}

async fn accept(line: &Line, protocol: Protocol, make_router: impl Fn() -> Router) {
    let mut connections = JoinSet::new();
    loop {
        let listener = line.listener().await;
        // Both branches are cancel safe: neither loses a connection or an end of one.
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    if let Some(end) = line.admit() {
                        let router = make_router().layer(Extension(Cut(end.clone())));
                        connections.spawn(serve(stream, router, protocol, end));
                    }
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router, protocol: Protocol, end: CancellationToken) {
    let io = TokioIo::new(stream);
    let service = TowerToHyperService::new(router);
    let served = async {
        // How a connection ends is the client's matter.
        _ = match protocol {
            Protocol::Http1 => http1::Builder::new().serve_connection(io, service).await,
            Protocol::Http2 => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
        };
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = served => {}
    }
}
