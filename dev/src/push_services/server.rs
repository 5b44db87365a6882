//! A listener whose connections can be cut at any time, as a provider's that is down.

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
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::book::lock;

/// Connections served at a time; more wait.
const CONNECTIONS_MAX: usize = 1024;

/// After a connection that couldn't be accepted.
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
        let line = Arc::new(Line::default());
        let admission = Arc::clone(&line);
        #[expect(clippy::disallowed_methods, reason = "this crate has no lifecycle; the handle is aborted on drop")]
        let task = tokio::spawn(async move { accept(&listener, &admission, protocol, make_router).await });
        Ok(Self { address, line, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Down: every connection is cut, and new ones are ended before anything is read.
    pub fn set_down(&self, is_down: bool) {
        let mut state = lock(&self.line.0);
        state.is_down = is_down;
        if is_down {
            state.connections.cancel();
            state.connections = CancellationToken::new();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether connections are taken, and how to end those that are.
#[derive(Debug, Default)]
struct Line(Mutex<LineState>);

#[derive(Debug, Default)]
struct LineState {
    is_down: bool,
    connections: CancellationToken,
}

impl Line {
    fn admit(&self) -> Option<CancellationToken> {
        let state = lock(&self.0);
        (!state.is_down).then(|| state.connections.child_token())
    }
}

async fn accept(listener: &TcpListener, line: &Line, protocol: Protocol, make_router: impl Fn() -> Router) {
    let mut connections = JoinSet::new();
    loop {
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
